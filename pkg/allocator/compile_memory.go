package allocator

import (
	"errors"
	"fmt"
	"slices"

	"github.com/numalane/numalane/pkg/topology"
)

func (c *compiler) memory() error {
	n := c.n
	nodes := c.state.Topology.NUMANodes
	if n.memory {
		for i := range nodes {
			seen := map[string]bool{}
			for _, m := range nodes[i].Memory {
				if seen[m.Type] {
					return fmt.Errorf("NUMA node %d lists %s twice", nodes[i].ID, m.Type)
				}
				seen[m.Type] = true
				if int64(m.Allocatable) < 0 {
					return fmt.Errorf("NUMA node %d has %d bytes of %s", nodes[i].ID, m.Allocatable, m.Type)
				}
				kind := n.memoryKind(m.Type)
				if kind < 0 {
					kind = len(n.mem)
					n.mem = append(n.mem, memoryType{name: m.Type, at: len(n.empty.counts), allocatable: make([]int64, len(nodes))})
					n.empty.counts = append(n.empty.counts, make([]int64, len(nodes))...)
				}
				n.mem[kind].allocatable[i] = int64(m.Allocatable)
				n.empty.counts[n.mem[kind].at+i] = int64(m.Allocatable)
			}
		}
	}
	n.cellsAt = len(n.empty.counts)
	if n.memory {
		n.empty.counts = append(n.empty.counts, make([]int64, len(nodes))...)
	}
	n.room.counts = append(n.room.counts, n.empty.counts[len(n.room.counts):]...)
	if !n.memory {
		return nil
	}
	plain := slices.Clone(n.room.counts)
	for i, account := range append([][]topology.MemoryAccount{c.state.Pools.Memory}, c.state.Pools.MemoryElse...) {
		to := n
		if i > 0 {
			other := *n
			other.room.counts, other.others = slices.Clone(plain), nil
			to = &other
		}
		mask, err := c.accounted(account)
		if err != nil {
			return err
		}
		if err := c.takeHeld(to, mask); err != nil {
			return err
		}
		c.settle(to, account, mask)
		if i > 0 && !to.Equal(n) {
			n.others = append(n.others, to)
		}
	}
	return nil
}

// takeHeld takes what pods hold from the free memory.
func (c *compiler) takeHeld(n *Node, accounted uint64) error {
	for i := range c.held {
		for _, ct := range c.held[i].Containers {
			for _, b := range ct.Memory {
				if err := c.takeBlock(n, &b, accounted); err != nil {
					return fmt.Errorf("pod %s, container %s: %w", c.held[i].UID, ct.Name, err)
				}
			}
		}
	}
	return nil
}

// accounted are the NUMA nodes of an account, as a mask. One older than the
// pods that hold memory there is none: what they hold counts.
func (c *compiler) accounted(account []topology.MemoryAccount) (uint64, error) {
	n := c.n
	var mask uint64
	given := make([]int64, len(n.mem))
	for _, a := range account {
		k, ok := c.index[a.NUMANode]
		if !ok || mask&(1<<k) != 0 {
			return 0, fmt.Errorf("memory of NUMA node %d is accounted for twice, or the node does not have it", a.NUMANode)
		}
		mask |= 1 << k
		for name, free := range a.Free {
			kind := n.memoryKind(name)
			if kind < 0 || int64(free) < 0 || int64(free) > n.mem[kind].allocatable[k] {
				return 0, fmt.Errorf("NUMA node %d has %d bytes of %s free, more than it has", a.NUMANode, free, name)
			}
			given[kind] += n.mem[kind].allocatable[k] - int64(free)
		}
		for _, id := range a.With {
			if _, ok := c.index[id]; !ok {
				return 0, fmt.Errorf("memory of NUMA node %d is given away with that of NUMA node %d, which the node does not have", a.NUMANode, id)
			}
		}
	}
	for i := range c.held {
		for _, ct := range c.held[i].Containers {
			for _, b := range ct.Memory {
				if kind := n.memoryKind(b.Type); kind >= 0 && c.mask(b.NUMANodes)&mask != 0 {
					given[kind] -= int64(b.Size)
				}
			}
		}
	}
	if slices.ContainsFunc(given, func(left int64) bool { return left < 0 }) {
		return 0, nil
	}
	return mask, nil
}

// settle replaces what was worked out by what the node accounts for.
func (c *compiler) settle(n *Node, account []topology.MemoryAccount, accounted uint64) {
	for _, a := range account {
		k := c.index[a.NUMANode]
		if accounted&(1<<k) == 0 {
			continue
		}
		for name, free := range a.Free {
			n.room.counts[n.mem[n.memoryKind(name)].at+k] = int64(free)
		}
		n.room.counts[n.cellsAt+k] = int64(c.mask(a.With))
	}
}

// takeBlock notes memory that a pod holds, filling the lower NUMA nodes first
// as the memory manager does (updateMachineState).
func (c *compiler) takeBlock(n *Node, b *topology.MemoryAllocation, accounted uint64) error {
	kind := n.memoryKind(b.Type)
	if kind < 0 {
		return fmt.Errorf("holds %s, which the node does not have", b.Type)
	}
	var mask uint64
	for _, id := range b.NUMANodes {
		k, ok := c.index[id]
		if !ok {
			return fmt.Errorf("holds %s of NUMA node %d, which the node does not have", b.Type, id)
		}
		mask |= 1 << k
	}
	if mask == 0 {
		return errors.New("holds memory of no NUMA node")
	}
	left := int64(b.Size)
	for rest := mask; rest != 0; rest &= rest - 1 {
		k := firstBit(rest)
		n.room.counts[n.cellsAt+k] = int64(mask)
		free := &n.room.counts[n.mem[kind].at+k]
		got := min(left, *free)
		*free -= got
		left -= got
	}
	if left != 0 && mask&accounted == 0 {
		return fmt.Errorf("holds %d bytes of %s more than NUMA nodes %v have left", left, b.Type, b.NUMANodes)
	}
	return nil
}
