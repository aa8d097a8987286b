package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Mistake is one thing that is wrong with a configuration, or without effect
// in it.
type Mistake struct {
	// Line and Column, from 1, are where it is; Column is 0 where only the line
	// is known, and both are for what is not of the file: the default prefix.
	// Columns are characters, as editors count them.
	Line, Column int
	Path         string // resourceList[1].selectors[0].pfNames[2]; empty for text that cannot be read
	Text         string
}

// String is place, path and text.
func (m Mistake) String() string {
	var parts []string
	switch {
	case m.Column > 0:
		parts = append(parts, fmt.Sprintf("line %d, column %d", m.Line, m.Column))
	case m.Line > 0:
		parts = append(parts, fmt.Sprintf("line %d", m.Line))
	}
	if m.Path != "" {
		parts = append(parts, m.Path)
	}
	return strings.Join(append(parts, m.Text), ": ")
}

// Error is every mistake of a configuration, in the order of the file.
type Error struct {
	Mistakes []Mistake
	Warnings []Mistake // what has no effect, besides
}

// Error lists the mistakes, one a line when there are several.
func (e *Error) Error() string {
	if len(e.Mistakes) == 1 {
		return e.Mistakes[0].String()
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%d mistakes:", len(e.Mistakes))
	for _, m := range e.Mistakes {
		b.WriteString("\n  " + m.String())
	}
	return b.String()
}

// inOrder sorts by place: a value may only be judged once others are known.
func inOrder(ms []Mistake) []Mistake {
	slices.SortStableFunc(ms, func(a, b Mistake) int { return cmp.Or(a.Line-b.Line, a.Column-b.Column) })
	return ms
}
