package daemon

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

func TestLogLevel(t *testing.T) {
	tests := []struct {
		level string
		want  slog.Level
		bad   bool
	}{
		{level: "debug", want: slog.LevelDebug},
		{level: "INFO", want: slog.LevelInfo},
		{level: "error", want: slog.LevelError},
		{level: "0", want: slog.LevelInfo},
		{level: "3", want: slog.LevelInfo},
		{level: "4", want: slog.LevelDebug},
		{level: "10", want: slog.LevelDebug},
		{level: "-1", bad: true},
		{level: "loud", bad: true},
		{level: "", bad: true},
	}
	for _, test := range tests {
		var l Logging
		f := pflag.NewFlagSet("test", pflag.ContinueOnError)
		l.AddFlags(f)
		if err := f.Set("log-level", test.level); err != nil {
			t.Fatal(err)
		}
		log, err := l.Logger(&bytes.Buffer{})
		if test.bad {
			if err == nil || !strings.Contains(err.Error(), "--log-level") {
				t.Errorf("level %q: %v, want an error that names the flag", test.level, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("level %q: %v", test.level, err)
			continue
		}
		ctx := context.Background()
		if !log.Enabled(ctx, test.want) || log.Enabled(ctx, test.want-1) {
			t.Errorf("level %q: want %v and up", test.level, test.want)
		}
	}
}

func TestLogFile(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "below", "log")
	write := func(l *LogFile, records ...string) {
		t.Helper()
		for _, r := range records {
			if n, err := l.Write([]byte(r)); err != nil || n != len(r) {
				t.Fatalf("write %q: %d, %v", r, n, err)
			}
		}
	}
	check := func(name, want string) {
		t.Helper()
		got, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || string(got) != want {
			t.Errorf("%s holds %q, %v, want %q", name, got, err, want)
		}
	}
	open := func() *LogFile {
		t.Helper()
		l, err := openLogFile(dir, "x.log", 10)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		return l
	}
	l := open()
	write(l, "one\n", "two\n")
	check("x.log", "one\ntwo\n")
	write(l, "three\n")
	check("x.log.old", "one\ntwo\n")
	check("x.log", "three\n")
	write(open(), "4\n", "5\n") // it goes on where it was, and 10 bytes are 10
	check("x.log", "three\n4\n5\n")
	write(open(), "longer than the file may be\n")
	check("x.log.old", "three\n4\n5\n")
	check("x.log", "longer than the file may be\n")

	if _, err := OpenLogFile(filepath.Join(dir, "x.log"), "y.log"); err == nil {
		t.Error("a file is no folder, want an error")
	}
}
