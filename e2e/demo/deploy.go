package demo

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	podresources "k8s.io/kubelet/pkg/apis/podresources/v1"
	"k8s.io/utils/cpuset"

	"github.com/numalane/numalane/e2e/cluster"
)

// namespace is where the pods go.
const namespace = "default"

// settleTime is how long pods that wait must have waited, with nothing else
// going on, to be counted as waiting: failed pods give their room back.
const settleTime = 5 * time.Second

func quantity(n int) resource.Quantity { return *resource.NewQuantity(int64(n), resource.DecimalSI) }

// deploy creates the pods, waits for what becomes of them, prints and counts
// it, and removes them.
func (d *Demo) deploy(ctx context.Context, title, scheduler string, n int) (Tally, error) {
	d.title("%d pods through %s", n, title)
	for i := range n {
		s := shapes[i%len(shapes)]
		p, err := d.pod(fmt.Sprintf("%s-%02d", s.Name, i), s, scheduler)
		if err != nil {
			return Tally{}, err
		}
		if _, err := d.c.Client.CoreV1().Pods(namespace).Create(ctx, p, metav1.CreateOptions{}); err != nil {
			return Tally{}, fmt.Errorf("create pod %s: %w", p.Name, err)
		}
	}
	outcomes, err := d.settle(ctx)
	if err != nil {
		return Tally{}, err
	}
	if err := d.addHeld(ctx, outcomes); err != nil {
		return Tally{}, err
	}
	if err := WriteOutcomes(d.Out, outcomes); err != nil {
		return Tally{}, err
	}
	t := Count(outcomes)
	fmt.Fprintf(d.Out, "  %d pods: %d aligned, %d refused by the kubelet, %d waiting\n", t.Pods, t.Aligned, t.Refused, t.Pending)
	return t, d.remove(ctx, scheduler)
}

// settle waits until nothing more happens to the pods.
func (d *Demo) settle(ctx context.Context) ([]Outcome, error) {
	var outcomes []Outcome
	var before string
	since := time.Now()
	err := cluster.Wait(ctx, 3*time.Minute, "the pods", func(ctx context.Context) error {
		list, err := d.c.Client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		outcomes = outcomes[:0]
		pending, underway := 0, 0
		for i := range list.Items {
			o := outcome(&list.Items[i])
			outcomes = append(outcomes, o)
			if o.Phase == string(corev1.PodPending) {
				pending++
				if o.Node != "" || o.Reason != corev1.PodReasonUnschedulable {
					underway++
				}
			}
		}
		if now := fmt.Sprint(outcomes); now != before {
			before, since = now, time.Now()
		}
		if underway > 0 || pending > 0 && time.Since(since) < settleTime {
			return fmt.Errorf("%d pods are pending, %d of them on their way", pending, underway)
		}
		return nil
	})
	return outcomes, err
}

func outcome(p *corev1.Pod) Outcome {
	o := Outcome{Pod: p.Name, Shape: p.Labels["shape"], Node: p.Spec.NodeName, Phase: string(p.Status.Phase), Reason: p.Status.Reason}
	if o.Phase == string(corev1.PodPending) {
		for _, c := range p.Status.Conditions {
			if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse {
				o.Reason = c.Reason
			}
		}
	}
	return o
}

// addHeld asks every kubelet what its pods hold.
func (d *Demo) addHeld(ctx context.Context, outcomes []Outcome) error {
	held := map[string][]Held{}
	for _, n := range d.nodes {
		numa := numaOf(n)
		err := n.PodResources(ctx, func(ctx context.Context, c podresources.PodResourcesListerClient) error {
			list, err := c.List(ctx, &podresources.ListPodResourcesRequest{})
			if err != nil {
				return err
			}
			for _, p := range list.GetPodResources() {
				for _, container := range p.GetContainers() {
					held[n.Name+"/"+p.GetName()] = append(held[n.Name+"/"+p.GetName()], holds(container, numa, string(d.resource)))
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	for i := range outcomes {
		outcomes[i].Held = held[outcomes[i].Node+"/"+outcomes[i].Pod]
	}
	return nil
}

func holds(c *podresources.ContainerResources, numa map[int]int, resource string) Held {
	var h Held
	var cpus []int
	for _, id := range c.GetCpuIds() {
		cpus = append(cpus, int(id))
		h.CPUNodes = append(h.CPUNodes, numa[int(id)])
	}
	h.CPUs = cpuset.New(cpus...).String()
	for _, dev := range c.GetDevices() {
		if dev.GetResourceName() != resource {
			continue
		}
		h.VFs = append(h.VFs, dev.GetDeviceIds()...)
		for _, node := range dev.GetTopology().GetNodes() {
			h.VFNodes = append(h.VFNodes, int(node.GetID()))
		}
	}
	slices.Sort(h.VFs)
	slices.Sort(h.CPUNodes)
	slices.Sort(h.VFNodes)
	h.CPUNodes, h.VFNodes = slices.Compact(h.CPUNodes), slices.Compact(h.VFNodes)
	return h
}

func numaOf(n *cluster.Node) map[int]int {
	numa := map[int]int{}
	for _, c := range n.Spec.Machine.CPUs() {
		numa[c.ID] = c.NUMANode
	}
	return numa
}

// lanes asks every kubelet what it has to give.
func (d *Demo) lanes(ctx context.Context) ([]Lane, error) {
	var all []Lane
	for _, n := range d.nodes {
		lanes := map[int]*Lane{}
		for _, node := range n.Spec.Machine.NUMANodes {
			lanes[node.ID] = &Lane{Node: n.Name, NUMA: node.ID}
		}
		numa := numaOf(n)
		err := n.PodResources(ctx, func(ctx context.Context, c podresources.PodResourcesListerClient) error {
			a, err := c.GetAllocatableResources(ctx, &podresources.AllocatableResourcesRequest{})
			if err != nil {
				return err
			}
			for _, id := range a.GetCpuIds() {
				lanes[numa[int(id)]].CPUs++
			}
			for _, dev := range a.GetDevices() {
				for _, node := range dev.GetTopology().GetNodes() {
					if dev.GetResourceName() == string(d.resource) {
						lanes[int(node.GetID())].VFs += len(dev.GetDeviceIds())
					}
				}
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		for _, l := range lanes {
			all = append(all, *l)
		}
	}
	slices.SortFunc(all, func(a, b Lane) int {
		if c := strings.Compare(a.Node, b.Node); c != 0 {
			return c
		}
		return a.NUMA - b.NUMA
	})
	return all, nil
}

// remove deletes the pods of the first run; those of the last stay for Keep.
func (d *Demo) remove(ctx context.Context, scheduler string) error {
	if scheduler != corev1.DefaultSchedulerName {
		return nil
	}
	none := int64(0)
	pods := d.c.Client.CoreV1().Pods(namespace)
	if err := pods.DeleteCollection(ctx, metav1.DeleteOptions{GracePeriodSeconds: &none}, metav1.ListOptions{}); err != nil {
		return fmt.Errorf("delete the pods: %w", err)
	}
	return cluster.Wait(ctx, time.Minute, "the pods to go", func(ctx context.Context) error {
		list, err := pods.List(ctx, metav1.ListOptions{})
		if err == nil && len(list.Items) > 0 {
			err = fmt.Errorf("%d pods are left", len(list.Items))
		}
		return err
	})
}
