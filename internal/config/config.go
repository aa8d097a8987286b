package config

import (
	"fmt"
	"os"
	"time"

	"github.com/numalane/numalane/pkg/allocator"
)

// Config is a pool configuration without mistakes. The zero Config has no
// pools and is ready for Assign.
type Config struct {
	Pools []Pool // in the order of the file: the first that matches takes a device
	// Warnings are what the file says without effect, in its order.
	Warnings []Mistake
}

// Pool is a resource and the rule for its devices.
type Pool struct {
	Resource         string           `json:"resource"` // prefix and name: intel.com/sriov
	ExcludeTopology  bool             `json:"excludeTopology"`
	AllocationPolicy allocator.Policy `json:"allocationPolicy"`
	DeviceType       DeviceType       `json:"deviceType"`
	// AdditionalInfo are words of the user's for the pods that get a device:
	// by its id, or "*" for all, then by key.
	AdditionalInfo map[string]map[string]string `json:"additionalInfo,omitempty"`
	// LinkHealth makes free devices unhealthy while their PF has no carrier.
	LinkHealth bool `json:"linkHealth"`
	// LinkHoldDown is how long a link must have been up, or down, to count.
	LinkHoldDown time.Duration `json:"linkHoldDown,omitempty"`
	Selectors    []Selector    `json:"-"` // a device belongs to the pool when any matches
}

// DeviceType is the kind of devices that a pool is made of.
type DeviceType string

// The device types, named as in the format of the sriov-network-device-plugin.
const (
	NetDevice    DeviceType = "netDevice"    // PCI class 0x02
	Accelerator  DeviceType = "accelerator"  // PCI class 0x12
	AuxNetDevice DeviceType = "auxNetDevice" // subfunctions of PCI class 0x02
)

// DefaultLinkHoldDown is that of our own format: a flap, or a switch that
// restarts a port, shall not cost a node its devices.
const DefaultLinkHoldDown = 5 * time.Second

// Load reads a configuration file. Resources without a prefix of their own get
// defaultPrefix. The error wraps that of the file system, or an *Error.
func Load(path, defaultPrefix string) (*Config, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read pool configuration: %w", err)
	}
	c, err := Parse(data, defaultPrefix)
	if err != nil {
		return nil, fmt.Errorf("pool configuration %s: %w", path, err)
	}
	return c, nil
}

// Parse reads a configuration of either format: with an apiVersion it is ours.
// What begins with a brace is JSON and held to its rules, all else is YAML. The
// error is an *Error with all mistakes.
func Parse(data []byte, defaultPrefix string) (*Config, error) {
	p := &parser{defaultPrefix: defaultPrefix}
	c := &Config{}
	if doc, ok := p.document(data); ok {
		c.Pools = p.config(doc)
	}
	c.Warnings = inOrder(p.warnings)
	if len(p.mistakes) > 0 {
		return nil, &Error{Mistakes: inOrder(p.mistakes), Warnings: c.Warnings}
	}
	return c, nil
}
