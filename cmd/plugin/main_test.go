package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/numalane/numalane/internal/sysfstest"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"numalane-plugin": func() {
			if err := newCommand(os.Args[1:]).ExecuteContext(context.Background()); err != nil {
				fmt.Fprintln(os.Stderr, "numalane-plugin:", err)
				os.Exit(1)
			}
		},
	})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "script"),
		Setup: func(e *testscript.Env) error {
			m := sysfstest.Uniform(2, 2, 2,
				sysfstest.X710("0000:3b:00.0", 0, 4), sysfstest.Intel82599("0000:af:00.0", 1, 2), sysfstest.ENA("0000:00:05.0", 0))
			return m.Write(filepath.Join(e.WorkDir, "machine"))
		},
	})
}
