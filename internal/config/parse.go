package config

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/numalane/numalane/internal/config/v1alpha1"
)

// parser turns a tree into pools, and collects mistakes and warnings.
type parser struct {
	defaultPrefix string
	// strict is how our own format is read: keys in their own case, and what has
	// no effect is a mistake. The other is read as its plugin reads it.
	strict             bool
	mistakes, warnings []Mistake
}

// mistake notes what is wrong at a node.
func (p *parser) mistake(n node, format string, args ...any) {
	p.mistakes = append(p.mistakes, Mistake{Line: n.line, Column: n.column, Path: n.path, Text: fmt.Sprintf(format, args...)})
}

// idle notes what has no effect at a node.
func (p *parser) idle(n node, format string, args ...any) {
	if p.strict {
		p.mistake(n, format, args...)
		return
	}
	p.warnings = append(p.warnings, Mistake{Line: n.line, Column: n.column, Path: n.path, Text: fmt.Sprintf(format, args...)})
}

// config reads a document of either format.
func (p *parser) config(doc node) []Pool {
	for _, m := range members(doc) {
		n := m.value
		n.path = m.key
		switch {
		case m.key == "kind" && n.value == "ConfigMap":
			p.mistake(n, "this is a ConfigMap: the configuration is the value of its data.config.json")
			return nil
		case m.key == "apiVersion", m.key == "kind" && n.value == v1alpha1.Kind:
			p.strict = true
		}
	}
	if p.strict {
		return p.ours(doc)
	}
	return p.peers(doc)
}

// field is a key of an object and what reads its value. A value of null is
// that of an absent key, as for encoding/json.
type field struct {
	key  string
	read func(node)
}

// object hands each member to its field, and answers the nodes of the keys
// that are there; nil when n is no object. The hint says what is meant by an
// unknown key, or nothing.
func (p *parser) object(n node, fields []field, hint func(key string) string) map[string]node {
	if _, ok := n.value.(object); !ok {
		n.path = cmp.Or(n.path, "the configuration")
		p.mistake(n, "is %s, want an object", kind(n))
		return nil
	}
	seen := map[string]node{}
	spelt := map[string]string{}
	for _, m := range members(n) {
		v := m.value
		v.path = join(n.path, m.key)
		key := node{place: m.place, path: v.path}
		i := slices.IndexFunc(fields, func(f field) bool {
			return f.key == m.key || !p.strict && strings.EqualFold(f.key, m.key)
		})
		if i < 0 {
			p.idle(key, "unknown key%s: %s", p.ignored(), cmp.Or(hint(m.key), wanted(m.key, fields)))
			continue
		}
		f := fields[i]
		if first, twice := spelt[f.key]; twice {
			p.mistake(key, "the key is there twice, as %s before", first)
			continue
		}
		seen[f.key], spelt[f.key] = v, m.key
		if v.value != nil {
			f.read(v)
		}
	}
	return seen
}

func (p *parser) ignored() string {
	if p.strict {
		return ""
	}
	return ", without effect"
}

func noHint(string) string { return "" }

// wanted says which key may be meant.
func wanted(key string, fields []field) string {
	best, distance := "", 3 // two letters at most
	low := strings.ToLower(key)
	for _, f := range fields {
		known := strings.ToLower(f.key)
		d := edits(low, known)
		if len(known) >= 4 && strings.Contains(low, known) || len(low) >= 4 && strings.Contains(known, low) {
			d = min(d, 1)
		}
		if d < distance && d < len(low) {
			best, distance = f.key, d
		}
	}
	if best != "" {
		return "did you mean " + best + "?"
	}
	var keys []string
	for _, f := range fields {
		keys = append(keys, f.key)
	}
	return "want " + either(keys)
}

// edits is the Levenshtein distance, in bytes.
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}

// either is "a, b or c".
func either(words []string) string {
	last := len(words) - 1
	if last < 1 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:last], ", ") + " or " + words[last]
}

// list is the elements of a list of what.
func (p *parser) list(n node, what string) []node {
	list, ok := n.value.([]node)
	if !ok {
		p.mistake(n, "is %s, want a list of %s", kind(n), what)
		return nil
	}
	out := slices.Clone(list)
	for i := range out {
		out[i].path = fmt.Sprintf("%s[%d]", n.path, i)
	}
	return out
}

func (p *parser) string(n node) (string, bool) {
	s, ok := n.value.(string)
	if !ok {
		p.mistake(n, "is %s, want a string", kind(n))
	}
	return s, ok
}

func (p *parser) bool(n node) bool {
	b, ok := n.value.(bool)
	if !ok {
		p.mistake(n, "is %s, want true or false", kind(n))
	}
	return b
}

// member is where a key would be that is not there.
func (n node) member(key string) node {
	return node{place: n.place, path: join(n.path, key)}
}

func members(n node) object {
	o, _ := n.value.(object)
	return o
}

func kind(n node) string {
	switch n.value.(type) {
	case nil:
		return "null"
	case bool:
		return "true or false"
	case string:
		return "a string"
	case number:
		return "a number"
	case []node:
		return "a list"
	default:
		return "an object"
	}
}

// empty is a value that asks for nothing.
func empty(n node) bool {
	switch v := n.value.(type) {
	case bool:
		return !v
	case string:
		return v == ""
	case []node:
		return len(v) == 0
	case object:
		return len(v) == 0
	default:
		return v == nil
	}
}

var plainKey = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_-]*$`)

// join appends a key to a path.
func join(path, key string) string {
	switch {
	case !plainKey.MatchString(key):
		return fmt.Sprintf("%s[%q]", path, key)
	case path == "":
		return key
	default:
		return path + "." + key
	}
}
