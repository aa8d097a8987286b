package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	podresources "k8s.io/kubelet/pkg/apis/podresources/v1"

	"github.com/numalane/numalane/e2e/cluster"
)

// What Multus has from whom (multus-cni, pkg/k8sclient and pkg/kubeletclient):
// the pod's annotation names NetworkAttachmentDefinitions; one that names a
// resource gets the next device that the kubelet's PodResources API tells of
// that resource for the pod, put into the delegate's configuration.
const (
	networksAnnotation = "k8s.v1.cni.cncf.io/networks"
	resourceAnnotation = "k8s.v1.cni.cncf.io/resourceName"
)

var attachmentDefinitions = schema.GroupVersionResource{Group: "k8s.cni.cncf.io", Version: "v1", Resource: "network-attachment-definitions"}

// podDevices are the fields that Multus reads of a pod.
type podDevices struct {
	Name       string             `json:"name"`
	Namespace  string             `json:"namespace"`
	Containers []containerDevices `json:"containers"`
}

type containerDevices struct {
	Devices []resourceDevices `json:"devices"`
}

type resourceDevices struct {
	ResourceName string   `json:"resourceName"`
	DeviceIDs    []string `json:"deviceIds"`
}

// devicesOf asks the kubelet as Multus does. The kubelet tells the devices of a
// resource one by one, in an order that is another each time.
func devicesOf(ctx context.Context, n *cluster.Node, namespace, name string) (podDevices, error) {
	found := podDevices{}
	err := n.PodResources(ctx, func(ctx context.Context, c podresources.PodResourcesListerClient) error {
		answer, err := c.List(ctx, &podresources.ListPodResourcesRequest{})
		if err != nil {
			return err
		}
		for _, p := range answer.GetPodResources() {
			if p.GetNamespace() != namespace || p.GetName() != name {
				continue
			}
			found = podDevices{Name: name, Namespace: namespace}
			for _, ct := range p.GetContainers() {
				of := containerDevices{}
				for _, d := range ct.GetDevices() {
					of.Devices = append(of.Devices, resourceDevices{d.GetResourceName(), d.GetDeviceIds()})
				}
				slices.SortFunc(of.Devices, func(a, b resourceDevices) int {
					return strings.Compare(a.ResourceName+a.DeviceIDs[0], b.ResourceName+b.DeviceIDs[0])
				})
				found.Containers = append(found.Containers, of)
			}
			return nil
		}
		return fmt.Errorf("no pod %s/%s", namespace, name)
	})
	return found, err
}

// of are the devices of a resource.
func (p podDevices) of(resource string) []string {
	var ids []string
	for _, c := range p.Containers {
		for _, d := range c.Devices {
			if d.ResourceName == resource {
				ids = append(ids, d.DeviceIDs...)
			}
		}
	}
	return ids
}

// delegate is an attachment: what its CNI plugin is called with.
type delegate struct {
	device string
	config []byte
}

// delegates are those of a pod, in the order of its annotation.
func delegates(ctx context.Context, c *cluster.Cluster, n *cluster.Node, p *corev1.Pod) ([]delegate, error) {
	client, err := dynamic.NewForConfig(c.Config)
	if err != nil {
		return nil, err
	}
	devices, err := devicesOf(ctx, n, p.Namespace, p.Name)
	if err != nil {
		return nil, err
	}
	used := map[string]int{}
	var all []delegate
	for network := range strings.SplitSeq(p.Annotations[networksAnnotation], ",") {
		namespace, name, ok := strings.Cut(network, "/")
		if !ok {
			namespace, name = p.Namespace, network
		}
		definition, err := client.Resource(attachmentDefinitions).Namespace(namespace).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return nil, err
		}
		resource := definition.GetAnnotations()[resourceAnnotation]
		ids := devices.of(resource)
		if used[resource] >= len(ids) {
			return nil, fmt.Errorf("network %s asks for device %d of %s, pod %s has %v", network, used[resource], resource, p.Name, ids)
		}
		id := ids[used[resource]]
		used[resource]++
		config, err := withDevice(definition, id)
		if err != nil {
			return nil, fmt.Errorf("network %s: %w", network, err)
		}
		all = append(all, delegate{id, config})
	}
	return all, nil
}

// withDevice is a network's configuration with the device that it gets.
func withDevice(definition *unstructured.Unstructured, id string) ([]byte, error) {
	text, found, err := unstructured.NestedString(definition.Object, "spec", "config")
	if err != nil || !found {
		return nil, errors.Join(errors.New("it has no text in spec.config"), err)
	}
	config := map[string]any{}
	if err := json.Unmarshal([]byte(text), &config); err != nil {
		return nil, fmt.Errorf("spec.config: %w", err)
	}
	config["deviceID"], config["pciBusID"] = id, id
	return json.Marshal(config)
}
