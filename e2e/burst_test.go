package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/numalane/numalane/e2e/cluster"
	"github.com/numalane/numalane/internal/sysfstest"
)

// TestBurst throws more pods of different shapes at once at the scheduler than
// fit, takes some away, and does it again: pods wait, and none is ever refused
// by a kubelet.
func TestBurst(t *testing.T) {
	c := start(t, cluster.Options{})
	x710 := sysfstest.X710
	node(t, c, "n1", sysfstest.Uniform(2, 4, 2, x710("0000:3b:00.0", 0, 6), x710("0000:af:00.0", 1, 2)), 8)
	node(t, c, "n2", sysfstest.Uniform(2, 8, 1, x710("0000:3b:00.0", 0, 3), x710("0000:af:00.0", 1, 7)), 10)
	node(t, c, "n3", sysfstest.Uniform(4, 3, 2, x710("0000:3b:00.0", 0, 2), x710("0000:af:00.0", 3, 5)), 7)
	rng := rand.New(rand.NewPCG(uint64(fromEnv(t, "SEED", 1)), 0))
	pods := c.Client.CoreV1().Pods("default")
	for round := range 3 {
		for i := range 20 {
			create(t, c, pod(fmt.Sprintf("p-%d-%02d", round, i), 1+rng.Int64N(5), 1+rng.Int64N(3)))
		}
		running := settled(t, c)
		t.Logf("round %d: %d pods run", round, len(running))
		if len(running) == 0 {
			t.Error("no pod runs")
		}
		for _, name := range running {
			if rng.IntN(2) == 0 {
				if err := pods.Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	settled(t, c)
}

// settled waits until every pod runs or has no place, and nothing has changed
// for a while. It ends the test at the first pod that a kubelet refused.
func settled(t *testing.T, c *cluster.Cluster) (runs []string) {
	t.Helper()
	var refused error
	var before string
	since := time.Now()
	err := cluster.Wait(t.Context(), 2*time.Minute, "the pods to settle", func(ctx context.Context) error {
		list, err := c.Client.CoreV1().Pods("default").List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		runs = nil
		state, underway := "", 0
		for i := range list.Items {
			p := &list.Items[i]
			state += p.Name + string(p.Status.Phase) + p.Spec.NodeName
			switch {
			case p.Status.Phase == corev1.PodFailed:
				refused = fmt.Errorf("pod %s was refused by the kubelet of %s: %s %s", p.Name, p.Spec.NodeName, p.Status.Reason, p.Status.Message)
				return nil
			case running(p):
				runs = append(runs, p.Name)
			case p.Spec.NodeName != "" || !unschedulable(p):
				underway++
			}
		}
		if state != before {
			before, since = state, time.Now()
		}
		if underway > 0 || time.Since(since) < 2*time.Second {
			return fmt.Errorf("%d pods are on their way", underway)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if refused != nil {
		t.Fatal(refused)
	}
	return runs
}
