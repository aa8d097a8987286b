// Package rules holds the import rules of docs/architecture.md and the limits
// that keep mains small.
package rules

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/numalane/numalane/"

// pkg is what go list tells of a package.
type pkg struct {
	ImportPath string
	Imports    []string
	Deps       []string
}

// rule says who may not import what, and why.
type rule struct {
	what  string   // prefix of import paths
	only  []string // packages of ours that may; a name covers what is below it
	deep  bool     // not through others either
	among []string // packages that the rule is about; empty: all
	why   string
}

var rules = []rule{
	{what: "k8s.io/client-go", only: []string{"internal/publish", "internal/ledger", "internal/kubelet", "cmd"}, why: "the API is reached in one place for each flow"},
	{what: "github.com/vishvananda/netlink", only: []string{"internal/inventory"}, why: "one loop watches the host"},
	{what: "k8s.io/kubernetes", deep: true, why: "only e2e/ is built on Kubernetes itself"},
	{what: "net/http", only: []string{"internal/extender", "internal/httpserver", "internal/kubelet", "cmd/plugin"}, why: "HTTP is served by extender and httpserver; kubelet calls /configz with a client that cmd/plugin makes"},
	{what: "github.com/jaypipes/ghw", only: []string{"pkg/topology"}, why: "one reader of the machine"},
	{what: "google.golang.org/grpc", only: []string{"internal/plugin", "internal/kubelet"}, why: "gRPC is how one talks to the kubelet"},
	{what: "k8s.io/client-go", deep: true, among: []string{"pkg/topology", "pkg/allocator"}, why: "users import these"},
	{what: "google.golang.org/grpc", deep: true, among: []string{"pkg/topology", "pkg/allocator"}, why: "users import these"},
	{what: "github.com/vishvananda", deep: true, among: []string{"pkg/topology", "pkg/allocator"}, why: "users import these"},
}

// allowed lists all that some packages may import besides the standard library.
var allowed = map[string][]string{
	"pkg/topology": {"github.com/jaypipes/ghw", "github.com/jaypipes/pcidb", "k8s.io/utils/cpuset"},
	"pkg/allocator": {module + "pkg/topology", "k8s.io/utils/cpuset", "k8s.io/api", "k8s.io/apimachinery/pkg/api/resource",
		"k8s.io/component-helpers/resource"},
}

func TestImports(t *testing.T) {
	pkgs := list(t)
	if len(pkgs) < 10 {
		t.Fatalf("go list found only %d packages", len(pkgs))
	}
	for _, v := range violations(pkgs) {
		t.Error(v)
	}
}

// TestViolationsAreSeen: a check that cannot fail is none.
func TestViolationsAreSeen(t *testing.T) {
	bad := []pkg{
		{ImportPath: module + "pkg/allocator", Imports: []string{"net/http", "k8s.io/client-go/rest"}, Deps: []string{"net/http", "k8s.io/client-go/rest"}},
		{ImportPath: module + "internal/plugin", Imports: []string{"github.com/vishvananda/netlink"}},
		{ImportPath: module + "pkg/topology", Imports: []string{"os"}, Deps: []string{"google.golang.org/grpc"}},
	}
	if got := len(violations(bad)); got != 7 {
		t.Errorf("saw %d violations, want 7:\n%s", got, strings.Join(violations(bad), "\n"))
	}
	if got := violations([]pkg{{ImportPath: module + "pkg/topology", Imports: []string{"os", "k8s.io/utils/cpuset"}}}); len(got) > 0 {
		t.Errorf("saw violations where there are none: %v", got)
	}
}

func violations(pkgs []pkg) []string {
	var out []string
	for _, p := range pkgs {
		name := strings.TrimPrefix(p.ImportPath, module)
		for _, r := range rules {
			if len(r.among) > 0 && !covers(r.among, name) || covers(r.only, name) {
				continue
			}
			imports := p.Imports
			if r.deep {
				imports = p.Deps
			}
			if i := slices.IndexFunc(imports, func(s string) bool { return under(s, r.what) }); i >= 0 {
				out = append(out, fmt.Sprintf("%s imports %s: %s", name, imports[i], r.why))
			}
		}
		if list, ok := allowed[name]; ok {
			for _, imp := range p.Imports {
				standard := !strings.Contains(strings.Split(imp, "/")[0], ".")
				if !standard && !slices.ContainsFunc(list, func(a string) bool { return under(imp, a) }) {
					out = append(out, fmt.Sprintf("%s imports %s, which is not on its list", name, imp))
				}
			}
			if slices.Contains(p.Imports, "net/http") {
				out = append(out, fmt.Sprintf("%s imports net/http: it does no I/O beyond reading a machine", name))
			}
		}
	}
	return out
}

func covers(names []string, name string) bool {
	return slices.ContainsFunc(names, func(n string) bool { return under(name, n) })
}

func under(path, prefix string) bool { return path == prefix || strings.HasPrefix(path, prefix+"/") }

// list asks the go command for every package of the product module.
func list(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-deps=false", "-json=ImportPath,Imports,Deps", "./...")
	cmd.Dir = filepath.Join("..", "..")
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("go list: %v\n%s", err, exit.Stderr)
		}
		t.Fatal(err)
	}
	var pkgs []pkg
	d := json.NewDecoder(strings.NewReader(string(out)))
	for {
		var p pkg
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return pkgs
		} else if err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, p)
	}
}

// TestMainsAreSmall: a main is flags and wiring.
func TestMainsAreSmall(t *testing.T) {
	mains, err := filepath.Glob("../../cmd/*/main.go")
	if err != nil || len(mains) < 2 {
		t.Fatalf("found mains %v, err %v", mains, err)
	}
	for _, m := range mains {
		b, err := os.ReadFile(m)
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(string(b), "\n"); n > 120 {
			t.Errorf("%s has %d lines, at most 120", m, n)
		}
	}
}
