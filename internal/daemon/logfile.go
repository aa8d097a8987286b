package daemon

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
)

// logFileSize is how large a log file grows before it is put aside. The one put
// aside before goes: together they hold twice that.
const logFileSize = 16 << 20

// LogFile is a log on the disk that never outgrows it.
type LogFile struct {
	path string
	most int64

	mu   sync.Mutex
	file *os.File
	size int64
}

// OpenLogFile continues the file NAME in a folder, which it makes. What no
// longer fits is in NAME.old.
func OpenLogFile(dir, name string) (*LogFile, error) { return openLogFile(dir, name, logFileSize) }

func openLogFile(dir, name string, most int64) (*LogFile, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make the log's folder: %w", err)
	}
	l := &LogFile{path: filepath.Join(dir, name), most: most}
	if err := l.open(); err != nil {
		return nil, err
	}
	return l, nil
}

func (l *LogFile) open() error {
	f, err := os.OpenFile(l.path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("open the log file: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		return errors.Join(fmt.Errorf("open the log file: %w", err), f.Close())
	}
	l.file, l.size = f, info.Size()
	return nil
}

// Write appends one record, whole.
func (l *LogFile) Write(record []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.size > 0 && l.size+int64(len(record)) > l.most {
		if err := l.turn(); err != nil {
			return 0, err
		}
	}
	n, err := l.file.Write(record)
	l.size += int64(n)
	return n, err
}

// turn begins a new file. Where that fails, the old one is written on.
func (l *LogFile) turn() error {
	if err := os.Rename(l.path, l.path+".old"); err != nil {
		return fmt.Errorf("put the log file aside: %w", err)
	}
	full := l.file
	if err := l.open(); err != nil {
		return err
	}
	return full.Close()
}

// Close ends it.
func (l *LogFile) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.file.Close()
}
