package config

import (
	"fmt"

	"github.com/numalane/numalane/pkg/topology"
)

// Explanation is what each selector says of a device.
type Explanation struct {
	Device *topology.Device `json:"-"`
	ID     string           `json:"id"`
	Kind   string           `json:"kind"`             // in words: a network device
	Pool   string           `json:"pool,omitempty"`   // the resource that has it
	Reason string           `json:"reason,omitempty"` // why none has
	// Answers are those of all selectors, in the order in which they are asked.
	Answers []Answer `json:"answers"`
}

// Answer is what one selector says of a device. One without Fails that is not
// Takes would take it, had an earlier one not.
type Answer struct {
	Resource string   `json:"resource"`
	Selector int      `json:"selector"` // its place in the pool
	Takes    bool     `json:"takes"`
	Holds    []string `json:"holds,omitempty"` // what the device has that is asked for
	Fails    []string `json:"fails,omitempty"` // what it has in place of that
}

// Explain tells of every device of a host what each selector says, in the
// order of Host.Devices and Host.Subfunctions.
func (c *Config) Explain(h *topology.Host) []Explanation {
	var out []Explanation
	for _, d := range candidates(h) {
		out = append(out, c.explain(d))
	}
	return out
}

func (c *Config) explain(d candidate) Explanation {
	e := Explanation{Device: d.Device, ID: d.ID(), Kind: d.kind(), Answers: []Answer{}}
	taker, by := c.taker(d)
	if taker >= 0 {
		e.Pool = c.Pools[taker].Resource
	} else {
		e.Reason = c.why(d)
	}
	for i := range c.Pools {
		p := &c.Pools[i]
		for j := range p.Selectors {
			a := Answer{Resource: p.Resource, Selector: j, Takes: &p.Selectors[j] == by}
			a.Holds, a.Fails = p.ask(&p.Selectors[j], d)
			e.Answers = append(e.Answers, a)
		}
	}
	return e
}

// ask compares a device with a selector of the pool, and with what keeps a
// device out whatever else the selector says.
func (p *Pool) ask(s *Selector, d candidate) (holds, fails []string) {
	if p.DeviceType != d.deviceType() {
		return nil, []string{fmt.Sprintf("it is %s, the pool's deviceType is %s", d.kind(), p.DeviceType)}
	}
	c := s.compare(d)
	fails = c.wrong(d)
	if d.vfCount() > 0 {
		fails = append(fails, "it is a PF with VFs")
	} else if d.Uplink != "" && !s.asksByAddress(d) {
		fails = append(fails, "it does not ask for the node's way out by address")
	}
	return c.right(d), fails
}
