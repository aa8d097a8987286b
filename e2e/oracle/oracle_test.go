package oracle_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"k8s.io/klog/v2"

	"github.com/numalane/numalane/e2e/oracle"
)

func TestMain(m *testing.M) {
	if real := os.Getenv(liarVariable); real != "" {
		if err := lie(real); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	klog.SetSlogLogger(slog.New(slog.DiscardHandler)) // cAdvisor's word on NUMA nodes without CPUs
	os.Exit(m.Run())
}

// binaries is where "make test-oracle" builds the kubelets' programs.
var binaries = filepath.Join("..", ".cache", "bin")

// TestOracle lives a few thousand cases on the newest kubelet. ORACLE_CASES
// and SEED choose others.
func TestOracle(t *testing.T) {
	o := oracle.Options{
		Binaries: binaries, Cache: filepath.Join("..", ".cache", "oracle"), Kubelets: []int{37},
		Cases: number(t, "ORACLE_CASES", 4000), Seed: uint64(number(t, "SEED", 1)), Workers: runtime.NumCPU(),
	}
	report, err := oracle.Run(context.WithoutCancel(t.Context()), o)
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	report.Print(&text)
	t.Log(text.String())
	for i := range report.Mismatches {
		text.Reset()
		report.Mismatches[i].Print(&text)
		t.Error(text.String())
	}
	if report.Cases != o.Cases {
		t.Errorf("%d cases, want %d", report.Cases, o.Cases)
	}
}

func number(t *testing.T, name string, otherwise int) int {
	t.Helper()
	text, ok := os.LookupEnv(name)
	if !ok || text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}
