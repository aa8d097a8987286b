package e2e

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	podresources "k8s.io/kubelet/pkg/apis/podresources/v1"

	"github.com/numalane/numalane/e2e/cluster"
	"github.com/numalane/numalane/pkg/topology"
)

// heldVFs are the ids of the VFs that the kubelet says each pod holds, by name.
type heldVFs map[string][]string

// ofKubelet asks PodResources. A VF that two pods hold is an error.
func ofKubelet(ctx context.Context, n *cluster.Node) (heldVFs, error) {
	h := heldVFs{}
	err := n.PodResources(ctx, func(ctx context.Context, c podresources.PodResourcesListerClient) error {
		answer, err := c.List(ctx, &podresources.ListPodResourcesRequest{})
		if err != nil {
			return err
		}
		holder := map[string]string{}
		for _, p := range answer.GetPodResources() {
			for _, c := range p.GetContainers() {
				for _, d := range c.GetDevices() {
					for _, id := range d.GetDeviceIds() {
						if other, taken := holder[id]; taken {
							return fmt.Errorf("%s is held by %s and by %s", id, other, p.GetName())
						}
						holder[id] = p.GetName()
						h[p.GetName()] = append(h[p.GetName()], id)
					}
				}
			}
		}
		return nil
	})
	return h, err
}

// ofAnnotation are the ids of the VFs that a pod's annotation says it holds.
func ofAnnotation(p *corev1.Pod) ([]string, error) {
	a, err := topology.Decode[topology.Allocation](p.Annotations[topology.AllocationAnnotation])
	if err != nil {
		return nil, err
	}
	if p.Annotations[corev1.MirrorPodAnnotationKey] == "" && a.UID != string(p.UID) {
		return nil, fmt.Errorf("the annotation is about pod %s", a.UID)
	}
	var ids []string
	for _, c := range a.Containers {
		for _, d := range c.Devices {
			ids = append(ids, d.IDs...)
		}
	}
	return ids, nil
}

// truth waits until the API says of the node and its pods what the kubelet
// holds: every pod that lives is acknowledged with what PodResources gives it,
// no VF is held twice, and the pool has so many VFs, of which what no pod holds
// is free. It returns what is held, and how long that took.
func truth(t *testing.T, c *cluster.Cluster, n *cluster.Node, vfs int) (heldVFs, time.Duration) {
	t.Helper()
	var held heldVFs
	began := time.Now()
	if err := cluster.Wait(t.Context(), 30*time.Second, "the API to tell what node "+n.Name+" holds", func(ctx context.Context) (err error) {
		held, err = told(ctx, c, n, vfs)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return held, time.Since(began)
}

func told(ctx context.Context, c *cluster.Cluster, n *cluster.Node, vfs int) (heldVFs, error) {
	held, err := ofKubelet(ctx, n)
	if err != nil {
		return nil, err
	}
	pods, err := c.Client.CoreV1().Pods("default").List(ctx, metav1.ListOptions{FieldSelector: "spec.nodeName=" + n.Name})
	if err != nil {
		return nil, err
	}
	count, left := 0, maps.Clone(held)
	for i := range pods.Items {
		p := &pods.Items[i]
		if ended(p) {
			continue
		}
		ids, err := ofAnnotation(p)
		if err != nil {
			return nil, fmt.Errorf("pod %s, which is %s: %w", p.Name, p.Status.Phase, err)
		}
		kubelet := left[p.Name]
		delete(left, p.Name)
		slices.Sort(ids)
		slices.Sort(kubelet)
		if len(ids) == 0 || !slices.Equal(ids, kubelet) {
			return nil, fmt.Errorf("pod %s: the annotation says %v, the kubelet %v", p.Name, ids, kubelet)
		}
		count += len(ids)
	}
	if len(left) > 0 {
		return nil, fmt.Errorf("the kubelet holds %v for pods that the API does not have", left)
	}
	node, err := c.Client.CoreV1().Nodes().Get(ctx, n.Name, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	published, err := topology.Decode[topology.NodePools](node.Annotations[topology.PoolsAnnotation])
	if err != nil {
		return nil, err
	}
	total, free := 0, 0
	for _, p := range published.Pools {
		for _, g := range p.Groups {
			total += g.Healthy
			free += g.Free
		}
	}
	if total != vfs || free != vfs-count || len(published.Unowned) > 0 {
		return nil, fmt.Errorf("%d VFs of which pods hold %d, and published are %d, %d free, held by no pod of the API %v", vfs, count, total, free, published.Unowned)
	}
	if q := node.Status.Allocatable[vf]; q.Value() != int64(vfs) {
		return nil, fmt.Errorf("%s of %d VFs are allocatable", q.String(), vfs)
	}
	return held, nil
}

func ended(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodFailed || p.Status.Phase == corev1.PodSucceeded
}

// refused is what the kubelet said when it refused a pod; empty: it did not.
func refused(p *corev1.Pod) string {
	if p.Status.Phase != corev1.PodFailed {
		return ""
	}
	return strings.TrimSpace(p.Status.Reason + " " + p.Status.Message)
}

// remove deletes pods and waits until they are gone.
func remove(t *testing.T, c *cluster.Cluster, names ...string) {
	t.Helper()
	now := int64(0)
	for _, name := range names {
		if err := c.Client.CoreV1().Pods("default").Delete(t.Context(), name, metav1.DeleteOptions{GracePeriodSeconds: &now}); err != nil {
			t.Fatal(err)
		}
	}
}
