package main

import (
	"cmp"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// The conformance suite: what the sriov-network-device-plugin does, and what we
// do, by its tables: keys, command line, discovery, device list, variables,
// device nodes, DeviceInfo, CDI, and life. docs/migration.md has the same rows.

// area is a table.
type area struct {
	name, title string
	rows        []row
}

// row is one thing that the peer does.
type row struct {
	name string // in words; of the subtest, too
	peer string
	ours string // empty: the same

	// A row has one of the two: a test through the plugin's own door, or
	// where another test shows it: "PACKAGE TestFunction/subtest".
	test      func(*testing.T)
	elsewhere string
}

// subtest is the name without the page's marks, which a shell would read.
func (r row) subtest() string { return strings.ReplaceAll(r.name, "`", "") }

// conformance are all tables. Rows that leave a machine as it is share the zoo.
func conformance(z *zoo) []area {
	return []area{
		{"keys", "Configuration file", keyRows(z)},
		{"selectors", "Selectors", selectorRows(z)},
		{"ranges", "Indexes in `pfNames` and `rootDevices`", rangeRows(z)},
		{"flags", "Command line", flagRows(z)},
		{"discovery", "Discovery", discoveryRows(z)},
		{"devices", "Device list, topology, health", deviceRows(z)},
		{"variables", "Variables", variableRows(z)},
		{"nodes", "Device nodes", nodeRows(z)},
		{"deviceinfo", "DeviceInfo files", deviceInfoRows(z)},
		{"cdi", "CDI", cdiRows(z)},
		{"life", "Sockets, registration, life", lifeRows(z)},
	}
}

func TestConformance(t *testing.T) {
	z := &zoo{at: writeZoo(t)}
	for _, a := range conformance(z) {
		t.Run(a.name, func(t *testing.T) {
			for _, r := range a.rows {
				if r.test != nil {
					t.Run(r.subtest(), r.test)
				}
			}
		})
	}
}

// TestConformanceRows: each row has a name of its own, both sides, and one test,
// and a test elsewhere is there.
func TestConformanceRows(t *testing.T) {
	packages := map[string]*testSource{}
	for _, a := range conformance(&zoo{}) {
		seen := map[string]bool{}
		for _, r := range a.rows {
			if seen[r.name] || r.name == "" || r.peer == "" {
				t.Errorf("%s/%s: the name is not its own, or the peer's side is missing", a.name, r.name)
			}
			seen[r.name] = true
			if (r.test == nil) == (r.elsewhere == "") {
				t.Errorf("%s/%s: want one of test and elsewhere", a.name, r.name)
			}
			if r.elsewhere == "" {
				continue
			}
			pkg, test, _ := strings.Cut(r.elsewhere, " ")
			if packages[pkg] == nil {
				packages[pkg] = readTests(t, filepath.Join("..", "..", pkg))
			}
			if err := packages[pkg].has(test); err != nil {
				t.Errorf("%s/%s: %s: %v", a.name, r.name, pkg, err)
			}
		}
	}
}

// testSource is what a package's tests are called.
type testSource struct {
	functions map[string]bool
	strings   map[string]bool // all literals: names of subtests are among them
}

func readTests(t *testing.T, dir string) *testSource {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no tests in %s: %v", dir, err)
	}
	s := &testSource{map[string]bool{}, map[string]bool{}}
	for _, file := range files {
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		must(t, err)
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				s.functions[n.Name.Name] = n.Recv == nil
			case *ast.BasicLit:
				if text, err := strconv.Unquote(n.Value); err == nil && n.Kind == token.STRING {
					s.strings[text] = true
				}
			}
			return true
		})
	}
	return s
}

func (s *testSource) has(test string) error {
	function, subtest, sub := strings.Cut(test, "/")
	switch {
	case !strings.HasPrefix(function, "Test") || !s.functions[function]:
		return fmt.Errorf("no test %s", function)
	case sub && !s.strings[subtest]:
		return fmt.Errorf("%s: no text %q", function, subtest)
	}
	return nil
}

var update = flag.Bool("update", false, "write the tables of docs/migration.md anew")

const (
	page  = "../../docs/migration.md"
	begin = "<!-- from the conformance suite: go test ./cmd/plugin -run TestMigrationPage -update -->\n"
	end   = "<!-- end of the conformance suite -->\n"
)

// TestMigrationPage: the page has the suite's rows, as they are.
func TestMigrationPage(t *testing.T) {
	b, err := os.ReadFile(page)
	must(t, err)
	before, rest, ok := strings.Cut(string(b), begin)
	got, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s lacks the lines %q and %q", page, begin, end)
	}
	want := tables(conformance(&zoo{}))
	if got == want {
		return
	}
	if !*update {
		t.Fatalf("%s and the suite differ: go test ./cmd/plugin -run TestMigrationPage -update", page)
	}
	must(t, os.WriteFile(page, []byte(before+begin+want+end+after), 0o644))
}

func tables(areas []area) string {
	var b strings.Builder
	for _, a := range areas {
		fmt.Fprintf(&b, "\n### %s\n\n| | the peer | numalane | test |\n|---|---|---|---|\n", a.title)
		for _, r := range a.rows {
			fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", cell(r.name), cell(r.peer), cell(cmp.Or(r.ours, "the same")), testCell(a, r))
		}
	}
	b.WriteByte('\n')
	return b.String()
}

func cell(s string) string { return strings.ReplaceAll(s, "|", `\|`) }

// testCell names the test as go test -run takes it.
func testCell(a area, r row) string {
	if pkg, test, ok := strings.Cut(r.elsewhere, " "); ok {
		return fmt.Sprintf("`%s` `%s`", pkg, strings.ReplaceAll(test, " ", "_"))
	}
	return fmt.Sprintf("`%s/%s`", a.name, strings.ReplaceAll(r.subtest(), " ", "_"))
}
