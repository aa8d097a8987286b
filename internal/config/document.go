package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"unicode/utf8"
)

// place is where something is written: line and column from 1, the column 0
// where it is not known.
type place struct{ line, column int }

// node is a value as it was written. It holds nil, bool, string, number,
// []node or object. The path is filled in by whoever descends to it.
type node struct {
	place
	path  string
	value any
}

// object is in order, and has the keys that are there twice.
type object []member

type member struct {
	place // of the key
	key   string
	value node
}

// number is any number: the formats have none, so it is told and not read.
type number struct{}

// document turns text into a tree. It is false when the text cannot be read
// at all.
func (p *parser) document(data []byte) (node, bool) {
	text := bytes.TrimSpace(data)
	if len(text) == 0 {
		p.mistake(node{place: place{line: 1}}, "the configuration is empty")
		return node{}, false
	}
	if !utf8.Valid(data) {
		p.mistake(node{place: at(data, invalidUTF8(data))}, "not UTF-8 text")
		return node{}, false
	}
	if text[0] != '{' && text[0] != '[' {
		return p.yaml(data)
	}
	// Unmarshal checks the whole text first and bounds its depth.
	var whole any
	if err := json.Unmarshal(data, &whole); err != nil {
		p.jsonMistake(data, err)
		return node{}, false
	}
	t := jsonText{decoder: json.NewDecoder(bytes.NewReader(data)), data: data, place: place{1, 1}}
	t.decoder.UseNumber()
	n, err := t.node()
	if err != nil {
		p.jsonMistake(data, err)
		return node{}, false
	}
	return n, true
}

// jsonText reads JSON token by token and keeps count of the place.
type jsonText struct {
	decoder *json.Decoder
	data    []byte
	offset  int
	place   // of offset
}

// next is where the next token begins.
func (t *jsonText) next() place {
	to := int(t.decoder.InputOffset())
	for to < len(t.data) && bytes.IndexByte([]byte(" \t\r\n,:"), t.data[to]) >= 0 {
		to++
	}
	t.place = t.place.after(t.data[t.offset:to])
	t.offset = to
	return t.place
}

// after is the place behind a text.
func (p place) after(text []byte) place {
	if i := bytes.LastIndexByte(text, '\n'); i >= 0 {
		p.line += bytes.Count(text, []byte("\n"))
		p.column = 1
		text = text[i+1:]
	}
	p.column += utf8.RuneCount(text)
	return p
}

func (t *jsonText) node() (node, error) {
	n := node{place: t.next()}
	token, err := t.decoder.Token()
	if err != nil {
		return n, err
	}
	switch token := token.(type) {
	case json.Number:
		n.value = number{}
	case json.Delim:
		if token == '{' {
			n.value, err = t.object()
		} else {
			n.value, err = t.list()
		}
	default:
		n.value = token
	}
	return n, err
}

func (t *jsonText) object() (object, error) {
	o := object{}
	for t.decoder.More() {
		where := t.next()
		key, err := t.decoder.Token()
		if err != nil {
			return nil, err
		}
		value, err := t.node()
		if err != nil {
			return nil, err
		}
		o = append(o, member{place: where, key: key.(string), value: value})
	}
	_, err := t.decoder.Token()
	return o, err
}

func (t *jsonText) list() ([]node, error) {
	list := []node{}
	for t.decoder.More() {
		value, err := t.node()
		if err != nil {
			return nil, err
		}
		list = append(list, value)
	}
	_, err := t.decoder.Token()
	return list, err
}

func (p *parser) jsonMistake(data []byte, err error) {
	var syntax *json.SyntaxError
	switch {
	case errors.As(err, &syntax):
		offset := max(0, int(syntax.Offset)-1)
		text := syntax.Error()
		if offset < len(data) && (data[offset] == '}' || data[offset] == ']') && bytes.HasSuffix(bytes.TrimSpace(data[:offset]), []byte(",")) {
			text += ": JSON has no comma after the last element"
		}
		p.mistake(node{place: at(data, offset)}, "invalid JSON: %s", text)
	case errors.Is(err, io.ErrUnexpectedEOF):
		p.mistake(node{place: at(data, len(data))}, "invalid JSON: it ends too early")
	default:
		p.mistake(node{place: place{line: 1}}, "invalid JSON: %s", err)
	}
}

// at is the place of an offset in bytes.
func at(data []byte, offset int) place {
	return place{1, 1}.after(data[:min(offset, len(data))])
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
