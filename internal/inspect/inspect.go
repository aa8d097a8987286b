// Package inspect renders what `numalane-plugin inspect` prints.
//
// In flow a machine, its pools, and the devices that are in none with the
// reason; out flows a table for people, or JSON or YAML for programs.
package inspect

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"

	"sigs.k8s.io/yaml"

	"github.com/numalane/numalane/internal/config"
	"github.com/numalane/numalane/pkg/allocator"
	"github.com/numalane/numalane/pkg/topology"
)

// Report is what there is to tell.
type Report struct {
	Host       *topology.Host
	ConfigFile string // empty: none was given
	Pools      []config.AssignedPool
	Rejections []config.Rejection // the devices in no pool
}

// document is a Report for programs: a pool names its devices, and the host
// has them whole.
type document struct {
	Host       *topology.Host     `json:"host"`
	ConfigFile string             `json:"configFile,omitempty"`
	Pools      []pool             `json:"pools"`
	Rejections []config.Rejection `json:"rejections"`
}

type pool struct {
	Resource         string             `json:"resource"`
	AllocationPolicy allocator.Policy   `json:"allocationPolicy"`
	ExcludeTopology  bool               `json:"excludeTopology"`
	Devices          []topology.Address `json:"devices"`
}

// Write renders a report as "table", "json" or "yaml". Any other format is an
// error, and so is what the writer returns.
func Write(w io.Writer, format string, r Report) error {
	var out []byte
	var err error
	switch format {
	case "table":
		var b bytes.Buffer
		writeTables(&b, r)
		out = b.Bytes()
	case "json":
		out, err = json.MarshalIndent(r.document(), "", "  ")
		out = append(out, '\n')
	case "yaml":
		out, err = yaml.Marshal(r.document())
	default:
		return fmt.Errorf("unknown output format %q: want table, json or yaml", format)
	}
	if err != nil {
		return fmt.Errorf("render report as %s: %w", format, err)
	}
	if _, err := w.Write(out); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}

func (r Report) document() document {
	d := document{
		Host:       r.Host,
		ConfigFile: r.ConfigFile,
		Pools:      []pool{}, // a list in any case, for whoever loops over it
		Rejections: append([]config.Rejection{}, r.Rejections...),
	}
	for _, p := range r.Pools {
		q := pool{
			Resource:         p.Pool.Resource,
			AllocationPolicy: p.Pool.AllocationPolicy,
			ExcludeTopology:  p.Pool.ExcludeTopology,
			Devices:          []topology.Address{},
		}
		for _, d := range p.Devices {
			q.Devices = append(q.Devices, d.Address)
		}
		d.Pools = append(d.Pools, q)
	}
	return d
}
