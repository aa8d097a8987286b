package ledger_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"

	"github.com/numalane/numalane/internal/ledger"
	"github.com/numalane/numalane/pkg/allocator"
)

func conflict(name string) error {
	return apierrors.NewConflict(v1.Resource("pods/binding"), name, errors.New("already assigned"))
}

// TestBindNeverPromisesTwice binds many pods at once, all of which passed
// filter when the nodes were empty.
func TestBindNeverPromisesTwice(t *testing.T) {
	const pods, nodes = 40, 3
	var objects []runtime.Object
	for i := range nodes {
		objects = append(objects, two.node(t, fmt.Sprint("n", i)))
	}
	for i := range pods {
		objects = append(objects, pod(fmt.Sprint("p", i), "2", 2))
	}
	inCluster(t, ledger.Policy{}, objects, func(t *testing.T, c *cluster) {
		var wg sync.WaitGroup
		for i := range pods {
			wg.Go(func() {
				err := c.Bind(t.Context(), &v1.Binding{
					ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: fmt.Sprint("p", i), UID: pod(fmt.Sprint("p", i), "2", 2).UID},
					Target:     v1.ObjectReference{Kind: "Node", Name: fmt.Sprint("n", i%nodes)},
				})
				if err != nil && !strings.Contains(err.Error(), "promised to others") {
					t.Errorf("p%d: %v", i, err)
				}
			})
		}
		wg.Wait()
		synctest.Wait()
		list, err := c.client.CoreV1().Pods("ns").List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		on := map[string]int{}
		for i := range list.Items {
			on[list.Items[i].Spec.NodeName]++
		}
		// 2 CPUs and 2 VFs fit twice on NUMA node 0 and once on NUMA node 1.
		for i := range nodes {
			if name := fmt.Sprint("n", i); on[name] != 3 {
				t.Errorf("%s got %d pods, want 3", name, on[name])
			}
		}
		if got := c.metric("numalane_ledger_bindings_total", "refused"); got != pods-3*nodes {
			t.Errorf("%v bindings refused, want %d", got, pods-3*nodes)
		}
		if got := c.metric("numalane_ledger_pods", "promised"); got != 0 {
			t.Errorf("%v promises are left, want none", got)
		}
	})
}

// TestBindOutcome: what becomes of the promise when the API says no, or says
// nothing.
func TestBindOutcome(t *testing.T) {
	status := func(code int32, reason metav1.StatusReason) error {
		return &apierrors.StatusError{ErrStatus: metav1.Status{Status: metav1.StatusFailure, Code: code, Reason: reason, Message: "no"}}
	}
	tests := []struct {
		name  string
		err   error
		keeps bool
	}{
		{"forbidden", status(403, metav1.StatusReasonForbidden), false},
		{"not found", status(404, metav1.StatusReasonNotFound), false},
		{"invalid", status(422, metav1.StatusReasonInvalid), false},
		{"conflict", conflict("p"), true},
		{"internal error", status(500, metav1.StatusReasonInternalError), true},
		{"server timeout", status(504, metav1.StatusReasonTimeout), true},
		{"deadline", context.DeadlineExceeded, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := pod("p", "2", 3)
			inCluster(t, ledger.Policy{}, []runtime.Object{two.node(t, "n1"), p}, func(t *testing.T, c *cluster) {
				c.client.PrependReactor("create", "pods", func(a clienttesting.Action) (bool, runtime.Object, error) {
					return a.GetSubresource() == "binding", nil, tt.err
				})
				if err := c.bind(p, "n1"); !errors.Is(err, tt.err) {
					t.Fatalf("%v, want %v", err, tt.err)
				}
				other := allocator.Admitted
				if tt.keeps {
					other = allocator.InsufficientDevices
				}
				c.want("n1", pod("q", "4", 4), other)
				c.want("n1", p, allocator.Admitted) // its own promise is not in its way
				// The pod is alive and not bound: by now it never will be.
				time.Sleep(time.Minute)
				synctest.Wait()
				c.want("n1", pod("q", "4", 4), allocator.Admitted)
			})
		})
	}
}

// TestBindUnknownOutcome: the answer is lost, and the pod was bound.
func TestBindUnknownOutcome(t *testing.T) {
	p := pod("p", "2", 3)
	inCluster(t, ledger.Policy{}, []runtime.Object{two.node(t, "n1"), two.node(t, "n2"), p}, func(t *testing.T, c *cluster) {
		bound := make(chan struct{})
		c.client.PrependReactor("create", "pods", func(a clienttesting.Action) (bool, runtime.Object, error) {
			if a.GetSubresource() != "binding" {
				return false, nil, nil
			}
			select {
			case <-bound: // the second time: it is assigned already
				return true, nil, conflict("p")
			default:
				return true, nil, context.DeadlineExceeded
			}
		})
		if err := c.bind(p, "n1"); err == nil {
			t.Fatal("the binding seems to have come through")
		}
		close(bound)
		// kube-scheduler may try another node: not before it is known.
		c.want("n2", p, allocator.InFlux)
		checkError(t, c.bind(p, "n2"), "may have been bound to node n1")
		c.want("n1", pod("q", "4", 4), allocator.InsufficientDevices)
		c.want("n2", pod("q", "4", 4), allocator.Admitted)
		late := p.DeepCopy()
		late.Spec.NodeName = "n1"
		c.put(late)
		c.want("n1", pod("q", "4", 4), allocator.InsufficientDevices)
		c.want("n2", pod("q", "4", 4), allocator.Admitted)
	})
}

// TestBoundAlready: the answer is lost, the pod was bound, and kube-scheduler asks
// again for the same node before any watch shows it: that is no failure.
func TestBoundAlready(t *testing.T) {
	p := pod("p", "2", 3)
	inCluster(t, ledger.Policy{}, []runtime.Object{two.node(t, "n1"), p}, func(t *testing.T, c *cluster) {
		lost := true
		c.client.PrependReactor("create", "pods", func(a clienttesting.Action) (bool, runtime.Object, error) {
			if a.GetSubresource() == "binding" && lost {
				return true, nil, context.DeadlineExceeded
			}
			return a.GetSubresource() == "binding", nil, conflict("p")
		})
		c.client.PrependReactor("get", "pods", func(clienttesting.Action) (bool, runtime.Object, error) {
			return !lost, on("n1", p.DeepCopy()), nil
		})
		checkError(t, c.bind(p, "n1"), "deadline exceeded")
		lost = false
		checkError(t, c.bind(p, "n1"), "")
		c.want("n1", pod("q", "4", 4), allocator.InsufficientDevices)
	})
}

// TestSuspectNode: a node that loses a pod which it had not acknowledged gets none
// for a moment, and is liked least.
func TestSuspectNode(t *testing.T) {
	p, q := pod("p", "2", 2), pod("q", "1", 1)
	inCluster(t, ledger.Policy{}, []runtime.Object{two.node(t, "n1"), two.node(t, "n2"), p, q}, func(t *testing.T, c *cluster) {
		checkError(t, c.bind(p, "n1"), "")
		failed := on("n1", p.DeepCopy())
		failed.Status.Phase = v1.PodFailed
		c.put(failed)
		r := allocator.NewRequest(q)
		if lost, other := c.Score("n1", q.UID, r, 100), c.Score("n2", q.UID, r, 100); lost != 1 || other <= lost {
			t.Errorf("it scores %d and another node %d, want 1 and more", lost, other)
		}
		c.want("n1", q, allocator.Admitted)
		checkError(t, c.bind(q, "n1"), "its plugin may be down")
		time.Sleep(5 * time.Second)
		checkError(t, c.bind(q, "n1"), "")
		// Of one that it had acknowledged it is no sign.
		c.put(acknowledged(t, on("n1", q), 0, []int{0}, 1))
		c.deletePod("q")
		c.put(pod("r", "1", 1))
		checkError(t, c.bind(pod("r", "1", 1), "n1"), "")
	})
}

// TestPromiseOfADeletedPod: a pod that goes takes its promise along.
func TestPromiseOfADeletedPod(t *testing.T) {
	p := pod("p", "2", 3)
	inCluster(t, ledger.Policy{}, []runtime.Object{two.node(t, "n1"), p}, func(t *testing.T, c *cluster) {
		c.client.PrependReactor("create", "pods", func(a clienttesting.Action) (bool, runtime.Object, error) {
			return a.GetSubresource() == "binding", nil, context.DeadlineExceeded
		})
		if err := c.bind(p, "n1"); err == nil {
			t.Fatal("the binding seems to have come through")
		}
		c.want("n1", pod("q", "4", 4), allocator.InsufficientDevices)
		c.deletePod("p")
		c.want("n1", pod("q", "4", 4), allocator.Admitted)
	})
}

// TestSettleKeepsWhatItCannotSee: while the API does not tell, nothing is freed.
func TestSettleKeepsWhatItCannotSee(t *testing.T) {
	p := pod("p", "2", 3)
	inCluster(t, ledger.Policy{}, []runtime.Object{two.node(t, "n1"), p}, func(t *testing.T, c *cluster) {
		c.client.PrependReactor("create", "pods", func(a clienttesting.Action) (bool, runtime.Object, error) {
			return a.GetSubresource() == "binding", nil, context.DeadlineExceeded
		})
		c.client.PrependReactor("get", "pods", func(clienttesting.Action) (bool, runtime.Object, error) {
			return true, nil, apierrors.NewServiceUnavailable("down")
		})
		if err := c.bind(p, "n1"); err == nil {
			t.Fatal("the binding seems to have come through")
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		c.want("n1", pod("q", "4", 4), allocator.InsufficientDevices)
	})
}

func TestBindRefuses(t *testing.T) {
	p := pod("p", "2", 2)
	tests := []struct {
		name, node, want string
		pod              *v1.Pod
	}{
		{"a pod that no longer fits", "full", "promised to others: node(s) had not enough free CPUs", p},
		{"a node that publishes nothing", "bare", "did not publish", p},
		{"a node that is not", "nowhere", "did not publish", p},
		{"a pod that is not", "full", "not found", pod("other", "2", 2)},
		{"a pod of another UID", "full", "another pod has taken its name", func() *v1.Pod {
			q := p.DeepCopy()
			q.UID = "uid-old"
			return q
		}()},
	}
	objects := []runtime.Object{
		two.node(t, "full"), &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: "bare"}}, p,
		on("full", acknowledged(t, pod("x", "3", 3), 0, []int{0, 1, 2}, 3)),
		on("full", acknowledged(t, pod("y", "3", 1), 1, []int{4, 5, 6}, 1)),
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inCluster(t, ledger.Policy{}, objects, func(t *testing.T, c *cluster) {
				if err := c.bind(tt.pod, tt.node); err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("%v, want %q in it", err, tt.want)
				}
				for _, a := range c.client.Actions() {
					if a.GetSubresource() == "binding" {
						t.Error("the API was asked to bind")
					}
				}
			})
		})
	}
}

// TestBindPassesOthers: pods that ask for nothing exclusive are bound wherever
// kube-scheduler wants, known state or not.
func TestBindPassesOthers(t *testing.T) {
	p := pod("p", "2", 0)
	p.Spec.Containers[0].Resources.Limits = nil
	p.Status.QOSClass = v1.PodQOSBurstable
	inCluster(t, ledger.Policy{}, []runtime.Object{&v1.Node{ObjectMeta: metav1.ObjectMeta{Name: "bare"}}, p}, func(t *testing.T, c *cluster) {
		if err := c.bind(p, "bare"); err != nil {
			t.Fatal(err)
		}
		got, err := c.client.CoreV1().Pods("ns").Get(t.Context(), "p", metav1.GetOptions{})
		if err != nil || got.Spec.NodeName != "bare" {
			t.Errorf("the pod is on %q, want bare (%v)", got.Spec.NodeName, err)
		}
	})
}
