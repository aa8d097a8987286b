// Package config says which device is in which pool, and why in none.
//
// In flows a pool configuration in the format of the
// sriov-network-device-plugin, as JSON or YAML: [Parse] checks all of it and
// tells every mistake with its place, or gives a [Config]. In flows a
// [topology.Host] as well: [Config.Assign] puts each of its network devices
// into one pool at most, and out flow the pools and, for every device that is
// in none, the one reason.
//
// What differs from that plugin, on purpose: every entry of pfNames and
// rootDevices counts, not only the first that names the PF; hexadecimal digits
// may be of either case; a key that is unknown, or known and not supported
// yet, is a mistake and not silence; so is a missing list of selectors, and a
// resource name that the kubelet would refuse. An empty resourceList, as the
// sriov-network-operator writes for a node without a policy, is a
// configuration of no pools.
package config
