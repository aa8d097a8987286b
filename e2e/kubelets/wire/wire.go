// Package wire is what the oracle and the kubelets say to each other: one
// Command a line in, one Answer a line out, in order. It is a module of its own
// because every kubelet is: a module can require one k8s.io/kubernetes.
package wire

import "encoding/json"

// Command is one thing to do. Exactly one field but Pod is set.
type Command struct {
	// Start makes a kubelet's managers, over whatever state files are in its
	// folder. Those of a Start before are stopped first: with the same folder
	// that is a kubelet that restarts.
	Start *Start `json:"start,omitempty"`
	// Admit brings a pod, a v1.Pod, as HandlePodAdditions does. One that is
	// admitted is active until its End.
	Admit json.RawMessage `json:"admit,omitempty"`
	// End takes the pod of this UID from the active ones. What it held is
	// freed by the next admission.
	End string `json:"end,omitempty"`
	// Await answers when the device manager counts so many devices.
	Await []Devices `json:"await,omitempty"`
}

// Start says where a kubelet lives and on what machine. Its configuration is
// Dir/config.yaml, a KubeletConfiguration. It serves
// Dir/device-plugins/kubelet.sock and Dir/pod-resources/kubelet.sock.
type Start struct {
	Dir     string          `json:"dir"`
	Machine json.RawMessage `json:"machine"` // cAdvisor's MachineInfo
	// Node is the v1.Node that the general predicates see. Its allocatable has
	// no device resources: the device manager adds them.
	Node json.RawMessage `json:"node"`
	// Pods are running when the kubelet starts, oldest first. It admits them
	// again only by Admit.
	Pods []json.RawMessage `json:"pods,omitempty"`
}

// Devices are those of one resource, as GetCapacity counts them.
type Devices struct {
	Resource    string `json:"resource"`
	Capacity    int    `json:"capacity"`    // registered
	Allocatable int    `json:"allocatable"` // healthy
}

// Answer is what came of a Command.
type Answer struct {
	// Error tells that the command could not be done, such as a kubelet that
	// refuses its configuration. It is never a refused pod.
	Error string `json:"error,omitempty"`
	// Version of the kubelet, v1.37.2; in the answer to Start.
	Version string `json:"version,omitempty"`
	// Admission is the answer to Admit.
	Admission *Admission `json:"admission,omitempty"`
}

// Admission is a kubelet's PodAdmitResult.
type Admission struct {
	Admit   bool   `json:"admit"`
	Reason  string `json:"reason,omitempty"` // TopologyAffinityError …
	Message string `json:"message,omitempty"`
	// Handler that refused: "resources" (the topology manager and what it
	// allocates) or "predicates" (the general ones, which come after).
	Handler string `json:"handler,omitempty"`
}
