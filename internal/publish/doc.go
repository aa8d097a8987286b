// Package publish writes what this node is, has and holds to the API: the
// annotations and labels of the contract on its Node, and on each pod that
// holds something exclusive the acknowledgement of that.
//
// In flow the kubelet's state, the plugin's pools, the machine, and a watch on
// the node and its pods. Out go JSON merge patches, one an object, only on a
// change, and only while this plugin instance is the one that the kubelet
// listens to. Without an API or without rights it publishes nothing, says what
// is missing and keeps trying; it never stops the plugin.
package publish
