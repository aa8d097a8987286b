// Package plugin is the plugin's face to the kubelet: one DevicePlugin server
// a pool, its registration, and the health of its devices.
//
// In flow the desired pools, each time all of them, with what a container is
// handed with each device, and what the kubelet says pods hold. Out flow
// ListAndWatch messages, preferred allocations, the answers to Allocate and the
// files that go with them (files.go). [Servers.Run] owns all state; every RPC
// works on an immutable snapshot, so that none waits for a scan or for another
// RPC: the kubelet admits pods one by one and sets no deadline on these calls.
// Allocate alone touches files, small ones in memory.
//
// A pool talks to the kubelet in sessions. A session has a socket of its own
// name, which is never used again, and ends with the kubelet's stream. A
// kubelet from 1.37 on keys its clients by resource and socket path and loses
// track of a live one when the same path registers again (devicemanager
// PluginConnected, plugin/v1beta1 connectClient); an older one throws out a
// second registration when the first stream ends. So a pool registers only
// while it has no stream, and that ListAndWatch was opened is the only sign of
// success.
//
// Two instances on one node, as in an update with a surge, go by the rules in
// rivals.go: the younger one has the pool, the older one stands by with its
// stream open and takes the pool back when it is alone again. From 1.37 on no
// pod is refused meanwhile if the older one ends or is killed, or the younger
// one ends, which lets the older one register first. If the younger one is
// killed, the kubelet closes its connection before it falls back on the other
// (plugin/v1beta1 client.Disconnect, then devicemanager PluginDisconnected),
// and refuses a pod that it admits in between: no plugin can prevent that. An
// older kubelet throws the younger instance out when the older one ends, which
// registers again, and refuses what it admits meanwhile.
package plugin
