package publish_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	clienttesting "k8s.io/client-go/testing"

	"github.com/numalane/numalane/internal/kubelet"
	"github.com/numalane/numalane/internal/publish"
	"github.com/numalane/numalane/pkg/topology"
)

const (
	nodeBody = `{"metadata":{"annotations":{` +
		`"numalane.io/pools":"{\"version\":1,\"pools\":[{\"resource\":\"numalane.io/sriov\",\"allocationPolicy\":\"packed\",\"groups\":[` +
		`{\"numaNodes\":[0],\"pf\":\"0000:3b:00.0\",\"total\":8,\"healthy\":7,\"free\":7},` +
		`{\"numaNodes\":[0],\"pf\":\"0000:3c:00.0\",\"total\":4,\"healthy\":4,\"free\":4},` +
		`{\"numaNodes\":[1],\"pf\":\"0000:af:00.0\",\"total\":8,\"healthy\":8,\"free\":8}]},` +
		`{\"resource\":\"vendor.example/gpu\",\"foreign\":true,\"groups\":[{\"numaNodes\":[1],\"total\":2,\"healthy\":2,\"free\":2}]}]}",` +
		`"numalane.io/topology":"{\"version\":1,\"kubelet\":{\"minor\":37,\"topologyPolicy\":\"single-numa-node\",\"topologyScope\":\"pod\",` +
		`\"cpuPolicy\":\"static\",\"memoryPolicy\":\"Static\"},\"numaNodes\":[{\"id\":0}]}"},` +
		`"labels":{"numalane.io/topology-policy":"single-numa-node","numalane.io/topology-scope":"pod","pool.numalane.io/numalane.io_sriov":"11"},"uid":"node-uid"}}`

	podBody = `{"metadata":{"annotations":{"numalane.io/allocation":"{\"version\":1,\"uid\":\"cnf-uid\",\"containers\":[` +
		`{\"name\":\"app\",\"cpus\":{\"0\":\"4-5\"},\"memory\":[{\"type\":\"memory\",\"numaNodes\":[0],\"size\":1073741824}],` +
		`\"devices\":[{\"resource\":\"numalane.io/sriov\",\"numaNodes\":[0],\"pf\":\"0000:3b:00.0\",\"ids\":[\"0000:3b:02.0\"]}]},` +
		`{\"name\":\"init\",\"cpus\":{\"0\":\"4\"}}]}"},"uid":"cnf-uid"}}`
)

func expect(t *testing.T, what string, got []written, want ...written) {
	t.Helper()
	if d := cmp.Diff(want, got, cmpopts.IgnoreUnexported(written{}), cmpopts.EquateEmpty()); d != "" {
		t.Errorf("%s: %s", what, d)
	}
}

func TestPublishesOnce(t *testing.T) {
	run(t, []runtime.Object{node(), pod()}, state(held("cnf-uid")), func(t *testing.T, l *lane) {
		expect(t, "at first", l.api.take(), written{Object: "pod/lane/cnf", Body: podBody}, written{Object: "node/n1", Body: nodeBody})
		in := l.last()
		if d := cmp.Diff([]kubelet.Pod{{UID: "cnf-uid", Namespace: "lane", Name: "cnf"}}, in.Pods); d != "" || in.Minor != 37 {
			t.Errorf("minor %d, pods %s", in.Minor, d)
		}
		for range 3 {
			l.poke()
			l.changed <- struct{}{}
			settle()
		}
		running := l.api.pod("lane", "cnf")
		running.Status.Phase = v1.PodRunning
		l.api.update(running)
		time.Sleep(time.Minute)
		expect(t, "without a change", l.api.take())
	})
}

func TestWatchesItsOwnNodeOnly(t *testing.T) {
	run(t, []runtime.Object{node()}, state(), func(t *testing.T, l *lane) {
		selectors := map[string]string{}
		for _, a := range l.api.client.Actions() {
			switch a := a.(type) {
			case clienttesting.ListAction:
				selectors["list "+a.GetResource().Resource] = a.GetListRestrictions().Fields.String()
			case clienttesting.WatchAction:
				selectors["watch "+a.GetResource().Resource] = a.GetWatchRestrictions().Fields.String()
			}
		}
		if d := cmp.Diff(map[string]string{
			"list nodes": "metadata.name=n1", "watch nodes": "metadata.name=n1",
			"list pods": "spec.nodeName=n1", "watch pods": "spec.nodeName=n1",
		}, selectors); d != "" {
			t.Error(d)
		}
	})
}

func TestAcknowledgesAfterTheWholeAdmission(t *testing.T) {
	part := func(change func(app, initial *topology.ContainerAllocation)) topology.Allocation {
		a := held("cnf-uid")
		change(&a.Containers[0], &a.Containers[1])
		return a
	}
	for what, a := range map[string]topology.Allocation{
		"only the init container": {UID: "cnf-uid", Containers: held("cnf-uid").Containers[1:]},
		"no CPUs of the app yet":  part(func(app, _ *topology.ContainerAllocation) { app.CPUs = nil }),
		"no memory yet":           part(func(app, _ *topology.ContainerAllocation) { app.Memory = nil }),
		"no device":               part(func(app, _ *topology.ContainerAllocation) { app.Devices = nil }),
		"no CPUs of init":         part(func(_, initial *topology.ContainerAllocation) { initial.CPUs = nil }),
	} {
		t.Run(what, func(t *testing.T) {
			run(t, []runtime.Object{node(), pod()}, state(a), func(t *testing.T, l *lane) {
				expect(t, "half-way", l.api.take(), written{Object: "node/n1", Body: nodeBody})
				began := time.Now()
				l.set(func(s *topology.NodeState) { s.Held = []topology.Allocation{held("cnf-uid")} })
				settle()
				got := l.api.take()
				expect(t, "admitted", got, written{Object: "pod/lane/cnf", Body: podBody})
				if len(got) == 1 && got[0].at.Sub(began) > 100*time.Millisecond {
					t.Errorf("acknowledged %v after its admission", got[0].at.Sub(began))
				}
			})
		})
	}
}

func TestAcknowledgesWhatTheManagersDoNotGive(t *testing.T) {
	for what, c := range map[string]struct {
		pod   func(*v1.Pod)
		state func(*topology.NodeState)
	}{
		"a Burstable pod gets devices only": {
			pod: func(p *v1.Pod) { p.Status.QOSClass = v1.PodQOSBurstable },
		},
		"policies none give no CPUs and memory": {
			state: func(s *topology.NodeState) {
				s.Topology.Kubelet.CPUPolicy, s.Topology.Kubelet.MemoryPolicy = "none", "None"
			},
		},
		"pod-level resources": {
			pod: func(p *v1.Pod) {
				p.Spec.Resources = &v1.ResourceRequirements{Requests: v1.ResourceList{v1.ResourceCPU: resource.MustParse("2")}}
			},
		},
		"a fraction of a CPU is shared": {
			pod: func(p *v1.Pod) {
				for _, cs := range [][]v1.Container{p.Spec.InitContainers, p.Spec.Containers} {
					q := *p.Spec.Containers[0].Resources.Requests.Cpu()
					q.SetMilli(1500)
					cs[0].Resources.Requests = v1.ResourceList{v1.ResourceCPU: q}
				}
			},
		},
		"DRA serves the second resource": {
			pod: func(p *v1.Pod) {
				p.Status.QOSClass = v1.PodQOSBurstable
				p.Spec.Containers[0].Resources.Limits["vendor.example/gpu"] = p.Spec.Containers[0].Resources.Limits["numalane.io/sriov"]
				p.Status.ExtendedResourceClaimStatus = &v1.PodExtendedResourceClaimStatus{RequestMappings: []v1.ContainerExtendedResourceRequest{
					{ContainerName: "app", ResourceName: "vendor.example/gpu"},
				}}
			},
			state: func(s *topology.NodeState) { s.Topology.Kubelet.FeatureGates = []string{"DRAExtendedResource"} },
		},
		"a reading that does not tell of init containers": {
			pod: func(p *v1.Pod) {
				p.Spec.Containers[0].Resources.Requests = nil
			},
			state: func(s *topology.NodeState) { s.Topology.Inexact = "cpu_manager_state has an unknown format" },
		},
	} {
		t.Run(what, func(t *testing.T) {
			a := held("cnf-uid")
			a.Containers = a.Containers[:1]
			a.Containers[0].CPUs, a.Containers[0].Memory = nil, nil
			p, s := pod(), state(a)
			if c.pod != nil {
				c.pod(p)
			}
			if c.state != nil {
				c.state(&s)
			}
			run(t, []runtime.Object{node(), p}, s, func(t *testing.T, l *lane) {
				if _, ok := l.api.pod("lane", "cnf").Annotations[topology.AllocationAnnotation]; !ok {
					t.Error("not acknowledged")
				}
			})
		})
	}
}

func TestHoldingsGo(t *testing.T) {
	none := written{Object: "pod/lane/cnf", Body: `{"metadata":{"annotations":{"numalane.io/allocation":null},"uid":"cnf-uid"}}`}
	t.Run("of a pod that goes on", func(t *testing.T) {
		run(t, []runtime.Object{node(), pod()}, state(held("cnf-uid")), func(t *testing.T, l *lane) {
			l.api.take()
			l.set(func(s *topology.NodeState) { s.Held, s.Topology.Inexact = nil, "cpu_manager_state cannot be read" })
			settle()
			for _, w := range l.api.take() {
				if strings.HasPrefix(w.Object, "pod/") {
					t.Errorf("a pod that is not seen is taken for one that holds nothing: %v", w)
				}
			}
			l.set(func(s *topology.NodeState) { s.Topology.Inexact = "" })
			settle()
			got := l.api.take()
			expect(t, "all is read", got[:min(1, len(got))], none)
		})
	})
	t.Run("of a pod that ended", func(t *testing.T) {
		run(t, []runtime.Object{node(), pod()}, state(held("cnf-uid")), func(t *testing.T, l *lane) {
			l.api.take()
			p := l.api.pod("lane", "cnf")
			p.Status.Phase = v1.PodFailed
			l.api.update(p)
			settle()
			l.set(func(s *topology.NodeState) { s.Held = nil })
			settle()
			expect(t, "ended", l.api.take())
			if !l.last().Pods[0].Ended {
				t.Error("the kubelet's side is not told that the pod ended")
			}
		})
	})
	t.Run("that somebody else made up", func(t *testing.T) {
		p := pod()
		p.Annotations = map[string]string{topology.AllocationAnnotation: "forged"}
		run(t, []runtime.Object{node(), p}, state(), func(t *testing.T, l *lane) {
			expect(t, "forged", l.api.take(), none, written{Object: "node/n1", Body: nodeBody})
		})
	})
}

func TestMirrorPod(t *testing.T) {
	p := pod()
	p.UID = "mirror-uid"
	p.Annotations = map[string]string{"kubernetes.io/config.mirror": "cnf-uid"}
	run(t, []runtime.Object{node(), p}, state(held("cnf-uid")), func(t *testing.T, l *lane) {
		if uid := l.last().Pods[0].UID; uid != "cnf-uid" {
			t.Errorf("the kubelet's side is asked for UID %s", uid)
		}
		a, err := topology.Decode[topology.Allocation](l.api.pod("lane", "cnf").Annotations[topology.AllocationAnnotation])
		if err != nil || a.UID != "mirror-uid" {
			t.Errorf("acknowledged UID %s, want that of the API: %v", a.UID, err)
		}
	})
}

func TestSecondPodOfAName(t *testing.T) {
	run(t, []runtime.Object{node(), pod()}, state(held("cnf-uid")), func(t *testing.T, l *lane) {
		l.api.take()
		next := pod()
		next.UID, next.ResourceVersion = "next-uid", "300"
		l.api.update(next)
		settle()
		expect(t, "not admitted yet", l.api.take())
		l.set(func(s *topology.NodeState) { s.Held = []topology.Allocation{held("next-uid")} })
		settle()
		expect(t, "admitted", l.api.take(), written{Object: "pod/lane/cnf", Body: strings.ReplaceAll(podBody, "cnf-uid", "next-uid")})
	})
}

func TestPodIsGoneBeforeItsPatch(t *testing.T) {
	run(t, []runtime.Object{node(), pod()}, state(), func(t *testing.T, l *lane) {
		l.api.take()
		l.api.setDeny(apierrors.NewNotFound(schema.GroupResource{Resource: "pods"}, "cnf"))
		l.set(func(s *topology.NodeState) { s.Held = []topology.Allocation{held("cnf-uid")} })
		settle()
		if n := len(l.api.take()); n != 1 {
			t.Errorf("%d writes, want 1", n)
		}
		if n := l.logs.count("level=WARN"); n != 0 {
			t.Errorf("%d warnings of what is no fault", n)
		}
	})
}

func TestOnlyTheLiveInstancePublishes(t *testing.T) {
	run(t, []runtime.Object{node(), pod()}, state(held("cnf-uid")), func(t *testing.T, l *lane) {
		expect(t, "not ready", l.api.take())
		l.setReady(true)
		settle()
		expect(t, "ready", l.api.take(), written{Object: "pod/lane/cnf", Body: podBody}, written{Object: "node/n1", Body: nodeBody})
	}, func(l *lane) { l.ready = false })
}

// TestKubeletIsAway: that no kubelet listens is said once, with all else as it was,
// and taken back with the next state.
func TestKubeletIsAway(t *testing.T) {
	run(t, []runtime.Object{node(), pod()}, state(held("cnf-uid")), func(t *testing.T, l *lane) {
		settle()
		l.api.take()
		before := l.api.node()
		l.setAway()
		settle()
		after := l.api.node()
		top, err := topology.Decode[topology.NodeTopology](after.Annotations[topology.TopologyAnnotation])
		if err != nil || !top.Away {
			t.Errorf("published %+v (%v), want the kubelet away", top, err)
		}
		if got := l.api.take(); len(got) != 1 || after.Annotations[topology.PoolsAnnotation] != before.Annotations[topology.PoolsAnnotation] {
			t.Errorf("written %v, want the topology alone", got)
		}
		l.changed <- struct{}{}
		settle()
		expect(t, "said already", l.api.take())
		l.setReady(true)
		settle()
		if d := cmp.Diff(before.Annotations, l.api.node().Annotations); d != "" {
			t.Errorf("back again (-want +got):\n%s", d)
		}
	})
}

func TestFreeIsGathered(t *testing.T) {
	free := func(l *lane, n int) {
		l.set(func(s *topology.NodeState) {
			p := append([]topology.Pool(nil), s.Pools.Pools...)
			g := append([]topology.Group(nil), p[0].Groups...)
			g[0].Free = n
			p[0].Groups = g
			s.Pools.Pools = p
		})
	}
	run(t, []runtime.Object{node()}, state(), func(t *testing.T, l *lane) {
		l.api.take()
		began := time.Now()
		for n := 6; n >= 3; n-- {
			free(l, n)
			settle()
		}
		expect(t, "at once", l.api.take())
		time.Sleep(10 * time.Second)
		got := l.api.take()
		if len(got) != 1 || !strings.Contains(got[0].Body, `\"healthy\":7,\"free\":3}`) || strings.Contains(got[0].Body, "numalane.io/topology") {
			t.Fatalf("after the delay: %v", got)
		}
		if d := got[0].at.Sub(began); d < 5*time.Second || d > 5500*time.Millisecond {
			t.Errorf("free was written after %v, want 5 s", d)
		}

		free(l, 2)
		settle()
		free(l, 3) // back again
		time.Sleep(10 * time.Second)
		expect(t, "for nothing", l.api.take())

		free(l, 1)
		settle()
		l.set(func(s *topology.NodeState) { s.Topology.Kubelet.TopologyPolicy = "restricted" })
		settle()
		got = l.api.take()
		if len(got) != 1 || !strings.Contains(got[0].Body, `\"free\":1}`) || !strings.Contains(got[0].Body, `"numalane.io/topology-policy":"restricted"`) {
			t.Errorf("with another change free goes along: %v", got)
		}
	})
}

func TestHealthIsNotDelayed(t *testing.T) {
	run(t, []runtime.Object{node()}, state(), func(t *testing.T, l *lane) {
		l.api.take()
		l.set(func(s *topology.NodeState) {
			s.Pools.Pools = []topology.Pool{{Resource: "numalane.io/sriov", Groups: []topology.Group{
				{NUMANodes: []int{0, 1}, Total: 2, Healthy: 1, Free: 1}, {Total: 5, Healthy: 5, Free: 5},
			}}}
		})
		settle()
		if n := len(l.api.take()); n != 1 {
			t.Errorf("%d writes, want 1", n)
		}
		if v := l.api.node().Labels["pool.numalane.io/numalane.io_sriov"]; v != "5" {
			t.Errorf("label %q, want 5", v)
		}
	})
}

func TestStaleLabelsGo(t *testing.T) {
	n := node()
	n.Labels["pool.numalane.io/numalane.io_old"] = "8"
	run(t, []runtime.Object{n}, state(), func(t *testing.T, l *lane) {
		want := map[string]string{
			"zone": "a", "numalane.io/topology-policy": "single-numa-node", "numalane.io/topology-scope": "pod", "pool.numalane.io/numalane.io_sriov": "11",
		}
		if d := cmp.Diff(want, l.api.node().Labels); d != "" {
			t.Error(d)
		}
		l.api.take()
		l.mu.Lock()
		l.pools = nil
		l.mu.Unlock()
		l.set(func(s *topology.NodeState) { s.Pools.Pools = nil })
		settle()
		delete(want, "pool.numalane.io/numalane.io_sriov")
		if d := cmp.Diff(want, l.api.node().Labels); d != "" {
			t.Error(d)
		}
	})
}

func TestSomebodyElseWrote(t *testing.T) {
	run(t, []runtime.Object{node(), pod()}, state(held("cnf-uid")), func(t *testing.T, l *lane) {
		l.api.take()
		n, p := l.api.node(), l.api.pod("lane", "cnf")
		n.Labels["numalane.io/topology-policy"] = "none"
		n.ResourceVersion = "900"
		p.Annotations[topology.AllocationAnnotation] = "x"
		p.ResourceVersion = "901"
		l.api.update(n)
		l.api.update(p)
		settle()
		if got := len(l.api.take()); got != 2 {
			t.Errorf("%d writes, want both put right", got)
		}
		if got := l.api.node().Labels["numalane.io/topology-policy"]; got != "single-numa-node" {
			t.Errorf("policy label %q", got)
		}
	})
}

func TestWatchLags(t *testing.T) {
	run(t, []runtime.Object{node(), pod()}, state(held("cnf-uid")), func(t *testing.T, l *lane) {
		if n := len(l.api.take()); n != 2 {
			t.Errorf("%d writes, want 2", n)
		}
		for range 3 {
			l.poke()
			settle()
		}
		// The kubelet's update of the status comes by before our own write does.
		p := pod()
		p.Status.Phase, p.ResourceVersion = v1.PodRunning, "12"
		l.api.update(p)
		settle()
		expect(t, "what the watch has not seen yet", l.api.take())
		l.api.catchUp()
		settle()
		expect(t, "the watch caught up", l.api.take())
	}, func(l *lane) { l.api.lag = true })
}

func TestDenied(t *testing.T) {
	forbidden := apierrors.NewForbidden(schema.GroupResource{Resource: "nodes"}, "n1", errors.New("no"))
	run(t, []runtime.Object{node(), pod()}, state(held("cnf-uid")), func(t *testing.T, l *lane) {
		for range 200 {
			time.Sleep(time.Second)
			l.poke()
		}
		tries := len(l.api.take())
		if tries < 6 || tries > 40 {
			t.Errorf("%d tries in 200 s, want some, with backoff", tries)
		}
		for _, text := range []string{"not allowed to write to this node:", "not allowed to write to this node's pods:"} {
			if n := l.logs.count(text); n != 1 {
				t.Errorf("%q is logged %d times, want once", text, n)
			}
		}
		l.api.setDeny(nil)
		time.Sleep(61 * time.Second)
		expect(t, "allowed", l.api.take(), written{Object: "pod/lane/cnf", Body: podBody}, written{Object: "node/n1", Body: nodeBody})
	}, func(l *lane) { l.api.deny = forbidden })
}

func TestMayNotWatch(t *testing.T) {
	run(t, []runtime.Object{node()}, state(), func(t *testing.T, l *lane) {
		time.Sleep(5 * time.Minute)
		expect(t, "blind", l.api.take())
		if n := l.logs.count("not allowed to watch"); n != 1 {
			t.Errorf("what is missing is logged %d times, want once", n)
		}
	}, func(l *lane) {
		l.api.client.PrependReactor("list", "pods", func(clienttesting.Action) (bool, runtime.Object, error) {
			return true, nil, apierrors.NewForbidden(schema.GroupResource{Resource: "pods"}, "", errors.New("no"))
		})
	})
}

func TestKubeletIsNotReadable(t *testing.T) {
	run(t, []runtime.Object{node(), pod()}, state(held("cnf-uid")), func(t *testing.T, l *lane) {
		l.api.take()
		l.source.mu.Lock()
		l.source.err = errors.New("the kubelet is away")
		l.source.mu.Unlock()
		for range 3 {
			l.set(func(s *topology.NodeState) { *s = topology.NodeState{} })
			settle()
		}
		expect(t, "the last good state stands", l.api.take())
		if n := l.logs.count("the kubelet is away"); n != 1 {
			t.Errorf("the fault is logged %d times, want once", n)
		}
	})
}

func TestUnknownNode(t *testing.T) {
	other := node()
	other.Name = "n2"
	run(t, []runtime.Object{other}, state(), func(t *testing.T, l *lane) {
		if n := l.logs.count("is --node-name right?"); n != 1 {
			t.Errorf("said %d times that there is no such Node", n)
		}
		l.api.update(node())
		settle()
		expect(t, "the Node came", l.api.take(), written{Object: "node/n1", Body: nodeBody})
	})
}

func TestWithoutAPI(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &logs{}
		p, err := publish.New(publish.Options{NodeName: "n1", Logger: slog.New(slog.NewTextHandler(l, nil))})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- p.Run(ctx) }()
		synctest.Wait()
		if n := l.count("no Kubernetes API"); n != 1 {
			t.Errorf("said %d times that there is no API", n)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
