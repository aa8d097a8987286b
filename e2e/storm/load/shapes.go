// Package load makes the storm's pods, and has them come and go.
package load

import (
	"fmt"
	"math/rand/v2"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/numalane/numalane/e2e/storm/fleet"
	"github.com/numalane/numalane/e2e/storm/journal"
)

// Namespace is where the pods go.
const Namespace = "default"

// shape fills in what one kind of pod asks for.
type shape func(*corev1.PodSpec, *rand.Rand)

// shapes are all kinds, each with how often it is drawn.
var shapes = [...]struct {
	weight int
	fill   shape
}{
	{26, one},
	{10, two},
	{10, withInit},
	{8, withSidecar},
	{16, cpusOnly},
	{12, burstable},
	{4, bestEffort},
	{6, fraction},
	{5, slow},
	{3, large},
}

func one(s *corev1.PodSpec, dice *rand.Rand) {
	s.Containers = []corev1.Container{container("app", between(dice, 1, 4), between(dice, 1, 2), 0)}
}

func two(s *corev1.PodSpec, dice *rand.Rand) {
	s.Containers = []corev1.Container{
		container("app", between(dice, 1, 3), between(dice, 0, 2), 0),
		container("second", between(dice, 1, 2), 1, 0),
	}
}

// withInit has an init container that ends at once, and may ask for more than
// what comes after it.
func withInit(s *corev1.PodSpec, dice *rand.Rand) {
	one(s, dice)
	init := container("init", between(dice, 1, 5), between(dice, 0, 2), 0)
	init.Command, init.Args = []string{"script"}, []string{"0s"}
	s.InitContainers = []corev1.Container{init}
}

func withSidecar(s *corev1.PodSpec, dice *rand.Rand) {
	one(s, dice)
	always := corev1.ContainerRestartPolicyAlways
	side := container("side", between(dice, 1, 2), between(dice, 0, 1), 0)
	side.RestartPolicy = &always
	s.InitContainers = []corev1.Container{side}
}

func cpusOnly(s *corev1.PodSpec, dice *rand.Rand) {
	s.Containers = []corev1.Container{container("app", between(dice, 1, 4), 0, 0)}
}

// burstable has VFs, and CPUs of the shared pool.
func burstable(s *corev1.PodSpec, dice *rand.Rand) {
	c := container("app", 0, between(dice, 1, 2), 0)
	delete(c.Resources.Limits, corev1.ResourceCPU)
	delete(c.Resources.Limits, corev1.ResourceMemory)
	c.Resources.Requests[corev1.ResourceCPU] = resource.MustParse("200m")
	s.Containers = []corev1.Container{c}
}

func bestEffort(s *corev1.PodSpec, _ *rand.Rand) {
	s.Containers = []corev1.Container{{Name: "app", Image: "none"}}
}

// fraction is Guaranteed, and its CPUs are shared all the same.
func fraction(s *corev1.PodSpec, dice *rand.Rand) {
	c, milli := container("app", 1, 1, 0), 500+100*between(dice, 1, 9)
	for _, list := range []corev1.ResourceList{c.Resources.Requests, c.Resources.Limits} {
		list[corev1.ResourceCPU] = *resource.NewMilliQuantity(milli, resource.DecimalSI)
	}
	s.Containers = []corev1.Container{c}
}

func slow(s *corev1.PodSpec, dice *rand.Rand) {
	c, n := container("app", between(dice, 1, 3), between(dice, 0, 1), 0), between(dice, 1, 2)
	for _, list := range []corev1.ResourceList{c.Resources.Requests, c.Resources.Limits} {
		list[fleet.Slow] = *resource.NewQuantity(n, resource.DecimalSI)
	}
	s.Containers = []corev1.Container{c}
}

// large is of much memory, for the nodes that bind it, and of many CPUs.
func large(s *corev1.PodSpec, dice *rand.Rand) {
	s.Containers = []corev1.Container{container("app", between(dice, 3, 6), between(dice, 0, 3), between(dice, 2, 6))}
}

func between(dice *rand.Rand, least, most int64) int64 { return least + dice.Int64N(most-least+1) }

// container is of the Guaranteed class.
func container(name string, cpus, vfs, gib int64) corev1.Container {
	list := func() corev1.ResourceList {
		rl := corev1.ResourceList{
			corev1.ResourceCPU:    *resource.NewQuantity(cpus, resource.DecimalSI),
			corev1.ResourceMemory: *resource.NewQuantity(max(gib<<30, 64<<20), resource.BinarySI),
		}
		if vfs > 0 {
			rl[fleet.VF] = *resource.NewQuantity(vfs, resource.DecimalSI)
		}
		return rl
	}
	return corev1.Container{Name: name, Image: "none", Resources: corev1.ResourceRequirements{Requests: list(), Limits: list()}}
}

// draw makes a pod of some shape. It ends by itself before the deadline, or lives
// until it is deleted.
func draw(name string, dice *rand.Rand, deadline time.Time) *corev1.Pod {
	grace := int64(5)
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: Namespace, Labels: map[string]string{"storm": "pod"}},
		Spec: corev1.PodSpec{
			SchedulerName: journal.Scheduler, TerminationGracePeriodSeconds: &grace,
			RestartPolicy: corev1.RestartPolicyAlways, DNSPolicy: corev1.DNSDefault,
		},
	}
	total := 0
	for _, s := range shapes {
		total += s.weight
	}
	at := dice.IntN(total)
	for _, s := range shapes {
		if at -= s.weight; at < 0 {
			s.fill(&p.Spec, dice)
			break
		}
	}
	ends := "never"
	if dice.IntN(10) < 7 {
		p.Spec.RestartPolicy = corev1.RestartPolicyNever
		ends = life(dice, deadline).String()
	}
	lingers := fmt.Sprintf("%dms", 100*dice.IntN(25))
	for i := range p.Spec.Containers {
		p.Spec.Containers[i].Command, p.Spec.Containers[i].Args = []string{"script"}, []string{ends, lingers}
	}
	return p
}

// life is 4 to 45 s, and over before the deadline, so that the end is quiet.
func life(dice *rand.Rand, deadline time.Time) time.Duration {
	d := time.Duration(4000+dice.IntN(41000)) * time.Millisecond
	return max(min(d, time.Until(deadline)), time.Second).Truncate(time.Millisecond)
}
