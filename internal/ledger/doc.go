// Package ledger is the cluster as the extender sees it.
//
// In flow the watches of Nodes (what each published) and Pods (which are bound,
// and what their node says they hold). Out come answers about one node and one
// pod: the kubelet's verdict foretold, a score, and the binding itself.
//
// A pod counts from the moment it is promised a node. It is first a promise,
// made under the lock before the API is asked to bind; then a bound pod, once
// the watch shows it; and last an acknowledged one, once its own annotation
// tells what it holds. Until then it counts where the allocator puts it, and a
// node is promised to another pod only if the kubelet would admit them all in
// whatever order it meets them.
//
// Everything is decoded and compiled on the event. A question reads an
// immutable snapshot of its node.
package ledger
