package config_test

import (
	"os"
	"regexp"
	"testing"

	"github.com/numalane/numalane/internal/config"
)

// The examples of the documentation are valid, and without warnings.
func TestDocumentedExamples(t *testing.T) {
	text, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	examples := regexp.MustCompile("(?s)```(?:yaml|json)\n(.*?)```").FindAllSubmatch(text, -1)
	if len(examples) != 2 {
		t.Errorf("%d examples, want one of each format", len(examples))
	}
	for _, e := range examples {
		if c, err := config.Parse(e[1], prefix); err != nil || len(c.Warnings) > 0 || len(c.Pools) != 1 {
			t.Errorf("%v\n%s", err, e[1])
		}
	}
}
