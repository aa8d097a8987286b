package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"unicode/utf8"

	"sigs.k8s.io/yaml"
)

// object is a JSON object as it was written: in order, and with the keys that
// are there twice. A list is []any, and the rest is as encoding/json has it.
type object []member

type member struct {
	key   string
	value any
}

// document turns text into a tree of values. It is false when the text cannot
// be read at all.
func (p *parser) document(data []byte) (any, bool) {
	text := bytes.TrimSpace(data)
	if len(text) == 0 {
		p.mistake("line 1", "the configuration is empty")
		return nil, false
	}
	if !utf8.Valid(data) {
		p.mistake(position(data, invalidUTF8(data)), "not UTF-8 text")
		return nil, false
	}
	if text[0] != '{' && text[0] != '[' {
		var ok bool
		if data, ok = p.yaml(data); !ok {
			return nil, false
		}
	}
	// Unmarshal checks the whole text first and bounds its depth.
	var whole any
	if err := json.Unmarshal(data, &whole); err != nil {
		p.jsonMistake(data, err)
		return nil, false
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	v, err := tree(d)
	if err != nil {
		p.jsonMistake(data, err)
		return nil, false
	}
	return v, true
}

// tree reads the next value of the decoder.
func tree(d *json.Decoder) (any, error) {
	t, err := d.Token()
	if err != nil {
		return nil, err
	}
	switch t {
	case json.Delim('{'):
		o := object{}
		for d.More() {
			key, err := d.Token()
			if err != nil {
				return nil, err
			}
			value, err := tree(d)
			if err != nil {
				return nil, err
			}
			o = append(o, member{key: key.(string), value: value})
		}
		_, err = d.Token()
		return o, err
	case json.Delim('['):
		list := []any{}
		for d.More() {
			value, err := tree(d)
			if err != nil {
				return nil, err
			}
			list = append(list, value)
		}
		_, err = d.Token()
		return list, err
	}
	return t, nil
}

// yamlLine is how the YAML library begins each line of an error.
var yamlLine = regexp.MustCompile(`^(?:yaml: )?(line \d+): (.*)$`)

// yaml turns YAML into JSON. Keys that are there twice are mistakes, and the
// rest is looked at nevertheless.
func (p *parser) yaml(data []byte) ([]byte, bool) {
	if line := secondDocument(data); line > 0 {
		p.mistake(fmt.Sprintf("line %d", line), "a second YAML document begins: want one")
		return nil, false
	}
	out, err := yaml.YAMLToJSONStrict(data)
	if err == nil {
		return out, true
	}
	for line := range strings.Lines(err.Error()) {
		line = strings.TrimSpace(line)
		if m := yamlLine.FindStringSubmatch(line); m != nil {
			p.mistake(m[1], "%s", m[2])
		} else if line != "yaml: unmarshal errors:" {
			p.mistake("YAML", "%s", strings.TrimPrefix(line, "yaml: "))
		}
	}
	out, err = yaml.YAMLToJSON(data)
	return out, err == nil
}

// secondDocument is the line on which another YAML document begins, or 0: the
// YAML library reads the first and is silent about the rest.
func secondDocument(data []byte) int {
	content := false
	n := 0
	for line := range bytes.Lines(data) {
		n++
		line = bytes.TrimRight(line, " \t\r\n")
		marker := len(line) >= 3 && (string(line[:3]) == "---" || string(line[:3]) == "...") &&
			(len(line) == 3 || line[3] == ' ' || line[3] == '\t')
		switch {
		case marker && content && line[0] == '-':
			return n
		case marker:
			content = content || len(line) > 3 || line[0] == '.'
		case len(line) > 0 && line[0] != '#' && line[0] != '%':
			content = true
		}
	}
	return 0
}

func (p *parser) jsonMistake(data []byte, err error) {
	var syntax *json.SyntaxError
	switch {
	case errors.As(err, &syntax):
		at := max(0, int(syntax.Offset)-1)
		text := syntax.Error()
		if at < len(data) && (data[at] == '}' || data[at] == ']') && bytes.HasSuffix(bytes.TrimSpace(data[:at]), []byte(",")) {
			text += ": JSON has no comma after the last element"
		}
		p.mistake(position(data, at), "invalid JSON: %s", text)
	case errors.Is(err, io.ErrUnexpectedEOF):
		p.mistake(position(data, len(data)), "invalid JSON: it ends too early")
	default:
		p.mistake("JSON", "%s", err)
	}
}

// position is the line and column, from 1, of an offset in bytes. Columns are
// characters, as editors count them.
func position(data []byte, offset int) string {
	before := data[:min(offset, len(data))]
	line := bytes.Count(before, []byte("\n")) + 1
	column := utf8.RuneCount(before[bytes.LastIndexByte(before, '\n')+1:]) + 1
	return fmt.Sprintf("line %d, column %d", line, column)
}

func invalidUTF8(data []byte) int {
	for i := 0; i < len(data); {
		r, size := utf8.DecodeRune(data[i:])
		if r == utf8.RuneError && size == 1 {
			return i
		}
		i += size
	}
	return len(data)
}
