// Package config says which device is in which pool, and why in none.
//
// In flows a pool configuration as JSON or YAML, in numalane's own format
// (package v1alpha1) or in that of the sriov-network-device-plugin: [Parse]
// checks all of it and tells every mistake with its place, or gives a [Config].
// In flows a [topology.Host] as well: [Config.Assign] puts each of its devices
// into one pool at most, and out flow the pools and, for every device that is
// in none, the one reason; [Config.Explain] tells what each selector says of a
// device. [Config.YAML] is any configuration in our own format.
//
// Our own format is strict. The other is read as its plugin reads it: keys of
// any case, and what has no effect there has none here, with a warning. What
// differs from that plugin, on purpose, is listed in docs/configuration.md:
// above all every entry of pfNames and rootDevices counts, a value that can
// match nothing is a mistake and not silence, and the node's way out is in no
// pool unless asked for by address.
package config
