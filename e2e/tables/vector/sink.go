package vector

import (
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"strings"
)

// SinkVariable names the file that vectors are appended to. It is an
// environment variable because the kubelet's own tests run in between.
const SinkVariable = "NUMALANE_TABLES"

// Emit appends a vector to the sink. It panics when it cannot: a table with a
// gap would be taken for a whole one.
func Emit(test string, v Vector) {
	v.Test = test
	b, err := json.Marshal(v)
	if err == nil {
		err = appendLine(os.Getenv(SinkVariable), append(b, '\n'))
	}
	if err != nil {
		panic(fmt.Sprintf("record a vector of %s: %v", test, err))
	}
}

func appendLine(path string, line []byte) error {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open the sink of %s: %w", SinkVariable, err)
	}
	_, err = f.Write(line)
	if e := f.Close(); err == nil {
		err = e
	}
	return err
}

// Test is the kubelet's test function that is running. It is false when the
// caller was called by the recorder itself, which asks the kubelet's code more
// than its tests do.
func Test() (string, bool) {
	pcs := make([]uintptr, 128)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs)])
	test := "(in the background)"
	for {
		frame, more := frames.Next()
		name := frame.Function[strings.LastIndexByte(frame.Function, '/')+1:]
		if name == "vector.(*Queue).Run" {
			return "", false
		}
		_, fn, _ := strings.Cut(name, ".")
		if strings.HasPrefix(fn, "Test") {
			test, _, _ = strings.Cut(fn, ".")
		}
		if !more {
			return test, true
		}
	}
}
