package v1alpha1_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/jsonschema-go/jsonschema"
	"sigs.k8s.io/yaml"

	"github.com/numalane/numalane/internal/config/v1alpha1"
)

var update = flag.Bool("update", false, "rewrite schema.json")

// The schema is made of the types and their comments, with what types cannot
// say added here.
func TestSchemaIsThatOfTheTypes(t *testing.T) {
	s, err := jsonschema.For[v1alpha1.PoolConfiguration](nil)
	if err != nil {
		t.Fatal(err)
	}
	s.Schema = "https://json-schema.org/draft/2020-12/schema"
	s.Title = v1alpha1.Kind
	s.Description = comments(t)["PoolConfiguration"]
	refine(t, s, "PoolConfiguration", reflect.TypeFor[v1alpha1.PoolConfiguration]())
	constrain(s)
	got, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	got = append(got, '\n')
	if *update {
		if err := os.WriteFile("schema.json", got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if d := cmp.Diff(string(v1alpha1.Schema), string(got)); d != "" {
		t.Errorf("schema.json (-file +types), go test -update rewrites it:\n%s", d)
	}
}

// refine puts comments on properties, and takes away the null that the library
// allows wherever Go does.
func refine(t *testing.T, s *jsonschema.Schema, name string, typ reflect.Type) {
	t.Helper()
	text := comments(t)
	for i := range typ.NumField() {
		f := typ.Field(i)
		key, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		p := s.Properties[key]
		if p.Description = text[name+"."+f.Name]; p.Description == "" {
			t.Errorf("%s.%s has no comment", name, f.Name)
		}
		withoutNull(p)
		inner := f.Type
		for inner.Kind() == reflect.Slice || inner.Kind() == reflect.Pointer {
			inner = inner.Elem()
		}
		if inner.Kind() == reflect.Struct {
			if p.Items != nil {
				p = p.Items
			}
			refine(t, p, inner.Name(), inner)
		}
	}
}

func withoutNull(s *jsonschema.Schema) {
	if s == nil {
		return
	}
	s.Types = slices.DeleteFunc(s.Types, func(t string) bool { return t == "null" })
	if len(s.Types) == 1 {
		s.Type, s.Types = s.Types[0], nil
	}
	withoutNull(s.Items)
	if s.Type == "object" && s.Properties == nil {
		withoutNull(s.AdditionalProperties)
	}
}

func constrain(s *jsonschema.Schema) {
	enum := func(s *jsonschema.Schema, fallback string, words ...any) {
		s.Enum = words
		if fallback != "" {
			s.Default = json.RawMessage(fallback)
		}
	}
	enum(s.Properties["apiVersion"], "", v1alpha1.APIVersion)
	enum(s.Properties["kind"], "", v1alpha1.Kind)
	pool := s.Properties["pools"].Items
	pool.Properties["resource"].Pattern = `^[^/]+/[^/]+$`
	pool.Properties["selectors"].MinItems = new(1)
	pool.Properties["excludeTopology"].Default = json.RawMessage("false")
	enum(pool.Properties["deviceType"], `"netDevice"`, "netDevice", "accelerator", "auxNetDevice")
	enum(pool.Properties["allocationPolicy"], `"packed"`, "packed", "spread", "paired")
	health := pool.Properties["health"]
	health.Properties["link"].Default = json.RawMessage("true")
	health.Properties["holdDown"].Default = json.RawMessage(`"5s"`)
	selector := pool.Properties["selectors"].Items
	for _, key := range []string{"vendors", "devices"} {
		selector.Properties[key].Items.Pattern = "^[0-9A-Fa-f]{4}$"
	}
	selector.Properties["pKeys"].Items.Pattern = "^0[xX][0-9A-Fa-f]+$"
	enum(selector.Properties["linkTypes"].Items, "", "ether", "infiniband")
	enum(selector.Properties["auxTypes"].Items, "", "sf")
	enum(selector.Properties["vdpa"], "", "vhost", "virtio")
	for _, key := range []string{"rdma", "vhostNet"} {
		selector.Properties[key].Default = json.RawMessage("false")
	}
}

// comments are those of the types and their fields, each on one line.
func comments(t *testing.T) map[string]string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "types.go", nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	line := func(g *ast.CommentGroup) string { return strings.Join(strings.Fields(g.Text()), " ") }
	out := map[string]string{}
	for _, d := range file.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok || g.Tok != token.TYPE {
			continue
		}
		spec := g.Specs[0].(*ast.TypeSpec)
		out[spec.Name.Name] = line(g.Doc)
		for _, f := range spec.Type.(*ast.StructType).Fields.List {
			out[spec.Name.Name+"."+f.Names[0].Name] = line(f.Doc)
		}
	}
	return out
}

func TestSchemaRefuses(t *testing.T) {
	var s jsonschema.Schema
	if err := json.Unmarshal(v1alpha1.Schema, &s); err != nil {
		t.Fatal(err)
	}
	r, err := s.Resolve(nil)
	if err != nil {
		t.Fatal(err)
	}
	const head = "apiVersion: numalane.io/v1alpha1\nkind: PoolConfiguration\npools:\n- resource: x.io/a\n  "
	for _, text := range []string{
		"apiVersion: numalane.io/v1\nkind: PoolConfiguration\npools: []\n",
		"apiVersion: numalane.io/v1alpha1\nkind: Pools\npools: []\n",
		"apiVersion: numalane.io/v1alpha1\nkind: PoolConfiguration\n",
		head + "selectors: []\n",
		head + "selector: [{}]\n",
		head + "selectors: [{Vendors: [\"8086\"]}]\n",
		head + "selectors: [{vendors: [\"0x8086\"]}]\n",
		head + "selectors: [{vendors: [8086]}]\n",
		head + "selectors: [{linkTypes: [ib]}]\n",
		head + "selectors: [{}]\n  deviceType: gpu\n",
		head + "selectors: [{}]\n  health: {holdDown: 5}\n",
	} {
		var doc any
		if err := yaml.Unmarshal([]byte(text), &doc); err != nil {
			t.Fatal(err)
		}
		if r.Validate(doc) == nil {
			t.Errorf("it takes\n%s", text)
		}
	}
}

// The example has every key, said or in a comment of its own.
func TestDefaultsMentionEveryKey(t *testing.T) {
	keys := regexp.MustCompile(`(?m)^[ -]*(?:# )?(\w+):`)
	var said []string
	for _, m := range keys.FindAllSubmatch(v1alpha1.Defaults, -1) {
		said = append(said, string(m[1]))
	}
	var check func(reflect.Type)
	check = func(typ reflect.Type) {
		for typ.Kind() == reflect.Slice || typ.Kind() == reflect.Pointer {
			typ = typ.Elem()
		}
		if typ.Kind() != reflect.Struct {
			return
		}
		for i := range typ.NumField() {
			f := typ.Field(i)
			if key, _, _ := strings.Cut(f.Tag.Get("json"), ","); !slices.Contains(said, key) {
				t.Errorf("%s of %s is not there", key, typ.Name())
			}
			check(f.Type)
		}
	}
	check(reflect.TypeFor[v1alpha1.PoolConfiguration]())
	if bytes.Contains(v1alpha1.Defaults, []byte("\t")) {
		t.Error("it holds a tab")
	}
}
