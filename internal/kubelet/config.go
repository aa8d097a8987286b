package kubelet

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/numalane/numalane/pkg/topology"
)

// Config is the part of a KubeletConfiguration (kubelet.config.k8s.io/v1beta1)
// that decides an admission, with the kubelet's defaults filled in
// (pkg/kubelet/apis/config/v1beta1, SetDefaults_KubeletConfiguration).
type Config struct {
	CPUManagerPolicy             string            `json:"cpuManagerPolicy"`
	CPUManagerPolicyOptions      map[string]string `json:"cpuManagerPolicyOptions"`
	MemoryManagerPolicy          string            `json:"memoryManagerPolicy"`
	TopologyManagerPolicy        string            `json:"topologyManagerPolicy"`
	TopologyManagerScope         string            `json:"topologyManagerScope"`
	TopologyManagerPolicyOptions map[string]string `json:"topologyManagerPolicyOptions"`
	FeatureGates                 map[string]bool   `json:"featureGates"`
	// ReservedSystemCPUs is set by some only; the others reserve by quantity.
	ReservedSystemCPUs topology.CPUSet `json:"reservedSystemCPUs"`
}

// Kubelet is the configuration as the contract has it. minor is the kubelet's
// minor version, which decides the gates that nothing sets.
func (c Config) Kubelet(minor int) topology.Kubelet {
	return topology.Kubelet{
		Minor:          minor,
		FeatureGates:   gatesOn(minor, c.FeatureGates),
		TopologyPolicy: c.TopologyManagerPolicy,
		TopologyScope:  c.TopologyManagerScope,
		TopologyOpts:   c.TopologyManagerPolicyOptions,
		CPUPolicy:      c.CPUManagerPolicy,
		CPUOpts:        c.CPUManagerPolicyOptions,
		MemoryPolicy:   c.MemoryManagerPolicy,
	}
}

func (c Config) withDefaults() Config {
	c.CPUManagerPolicy = cmp.Or(c.CPUManagerPolicy, "none")
	c.MemoryManagerPolicy = cmp.Or(c.MemoryManagerPolicy, "None")
	c.TopologyManagerPolicy = cmp.Or(c.TopologyManagerPolicy, topology.PolicyNone)
	c.TopologyManagerScope = cmp.Or(c.TopologyManagerScope, topology.ScopeContainer)
	return c
}

// ParseMinor reads the minor version of a kubeletVersion as a Node's status
// has it: 37 of v1.37.2-gke.100.
func ParseMinor(version string) (int, error) {
	rest, ok := strings.CutPrefix(version, "v1.")
	if !ok {
		return 0, fmt.Errorf("kubelet version %.40q: want v1.MINOR.PATCH", version)
	}
	digits, _, _ := strings.Cut(rest, ".")
	minor, err := strconv.ParseUint(digits, 10, 16)
	if err != nil {
		return 0, fmt.Errorf("kubelet version %.40q: want v1.MINOR.PATCH", version)
	}
	return int(minor), nil
}

// ParseConfigz reads the answer of the kubelet's /configz.
func ParseConfigz(b []byte) (Config, error) {
	var answer struct {
		Config *Config `json:"kubeletconfig"`
	}
	if err := json.Unmarshal(b, &answer); err != nil {
		return Config{}, fmt.Errorf("decode configz: %w", err)
	}
	if answer.Config == nil {
		return Config{}, errors.New("decode configz: no kubeletconfig in the answer")
	}
	return answer.Config.withDefaults(), nil
}

// ReadConfigFiles reads a kubelet's --config file and merges the *.conf files
// of its --config-dir over it, as the kubelet does (cmd/kubelet/app,
// mergeKubeletConfigurations): in lexical order, subfolders too, each as a
// JSON merge patch. An empty dropInDir is none.
func ReadConfigFiles(file, dropInDir string) (Config, error) {
	merged, err := readConfigObject(file)
	if err != nil {
		return Config{}, err
	}
	if dropInDir != "" {
		err = filepath.WalkDir(dropInDir, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if d.IsDir() || filepath.Ext(path) != ".conf" {
				return nil
			}
			patch, err := readConfigObject(path)
			if err != nil {
				return err
			}
			merged = mergePatch(merged, patch)
			return nil
		})
		if err != nil {
			return Config{}, fmt.Errorf("read the kubelet's drop-in folder: %w", err)
		}
	}
	b, err := json.Marshal(merged)
	if err != nil {
		return Config{}, fmt.Errorf("merge %s with its drop-ins: %w", file, err)
	}
	var c Config
	if err := json.Unmarshal(b, &c); err != nil {
		return Config{}, fmt.Errorf("decode %s with its drop-ins: %w", file, err)
	}
	return c.withDefaults(), nil
}

func readConfigObject(path string) (map[string]any, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err // names the path
	}
	var object map[string]any
	if err := yaml.Unmarshal(b, &object); err != nil {
		return nil, fmt.Errorf("decode %s: %w", path, err)
	}
	const group, kind = "kubelet.config.k8s.io/v1beta1", "KubeletConfiguration"
	if object["apiVersion"] != group || object["kind"] != kind {
		return nil, fmt.Errorf("decode %s: apiVersion %v, kind %v; want %s, %s", path, object["apiVersion"], object["kind"], group, kind)
	}
	return object, nil
}

// mergePatch is RFC 7386 for objects.
func mergePatch(base, patch map[string]any) map[string]any {
	if base == nil {
		base = map[string]any{}
	}
	for k, v := range patch {
		switch v := v.(type) {
		case nil:
			delete(base, k)
		case map[string]any:
			b, _ := base[k].(map[string]any)
			base[k] = mergePatch(b, v)
		default:
			base[k] = v
		}
	}
	return base
}
