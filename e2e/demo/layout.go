package demo

import (
	"github.com/numalane/numalane/internal/sysfstest"
)

// machines are the demo's nodes: 2x4 to 2x8 cores on 2 NUMA nodes and 4x4 on
// 4, two threads a core, with NICs whose VFs are not where most of the CPUs are.
func machines() []namedMachine {
	x710, ixgbe := sysfstest.X710, sysfstest.Intel82599
	return []namedMachine{
		{"edge-1", sysfstest.Uniform(2, 4, 2, x710("0000:3b:00.0", 0, 5), x710("0000:af:00.0", 1, 8))},
		{"edge-2", sysfstest.Uniform(2, 6, 2, ixgbe("0000:3b:00.0", 0, 4), x710("0000:af:00.0", 1, 2))},
		{"edge-3", sysfstest.Uniform(2, 8, 2, x710("0000:3b:00.0", 0, 1), ixgbe("0000:af:00.0", 1, 7))},
		{"edge-4", sysfstest.Uniform(4, 4, 2, x710("0000:21:00.0", 0, 6), x710("0000:41:00.0", 1, 1),
			ixgbe("0000:61:00.0", 2, 2), x710("0000:81:00.0", 3, 1))},
	}
}

type namedMachine struct {
	name    string
	machine sysfstest.Machine
}

// shapes are the pods, in turn.
var shapes = [...]Shape{
	{Name: "worker", CPUs: 4, VFs: 2},
	{Name: "gateway", CPUs: 2, VFs: 3},
}
