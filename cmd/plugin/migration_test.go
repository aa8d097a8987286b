package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"sigs.k8s.io/yaml"
)

// configMap is the configuration that the page begins with.
const configMap = "../../internal/config/testdata/article/configmap-intel.yaml"

// TestMigrationCommands runs the page's commands of ours, and holds what they
// print against what the page says that they do.
func TestMigrationCommands(t *testing.T) {
	text, err := os.ReadFile(page)
	must(t, err)
	data, err := os.ReadFile(configMap)
	must(t, err)
	var m struct {
		Data map[string]string `json:"data"`
	}
	must(t, yaml.Unmarshal(data, &m))
	machine := writeZoo(t)
	t.Chdir(t.TempDir())
	must(t, os.WriteFile("config.json", []byte(m.Data["config.json"]), 0o644))

	commands := regexp.MustCompile("numalane-plugin ((?:config|inspect) [^`|>\n]*)[^\n]*\n([^\n]*)").FindAllSubmatch(text, -1)
	if len(commands) < 5 {
		t.Errorf("%d commands, want those of all steps", len(commands))
	}
	for _, c := range commands {
		line, next := string(c[1]), string(c[2])
		args := strings.Fields(strings.ReplaceAll(line, "/etc/pcidp/", ""))
		if args[0] == "inspect" {
			args = append(args, "--sysfs-root", machine)
		}
		out := output(t, args...)
		if out == "" {
			t.Errorf("%s prints nothing", line)
		}
		if strings.HasPrefix(line, "config validate") && out != next+"\n" {
			t.Errorf("%s prints %q, and the page says %q", line, out, next)
		}
		if args[0] == "inspect" && len(args) == 5 && (!strings.Contains(out, "POOLS of config.json") || !strings.Contains(out, "\nDEVICES\n")) {
			t.Errorf("%s prints\n%s", line, out)
		}
	}
}

// TestMigrationFlags: every flag on the page is one, and every file that it
// sends people to is there.
func TestMigrationFlags(t *testing.T) {
	text, err := os.ReadFile(page)
	must(t, err)
	kubectls := map[string]bool{"all-namespaces": true, "cascade": true}
	known := map[string]bool{}
	var collect func(*cobra.Command)
	collect = func(c *cobra.Command) {
		c.InitDefaultHelpFlag()
		c.InitDefaultVersionFlag()
		c.Flags().VisitAll(func(f *pflag.Flag) { known[f.Name] = true })
		for _, sub := range c.Commands() {
			collect(sub)
		}
	}
	collect(newCommand(nil))
	for _, m := range regexp.MustCompile("[ `\"]--([a-z][a-z-]*)").FindAllSubmatch(text, -1) {
		if name := string(m[1]); !known[name] && !kubectls[name] {
			t.Errorf("no flag --%s", name)
		}
	}
	anchors := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllSubmatch(text, -1) {
		anchor := strings.ToLower(strings.ReplaceAll(string(m[1]), " ", "-"))
		anchors["#"+regexp.MustCompile("[^a-z0-9-]").ReplaceAllString(anchor, "")] = true
	}
	for _, m := range regexp.MustCompile(`\]\(([^)]*)\)`).FindAllSubmatch(text, -1) {
		target := string(m[1])
		file, _, _ := strings.Cut(target, "#")
		switch {
		case strings.HasPrefix(target, "https://"):
		case file == "" && !anchors[target]:
			t.Errorf("no heading %s", target)
		default:
			if _, err := os.Stat(filepath.Join(filepath.Dir(page), file)); err != nil {
				t.Error(err)
			}
		}
	}
	if !bytes.Contains(text, []byte("numalane-plugin:v0.1.0")) {
		t.Error("the image that deploy/ runs is not named")
	}
}
