package load

import (
	"context"
	"fmt"
	"strings"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/numalane/numalane/e2e/storm/journal"
	"github.com/numalane/numalane/e2e/storm/packing"
	"github.com/numalane/numalane/pkg/allocator"
)

// FillKind is a kind of pod of the fill act.
type FillKind struct {
	Name      string
	CPUs, VFs int64
	Count     int
}

// Fill is a load of more than fits into so many free VFs. All kinds ask for as
// many CPUs a VF: who comes first then takes no more than its share, and what is
// left free is left by poor packing, or for fear.
func Fill(free int) []FillKind {
	kinds := []FillKind{{"large", 4, 2, 0}, {"small", 2, 1, 0}}
	for i := range kinds {
		kinds[i].Count = free*3/(5*int(kinds[i].VFs)) + 1
	}
	return kinds
}

func (k *FillKind) pod(i int) *corev1.Pod {
	none := int64(0)
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("fill-%s-%03d", k.Name, i), Namespace: Namespace, Labels: map[string]string{"storm": "fill"}},
		Spec: corev1.PodSpec{
			SchedulerName: journal.Scheduler, TerminationGracePeriodSeconds: &none, DNSPolicy: corev1.DNSDefault,
			Containers: []corev1.Container{container("app", k.CPUs, k.VFs, 0)},
		},
	}
}

// Kinds are the same for the exhaustive search, worth their VFs.
func Kinds(kinds []FillKind) []packing.Kind {
	var out []packing.Kind
	for i := range kinds {
		k := &kinds[i]
		out = append(out, packing.Kind{Request: allocator.NewRequest(k.pod(0)), Value: int(k.VFs), Count: k.Count})
	}
	return out
}

// Describe is the load for people.
func Describe(kinds []FillKind) string {
	var parts []string
	for _, k := range kinds {
		parts = append(parts, fmt.Sprintf("%d %s (%d CPUs, %d VFs)", k.Count, k.Name, k.CPUs, k.VFs))
	}
	return strings.Join(parts, ", ")
}

// CreateFill creates the load at once.
func CreateFill(ctx context.Context, client kubernetes.Interface, kinds []FillKind) error {
	for i := range kinds {
		var g errgroup.Group
		g.SetLimit(parallel)
		for n := range kinds[i].Count {
			g.Go(func() error {
				_, err := client.CoreV1().Pods(Namespace).Create(ctx, kinds[i].pod(n), metav1.CreateOptions{})
				return err
			})
		}
		if err := g.Wait(); err != nil {
			return fmt.Errorf("create the fill load: %w", err)
		}
	}
	return nil
}
