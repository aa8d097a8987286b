// Package inspect renders what `numalane-plugin inspect` prints.
//
// In flow a machine, its pools, and the devices that are in none with the
// reason; or what each selector says of a device. Out flows a table for people,
// or JSON or YAML for programs.
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
	Resource         string            `json:"resource"`
	DeviceType       config.DeviceType `json:"deviceType"`
	AllocationPolicy allocator.Policy  `json:"allocationPolicy"`
	ExcludeTopology  bool              `json:"excludeTopology"`
	Devices          []string          `json:"devices"` // their IDs
}

// Write renders a report as "table", "json" or "yaml". Any other format is an
// error, and so is what the writer returns.
func Write(w io.Writer, format string, r Report) error {
	return write(w, format, func(b *bytes.Buffer) { writeTables(b, r) }, r.document())
}

// WriteExplanations renders what each selector says of devices, in the same
// formats.
func WriteExplanations(w io.Writer, format string, es []config.Explanation) error {
	return write(w, format, func(b *bytes.Buffer) { writeExplanations(b, es) }, es)
}

func write(w io.Writer, format string, table func(*bytes.Buffer), document any) error {
	var out []byte
	var err error
	switch format {
	case "table":
		var b bytes.Buffer
		table(&b)
		out = b.Bytes()
	case "json":
		out, err = json.MarshalIndent(document, "", "  ")
		out = append(out, '\n')
	case "yaml":
		out, err = yaml.Marshal(document)
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
			DeviceType:       p.Pool.DeviceType,
			AllocationPolicy: p.Pool.AllocationPolicy,
			ExcludeTopology:  p.Pool.ExcludeTopology,
			Devices:          []string{},
		}
		for _, d := range p.Devices {
			q.Devices = append(q.Devices, d.ID())
		}
		d.Pools = append(d.Pools, q)
	}
	return d
}
