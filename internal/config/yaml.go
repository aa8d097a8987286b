package config

import (
	"bytes"
	"errors"
	"io"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// maxYAMLNodes bounds what aliases may multiply, and ends those that hold
// themselves.
const maxYAMLNodes = 20_000

// yaml reads YAML into a tree. It takes the nodes of go.yaml.in, which
// sigs.k8s.io/yaml stands on too, because they alone know their places.
func (p *parser) yaml(data []byte) (node, bool) {
	d := yaml.NewDecoder(bytes.NewReader(data))
	var first, second yaml.Node
	if err := d.Decode(&first); errors.Is(err, io.EOF) {
		p.mistake(node{place: place{line: 1}}, "the configuration is empty")
		return node{}, false
	} else if err != nil {
		p.yamlMistake(err)
		return node{}, false
	}
	if err := d.Decode(&second); err == nil {
		// A decoder is silent about all that follows the first.
		p.mistake(node{place: place{line: second.Line, column: second.Column}}, "a second YAML document begins: want one")
		return node{}, false
	} else if !errors.Is(err, io.EOF) {
		p.yamlMistake(err)
		return node{}, false
	}
	t := yamlText{parser: p}
	n := t.node(&first)
	return n, len(p.mistakes) == 0
}

// yamlLine is how the library begins an error: without the line when it is the
// first, and with the one before in some of its errors.
var yamlLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?`)

func (p *parser) yamlMistake(err error) {
	text := err.Error()
	line := 1
	if m := yamlLine.FindStringSubmatch(text); m != nil {
		text = text[len(m[0]):]
		if n, err := strconv.Atoi(m[1]); err == nil {
			line = n
		}
	}
	p.mistake(node{place: place{line: line}}, "invalid YAML near here: %s", text)
}

// yamlText turns the library's nodes into ours.
type yamlText struct {
	parser *parser
	nodes  int
}

func (t *yamlText) node(y *yaml.Node) node {
	n := node{place: place{y.Line, y.Column}}
	if t.nodes++; t.nodes >= maxYAMLNodes {
		if t.nodes == maxYAMLNodes {
			t.parser.mistake(n, "more than %d values, with those of aliases", maxYAMLNodes)
		}
		return n
	}
	switch y.Kind {
	case yaml.DocumentNode:
		return t.node(y.Content[0])
	case yaml.AliasNode:
		n = t.node(y.Alias)
		n.place = place{y.Line, y.Column}
	case yaml.SequenceNode:
		list := []node{}
		for _, c := range y.Content {
			list = append(list, t.node(c))
		}
		n.value = list
	case yaml.MappingNode:
		n.value = t.object(y)
	default:
		n.value = t.scalar(n, y)
	}
	return n
}

func (t *yamlText) object(y *yaml.Node) object {
	o := object{}
	for i := 0; i+1 < len(y.Content); i += 2 {
		k := y.Content[i]
		m := member{place: place{k.Line, k.Column}, key: k.Value}
		switch {
		case k.Kind != yaml.ScalarNode:
			t.parser.mistake(node{place: m.place}, "a key has to be text")
		case k.ShortTag() == "!!merge":
			t.parser.mistake(node{place: m.place}, "YAML's merge key is not read: write out what it stands for")
		}
		m.value = t.node(y.Content[i+1])
		o = append(o, m)
	}
	return o
}

func (t *yamlText) scalar(n node, y *yaml.Node) any {
	switch tag := y.ShortTag(); tag {
	case "!!null":
		return nil
	case "!!bool":
		return strings.EqualFold(y.Value, "true")
	case "!!int", "!!float":
		return number{}
	case "!!str", "!!timestamp", "!!merge":
		return y.Value
	default:
		t.parser.mistake(n, "YAML's tag %s is not read: want plain text", tag)
		return y.Value
	}
}
