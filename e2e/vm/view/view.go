// Package view is what programs in the guest print for those that check it.
package view

import "time"

// Container is what a container sees of what it was given.
type Container struct {
	Env        map[string]string `json:"env"` // PCIDEVICE_…
	CPUs       string            `json:"cpus"`
	Mems       string            `json:"mems"`
	VFIO       []string          `json:"vfio"`
	Interfaces []string          `json:"interfaces"`
	Faults     []string          `json:"faults"`
}

// Devices is the kubelet's allocatable: healthy devices by resource.
type Devices map[string][]Device

// Device is one, with its NUMA nodes.
type Device struct {
	ID   string  `json:"id"`
	NUMA []int64 `json:"numa"`
}

// Told is what the plugin tells the kubelet of a pool from then on (ListAndWatch),
// as its log has it.
type Told struct {
	Time     time.Time `json:"time"`
	Msg      string    `json:"msg"` // "devices"
	Resource string    `json:"pool"`
	Total    int       `json:"total"`
	Healthy  int       `json:"healthy"`
	// Unhealthy counts devices by what is wrong with them.
	Unhealthy map[string]int `json:"unhealthy"`
}

// Event is something that was seen, with the guest's clock.
type Event struct {
	Time time.Time `json:"time"`
	// Link and Carrier are of the kernel's message about a network interface.
	Link    string `json:"link,omitempty"`
	Carrier bool   `json:"carrier,omitempty"`
	// Uevent is the kernel's message about a PCI device: add, bind, remove.
	Uevent string `json:"uevent,omitempty"`
	PCI    string `json:"pci,omitempty"`
	// Told is there when the plugin tells something else than before.
	Told *Told `json:"told,omitempty"`
	// Devices are there when the kubelet's allocatable is another than before.
	Devices Devices `json:"devices"`
	// Gone tells that the kubelet does not answer.
	Gone bool `json:"gone,omitempty"`
}
