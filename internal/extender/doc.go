// Package extender answers kube-scheduler's calls over HTTP: filter,
// prioritize, preempt and bind, with the types of k8s.io/kube-scheduler/extender/v1.
//
// In flow a pod and the names of nodes (the scheduler must be configured with
// nodeCacheCapable: true, so that names travel and not whole Nodes); out go
// the names that pass and one reason for every other, scores, or the outcome of
// a binding. What is known of the nodes is asked of a Cluster. Filter,
// prioritize and preempt change nothing.
//
// kube-scheduler discards the body of any answer but 200 (HTTPExtender.send),
// so what is wrong with a call that could be read is told in the answer's
// Error field where it has one.
package extender
