// Package registration holds the product's plugin against the device managers
// of real kubelets, one test a rule that a plugin has to keep.
//
// In flow machines as sysfs trees, the product's plugin as a process with flags
// or its servers within the test, and a kubelet's resource managers as a process
// (e2e/kubelets) that can be killed and started over its checkpoint. What is held
// against the rule comes from the kubelet alone: how many devices it counts, what
// it admits and why not, its PodResources API, its checkpoint and its log.
package registration
