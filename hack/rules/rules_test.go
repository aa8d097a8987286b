// Package rules holds the import rules of docs/architecture.md, and the limit
// that keeps mains small.
//
// The rules read the source in this very process: what a child process reads,
// go test does not know of, and would answer "ok (cached)" to a new violation.
package rules

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

const (
	module        = "github.com/numalane/numalane/"
	mainLines     = 120
	whySmallMain  = "a main is flags and wiring"
	whyNotServing = "a server's timeouts, TLS and shutdown are written once, in internal/httpserver"
)

// rule says which folders alone may import something. A folder and an import
// path cover what is below them.
type rule struct {
	imports []string
	only    []string
	tests   bool // tests keep to it as well
	why     string
}

var rules = []rule{
	{
		imports: []string{"k8s.io/kubernetes"}, tests: true,
		why: "it is not made to be imported, and pulls in a thousand packages: only e2e/ is built on it",
	},
	{
		imports: []string{"github.com/vishvananda", "golang.org/x/sys"}, only: []string{"internal/inventory"},
		why: "one loop watches the host",
	},
	{
		imports: []string{"k8s.io/client-go"}, only: []string{"internal/publish", "internal/ledger", "internal/lead", "internal/kubelet", "cmd"},
		why: "each flow has one place that talks to the API",
	},
	{
		imports: []string{"net/http"}, only: []string{"internal/extender", "internal/httpserver", "internal/kubelet", "cmd/plugin"},
		why: "HTTP is served by extender and httpserver; kubelet asks for /configz with the client that cmd/plugin makes",
	},
	{
		imports: []string{"google.golang.org/grpc"}, only: []string{"internal/plugin", "internal/kubelet"},
		why: "gRPC is the kubelet's language, and theirs alone",
	},
	{
		imports: []string{"tags.cncf.io"}, only: []string{"internal/cdi"},
		why: "specifications for container runtimes have one writer",
	},
	{
		imports: []string{"github.com/jaypipes/ghw"}, only: []string{"pkg/topology"},
		why: "one reader of the machine, which guards against what ghw leaves out in silence",
	},
	{
		imports: []string{module + "internal"}, only: []string{"internal", "cmd"},
		why: "pkg/ is for others to import, and stands on nothing of the daemons",
	},
	{
		imports: []string{module + "internal/sysfstest"},
		why:     "machines that do not exist are for tests",
	},
}

// lists name all that a folder may import besides the standard library.
var lists = map[string][]string{
	"pkg/topology": {"github.com/jaypipes/ghw", "github.com/jaypipes/pcidb", "k8s.io/utils/cpuset"},
	"pkg/allocator": {
		module + "pkg/topology", "k8s.io/utils/cpuset", "k8s.io/api", "k8s.io/apimachinery/pkg/api/resource", "k8s.io/component-helpers/resource",
	},
}

// never reaches a package of lists, not through others either.
var never = []string{"k8s.io/client-go", "google.golang.org/grpc", "github.com/vishvananda", "k8s.io/kubernetes"}

// source is what the rules ask of a Go file.
type source struct {
	path    string // from the module's root
	imports []string
	serves  []string // names of net/http that start a server
	lines   int
}

func (s source) in(folders []string) bool {
	return slices.ContainsFunc(folders, func(f string) bool { return under(s.path, f) })
}

func under(path, prefix string) bool { return path == prefix || strings.HasPrefix(path, prefix+"/") }

func matches(imp string, prefixes []string) bool {
	return slices.ContainsFunc(prefixes, func(p string) bool { return under(imp, p) })
}

func TestImports(t *testing.T) {
	sources := load(t)
	for _, known := range []string{"pkg/topology/host.go", "pkg/allocator/verdict.go", "cmd/plugin/main.go", "cmd/extender/main.go"} {
		if !slices.ContainsFunc(sources, func(s source) bool { return s.path == known }) {
			t.Errorf("%s was not read: is this the module's root?", known)
		}
	}
	for _, v := range violations(sources) {
		t.Error(v)
	}
}

// load reads the module.
func load(t *testing.T) []source {
	t.Helper()
	sources, err := read(os.DirFS("../.."))
	if err != nil {
		t.Fatal(err)
	}
	return sources
}

// read parses every Go file of the module, whatever its build constraints. It
// leaves out other modules and test data.
func read(root fs.FS) ([]source, error) {
	var out []source
	err := fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && name != ".":
			_, err := fs.Stat(root, path.Join(name, "go.mod"))
			if err == nil || d.Name() == "testdata" || strings.HasPrefix(d.Name(), ".") {
				return fs.SkipDir
			}
			return nil
		case path.Ext(name) != ".go":
			return nil
		}
		s, err := parse(root, name)
		out = append(out, s)
		return err
	})
	return out, err
}

func parse(root fs.FS, name string) (source, error) {
	text, err := fs.ReadFile(root, name)
	if err != nil {
		return source{}, err
	}
	file, err := parser.ParseFile(token.NewFileSet(), name, text, parser.SkipObjectResolution)
	if err != nil {
		return source{}, err
	}
	s := source{path: name, lines: strings.Count(string(text), "\n")}
	httpName := ""
	for _, spec := range file.Imports {
		imp, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return source{}, fmt.Errorf("%s: import %s: %w", name, spec.Path.Value, err)
		}
		s.imports = append(s.imports, imp)
		if imp == "net/http" {
			httpName = "http"
			if spec.Name != nil {
				httpName = spec.Name.Name
			}
		}
	}
	ast.Inspect(file, func(n ast.Node) bool {
		if sel, ok := n.(*ast.SelectorExpr); ok {
			if x, ok := sel.X.(*ast.Ident); ok && x.Name == httpName && starts(sel.Sel.Name) {
				s.serves = append(s.serves, sel.Sel.Name)
			}
		}
		return true
	})
	return s, nil
}

// starts tells whether a name of net/http starts a server.
func starts(name string) bool {
	return slices.Contains([]string{"Server", "ListenAndServe", "ListenAndServeTLS", "Serve", "ServeTLS"}, name)
}

func violations(sources []source) []string {
	var out []string
	add := func(s source, what, why string) { out = append(out, fmt.Sprintf("%s %s: %s", s.path, what, why)) }
	for _, s := range sources {
		test := strings.HasSuffix(s.path, "_test.go")
		for _, r := range rules {
			if test && !r.tests || s.in(r.only) {
				continue
			}
			for _, imp := range s.imports {
				if matches(imp, r.imports) {
					add(s, "imports "+imp, r.why)
				}
			}
		}
		if test {
			continue
		}
		for folder, list := range lists {
			for _, imp := range s.imports {
				standard := !strings.Contains(strings.Split(imp, "/")[0], ".")
				if under(s.path, folder) && !standard && !under(imp, module+folder) && !matches(imp, list) {
					add(s, "imports "+imp, "it is not on the list of "+folder)
				}
			}
		}
		for _, name := range s.serves {
			if !s.in([]string{"internal/extender", "internal/httpserver"}) {
				add(s, "uses http."+name, whyNotServing)
			}
		}
		if ok, _ := path.Match("cmd/*/main.go", s.path); ok && s.lines > mainLines {
			add(s, fmt.Sprintf("has %d lines, at most %d", s.lines, mainLines), whySmallMain)
		}
	}
	return out
}

// TestReach: what the two packages of pkg/ stand on through others. The answer
// of go list follows from the source, go.mod and go.sum: they are read here so
// that go test knows when its own answer is out of date.
func TestReach(t *testing.T) {
	load(t)
	for _, name := range []string{"go.mod", "go.sum"} {
		if _, err := os.ReadFile(filepath.Join("..", "..", name)); err != nil {
			t.Fatal(err)
		}
	}
	for folder := range lists {
		cmd := exec.Command("go", "list", "-deps", "./"+folder+"/...")
		cmd.Dir = filepath.Join("..", "..")
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("go list -deps %s: %v", folder, err)
		}
		deps := strings.Fields(string(out))
		if !slices.Contains(deps, module+folder) {
			t.Errorf("go list -deps %s does not list the package itself", folder)
		}
		for _, v := range reach(folder, deps) {
			t.Error(v)
		}
	}
}

func reach(folder string, deps []string) []string {
	var out []string
	for _, dep := range deps {
		if matches(dep, never) {
			out = append(out, fmt.Sprintf("%s reaches %s: who imports it would get that as well (go mod why %s)", folder, dep, dep))
		}
	}
	return out
}

// TestViolationsAreSeen: every rule has a file that breaks it.
func TestViolationsAreSeen(t *testing.T) {
	imports := func(paths ...string) string {
		text := "package x\n"
		for _, p := range paths {
			text += "import _ " + strconv.Quote(p) + "\n"
		}
		return text
	}
	cases := []struct {
		name, path, text string
		want             []string
	}{
		{"Kubernetes", "internal/ledger/x.go", imports("k8s.io/kubernetes/pkg/apis/core"), []string{"internal/ledger/x.go imports k8s.io/kubernetes/pkg/apis/core: " + rules[0].why}},
		{"Kubernetes in a test", "cmd/plugin/x_test.go", imports("k8s.io/kubernetes"), []string{"cmd/plugin/x_test.go imports k8s.io/kubernetes: " + rules[0].why}},
		{"netlink", "internal/plugin/x.go", imports("github.com/vishvananda/netlink/nl"), []string{"internal/plugin/x.go imports github.com/vishvananda/netlink/nl: " + rules[1].why}},
		{"netlink in its place", "internal/inventory/x.go", imports("github.com/vishvananda/netlink", "golang.org/x/sys/unix"), nil},
		{"client-go", "internal/config/x.go", imports("k8s.io/client-go/rest"), []string{"internal/config/x.go imports k8s.io/client-go/rest: " + rules[2].why}},
		{"client-go in a test", "internal/extender/x_test.go", imports("k8s.io/client-go/kubernetes/fake"), nil},
		{"client-go of a main", "cmd/extender/x.go", imports("k8s.io/client-go/rest"), nil},
		{"client-go under a build constraint", "internal/config/x.go", "//go:build windows\n\n" + imports("k8s.io/client-go/rest"), []string{"internal/config/x.go imports k8s.io/client-go/rest: " + rules[2].why}},
		{"HTTP", "cmd/extender/x.go", imports("net/http/pprof"), []string{"cmd/extender/x.go imports net/http/pprof: " + rules[3].why}},
		{"gRPC", "internal/publish/x.go", imports("google.golang.org/grpc/codes"), []string{"internal/publish/x.go imports google.golang.org/grpc/codes: " + rules[4].why}},
		{"CDI", "internal/plugin/x.go", imports("tags.cncf.io/container-device-interface/pkg/cdi"), []string{"internal/plugin/x.go imports tags.cncf.io/container-device-interface/pkg/cdi: " + rules[5].why}},
		{"CDI in a test", "internal/plugin/x_test.go", imports("tags.cncf.io/container-device-interface/pkg/cdi"), nil},
		{"ghw", "internal/inventory/x.go", imports("github.com/jaypipes/ghw"), []string{"internal/inventory/x.go imports github.com/jaypipes/ghw: " + rules[6].why}},
		{"internal from pkg", "pkg/other/x.go", imports(module + "internal/config"), []string{"pkg/other/x.go imports " + module + "internal/config: " + rules[7].why}},
		{"sysfstest", "cmd/plugin/x.go", imports(module + "internal/sysfstest"), []string{"cmd/plugin/x.go imports " + module + "internal/sysfstest: " + rules[8].why}},
		{"sysfstest in a test", "pkg/topology/x_test.go", imports(module + "internal/sysfstest"), nil},
		{"off the list", "pkg/topology/x.go", imports("k8s.io/api/core/v1"), []string{"pkg/topology/x.go imports k8s.io/api/core/v1: it is not on the list of pkg/topology"}},
		{"off the list, below", "pkg/allocator/x/x.go", imports("k8s.io/apimachinery/pkg/labels"), []string{"pkg/allocator/x/x.go imports k8s.io/apimachinery/pkg/labels: it is not on the list of pkg/allocator"}},
		{"on the list", "pkg/allocator/x.go", imports("cmp", "k8s.io/api/core/v1", module+"pkg/topology"), nil},
		{"a name that only begins alike", "internal/config/x.go", imports("k8s.io/client-gone"), nil},
		{"server", "cmd/plugin/x.go", "package main\nimport web \"net/http\"\nvar _ = web.ListenAndServe\n", []string{"cmd/plugin/x.go uses http.ListenAndServe: " + whyNotServing}},
		{"client", "cmd/plugin/x.go", "package main\nimport \"net/http\"\nvar _ = http.Client{}\n", nil},
		{"long main", "cmd/plugin/main.go", "package main\n" + strings.Repeat("\n", 120), []string{"cmd/plugin/main.go has 121 lines, at most 120: " + whySmallMain}},
		{"main as long as it may be", "cmd/plugin/main.go", "package main\n" + strings.Repeat("\n", 119), nil},
		{"test data", "internal/config/testdata/x.go", imports("k8s.io/kubernetes"), nil},
	}
	unbroken := map[string]bool{}
	for _, r := range rules {
		unbroken[r.why] = true
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			sources, err := read(fstest.MapFS{
				c.path:           {Data: []byte(c.text)},
				"e2e/go.mod":     {Data: []byte("module e2e\n")},
				"e2e/cluster.go": {Data: []byte(imports("k8s.io/kubernetes"))},
			})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, violations(sources)); diff != "" {
				t.Errorf("violations (-want +got):\n%s", diff)
			}
		})
		for _, w := range c.want {
			for why := range unbroken {
				if strings.HasSuffix(w, why) {
					delete(unbroken, why)
				}
			}
		}
	}
	for why := range unbroken {
		t.Errorf("no case breaks the rule %q", why)
	}
	if got := reach("pkg/topology", []string{"os", "google.golang.org/grpc/codes", "k8s.io/client-go"}); len(got) != 2 {
		t.Errorf("saw %q, want two violations", got)
	}
}

// TestUnreadableSource: what cannot be parsed is named, not left out.
func TestUnreadableSource(t *testing.T) {
	_, err := read(fstest.MapFS{"cmd/plugin/torn.go": {Data: []byte("package main\nimport (")}})
	if err == nil || !strings.Contains(err.Error(), "cmd/plugin/torn.go") {
		t.Errorf("got %v, want an error that names cmd/plugin/torn.go", err)
	}
}
