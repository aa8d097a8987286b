// Package cluster runs a real Kubernetes on one machine: etcd, kube-apiserver,
// kube-controller-manager, kube-scheduler and kubelets, each a process of its
// own, the nodes on machines that do not exist.
//
// Everything runs in a box ([Enter]): a PID namespace, so that the kernel ends
// all processes with the first, however that ends; a mount namespace with all
// files on a tmpfs of its own, so that mounts and files go the same way; and
// kernel settings that read as a kubelet wants them and that it cannot write.
package cluster
