package oracle_test

import (
	"context"
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
	klog.SetSlogLogger(slog.New(slog.DiscardHandler)) // cAdvisor's word on NUMA nodes without CPUs
	os.Exit(m.Run())
}

// TestOracle lives a few thousand cases on the newest kubelet. ORACLE_CASES
// and SEED choose others.
func TestOracle(t *testing.T) {
	cache := filepath.Join("..", ".cache")
	o := oracle.Options{
		Binaries: filepath.Join(cache, "bin"), Cache: filepath.Join(cache, "oracle"), Kubelets: []int{37},
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
