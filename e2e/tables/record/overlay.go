package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/build"
	"go/format"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode"
)

func packages() []string { return slices.Sorted(maps.Keys(renamed)) }

// writeOverlay renames functions of a package, adds its recorder, and writes
// both and the overlay that puts them in their places.
func writeOverlay(tmp, dir, name string) (string, error) {
	pkg, err := build.ImportDir(dir, 0)
	if err != nil {
		return "", err
	}
	missing := map[string]bool{}
	for _, fn := range renamed[name] {
		missing[fn] = true
	}
	replace := map[string]string{}
	for _, file := range pkg.GoFiles {
		changed, err := rename(filepath.Join(dir, file), missing)
		if err != nil {
			return "", err
		}
		if changed == nil {
			continue
		}
		to := filepath.Join(tmp, file)
		if err := os.WriteFile(to, changed, 0o600); err != nil {
			return "", err
		}
		replace[filepath.Join(dir, file)] = to
	}
	if len(missing) > 0 {
		return "", fmt.Errorf("the kubelet no longer has %s", strings.Join(slices.Sorted(maps.Keys(missing)), ", "))
	}
	for from, to := range map[string]string{name + "/record.go": "numalane_record.go", "main_test.go.txt": "numalane_record_test.go"} {
		src, err := recorders.ReadFile("_kubelet/" + from)
		if err != nil {
			return "", err
		}
		path := filepath.Join(tmp, to)
		if err := os.WriteFile(path, bytes.Replace(src, []byte("package PACKAGE"), []byte("package "+name), 1), 0o600); err != nil {
			return "", err
		}
		replace[filepath.Join(dir, to)] = path
	}
	b, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	overlay := filepath.Join(tmp, "overlay.json")
	return overlay, os.WriteFile(overlay, b, 0o600)
}

// rename gives the functions that are wanted another name where they are
// declared, and strikes them off. It returns nil for a file without any.
func rename(path string, wanted map[string]bool) ([]byte, error) {
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, path, nil, parser.ParseComments)
	if err != nil {
		return nil, err
	}
	found := false
	for _, d := range f.Decls {
		fn, ok := d.(*ast.FuncDecl)
		if !ok || !wanted[declared(fn)] {
			continue
		}
		delete(wanted, declared(fn))
		runes := []rune(fn.Name.Name)
		runes[0] = unicode.ToUpper(runes[0])
		fn.Name.Name = "kubelet" + string(runes)
		found = true
	}
	if !found {
		return nil, nil
	}
	var b bytes.Buffer
	if err := format.Node(&b, fset, f); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// declared is a function's name, a method's with its type.
func declared(fn *ast.FuncDecl) string {
	if fn.Recv == nil || len(fn.Recv.List) != 1 {
		return fn.Name.Name
	}
	t := fn.Recv.List[0].Type
	if star, ok := t.(*ast.StarExpr); ok {
		t = star.X
	}
	if id, ok := t.(*ast.Ident); ok {
		return id.Name + "." + fn.Name.Name
	}
	return ""
}
