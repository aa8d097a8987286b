package main

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestBadFlags: a mistake is told with its flag, and nothing starts.
func TestBadFlags(t *testing.T) {
	kubeconfig := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(kubeconfig, []byte(`{"clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}], "contexts": [{"name": "c", "context": {"cluster": "c"}}], "current-context": "c"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		args []string
		want []string
	}{
		{"states", []string{"--absent-state=ajar", "--newer-state="}, []string{`--absent-state "ajar": want open or closed`, `--newer-state ""`}},
		{"log level", []string{"--log-level=loud"}, []string{"--log-level"}},
		{"log format", []string{"--log-format=xml"}, []string{"--log-format"}},
		{"kubeconfig", []string{"--kubeconfig=/nowhere/config"}, []string{"find the API", "/nowhere/config"}},
		{"two kinds of leader", []string{"--kubeconfig", kubeconfig, "--leader-elect", "--scheduler-lease=a/b"}, []string{"--scheduler-lease and --leader-elect", "not both"}},
		{"a lease without a namespace", []string{"--kubeconfig", kubeconfig, "--scheduler-lease=b"}, []string{`--scheduler-lease "b": want namespace/name`}},
		{"half a second", []string{"--kubeconfig", kubeconfig, "--leader-elect", "--leader-elect-lease-duration=500ms"}, []string{"--leader-elect-lease-duration 500ms"}},
		{"client certificates without TLS", []string{"--kubeconfig", kubeconfig, "--listen=127.0.0.1:0", "--client-ca-file=ca.crt"}, []string{`"ca.crt"`, "without TLS"}},
		{"an argument", []string{"serve"}, []string{"serve"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cmd := newCommand()
			cmd.SetArgs(tt.args)
			cmd.SetOut(io.Discard)
			cmd.SetErr(io.Discard)
			err := cmd.ExecuteContext(t.Context())
			if err == nil {
				t.Fatal("it ran")
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q, want %q in it", err, want)
				}
			}
		})
	}
}

func TestHelp(t *testing.T) {
	var out strings.Builder
	cmd := newCommand()
	cmd.SetArgs([]string{"--help"})
	cmd.SetOut(&out)
	if err := cmd.ExecuteContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"nodeCacheCapable: true", "--kubeconfig", "--tls-cert-file", "Examples:"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the help does not mention %q", want)
		}
	}
}
