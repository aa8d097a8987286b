package kubelet

import (
	"errors"
	"testing"
)

func TestRemembered(t *testing.T) {
	parsed := 0
	parse := func(b []byte) (string, error) {
		parsed++
		if len(b) == 0 {
			return "", errors.New("no text")
		}
		return "says " + string(b), nil
	}
	var r remembered[string]
	for i, step := range []struct {
		text, want string
		parsed     int
	}{
		{"a", "says a", 1},
		{"a", "says a", 1},
		{"b", "says b", 2},
		{"", "", 3},
		{"", "", 4}, // an error is not remembered, and what was before stays
		{"b", "says b", 4},
		{"a", "says a", 5},
	} {
		got, err := r.of([]byte(step.text), parse)
		if got != step.want || (err != nil) != (step.text == "") || parsed != step.parsed {
			t.Errorf("step %d: %q says %q (%v) after %d parsings, want %q after %d", i, step.text, got, err, parsed, step.want, step.parsed)
		}
	}
}
