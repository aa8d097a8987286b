package inspect

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/numalane/numalane/internal/config"
	"github.com/numalane/numalane/pkg/topology"
)

// devices are all of a host, subfunctions behind their parents.
func devices(h *topology.Host) []*topology.Device {
	var out []*topology.Device
	for i := range h.Devices {
		out = append(out, &h.Devices[i])
	}
	for i := range h.Subfunctions {
		out = append(out, &h.Subfunctions[i])
	}
	slices.SortStableFunc(out, func(a, b *topology.Device) int { return a.Address.Compare(b.Address) })
	return out
}

// writeDevices tells of each device its pool, or why it has none.
func writeDevices(b *bytes.Buffer, r Report) {
	answers := map[string]string{}
	for _, p := range r.Pools {
		for _, d := range p.Devices {
			answers[d.ID()] = p.Pool.Resource
		}
	}
	for _, x := range r.Rejections {
		answers[x.Device] = "none: " + x.Reason
	}
	rows := [][]string{{"DEVICE", "NUMA", "NAME", "DRIVER", "POOL"}}
	for _, d := range devices(r.Host) {
		rows = append(rows, []string{d.ID(), numaText(d.NUMANode), cmp.Or(nameOf(d), none), cmp.Or(d.Driver, none), cmp.Or(answers[d.ID()], none)})
	}
	if len(rows) > 1 {
		section(b, "DEVICES", rows)
	}
}

// nameOf is a device's interface, or whose function it is.
func nameOf(d *topology.Device) string {
	switch {
	case len(d.Netdevs) > 0:
		return d.Netdevs[0].Name
	case d.Aux != nil && d.Aux.SFNum < 0:
		return "subfunction of " + d.Address.String()
	case d.Aux != nil:
		return fmt.Sprintf("subfunction %d of %s", d.Aux.SFNum, d.Address)
	case d.VF != nil:
		return fmt.Sprintf("VF %d of %s", d.VF.Index, cmp.Or(d.VF.PFName, d.VF.PF.String()))
	}
	return ""
}

// Select finds the explanations of devices by address, name of a subfunction,
// or name of a network interface or of an RDMA device.
func Select(es []config.Explanation, names []string) ([]config.Explanation, error) {
	var out []config.Explanation
	for _, name := range names {
		i := slices.IndexFunc(es, func(e config.Explanation) bool { return isCalled(e.Device, name) })
		if i < 0 {
			return nil, fmt.Errorf("no device is called %q: want a PCI address, a subfunction as mlx5_core.sf.4, or a network interface of the host; "+
				"one that has moved into a pod has only its address", name)
		}
		out = append(out, es[i])
	}
	return out, nil
}

func isCalled(d *topology.Device, name string) bool {
	if a, err := topology.ParseAddress(name); err == nil {
		return d.Aux == nil && d.Address == a
	}
	return d.ID() == name ||
		slices.ContainsFunc(d.Netdevs, func(n topology.Netdev) bool { return n.Name == name }) ||
		slices.ContainsFunc(d.RDMA, func(r topology.RDMADevice) bool { return r.Name == name })
}

func writeExplanations(b *bytes.Buffer, es []config.Explanation) {
	for i, e := range es {
		if i > 0 {
			fmt.Fprintln(b)
		}
		writeExplanation(b, e)
	}
}

func writeExplanation(b *bytes.Buffer, e config.Explanation) {
	d := e.Device
	facts := []string{e.Kind}
	if name := nameOf(d); strings.HasPrefix(name, "subfunction ") {
		facts = []string{name}
	} else if name != "" {
		facts = append(facts, name)
	}
	facts = append(facts, d.Vendor+":"+d.Product, cmp.Or(d.Driver, "no driver"))
	if d.NUMANode >= 0 {
		facts = append(facts, fmt.Sprintf("NUMA node %d", d.NUMANode))
	}
	fmt.Fprintf(b, "%s: %s\n", e.ID, strings.Join(facts, ", "))
	if e.Pool != "" {
		fmt.Fprintf(b, "  in pool %s\n", e.Pool)
	} else {
		fmt.Fprintf(b, "  in no pool: %s\n", e.Reason)
	}
	if d.Problem != "" {
		fmt.Fprintf(b, "  unhealthy: %s\n", d.Problem)
	}
	if len(e.Answers) == 0 {
		return
	}
	rows := [][]string{{"SELECTOR", "ANSWER"}}
	for _, a := range e.Answers {
		rows = append(rows, []string{fmt.Sprintf("%s [%d]", a.Resource, a.Selector), answer(a)})
	}
	section(b, "SELECTORS, in their order", rows)
}

func answer(a config.Answer) string {
	right := strings.Join(a.Holds, ", ")
	switch {
	case a.Takes && right == "":
		return "takes it, as it takes all"
	case a.Takes:
		return "takes it: " + right
	case len(a.Fails) == 0:
		return "would take it, had an earlier one not"
	}
	text := "no: " + strings.Join(a.Fails, ", ")
	if right != "" {
		text += " (" + right + ": right)"
	}
	return text
}
