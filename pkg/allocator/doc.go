// Package allocator says what a pod gets: pure functions over what a node
// publishes, without I/O, clock, goroutine or logger.
//
// In flow a [topology.NodeState], compiled once a change into a [Node], and a
// pod, turned once into a [Request]. [Node.Admit] is the kubelet's answer:
// the same topology manager merge, hint providers and greedy container order.
// [Node.Outcomes] tell what each container then holds and how the node is after
// it, [Node.Score] how useful the room is that is left, and [Prefer] is the
// plugin's side of the same coin: which of a pool's devices
// GetPreferredAllocation names.
package allocator
