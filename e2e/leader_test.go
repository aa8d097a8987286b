package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	extenderv1 "k8s.io/kube-scheduler/extender/v1"

	"github.com/numalane/numalane/e2e/cluster"
	"github.com/numalane/numalane/internal/sysfstest"
)

// replica is an extender, and in one shape the kube-scheduler of its pod.
type replica struct {
	host          string
	scheduler     *cluster.Process
	extender      *cluster.Process
	verbs, health string
}

func (r *replica) leads(ctx context.Context) error {
	got, err := metric(ctx, r.health, "numalane_extender_leading")
	if err == nil && got != 1 {
		err = fmt.Errorf("the extender of %s does not lead", r.host)
	}
	return err
}

// startShape brings up a control plane, the namespace of the leases and a node
// with room for 14 pods of a CPU and a VF.
func startShape(t *testing.T) *cluster.Cluster {
	t.Helper()
	c := bare(t, cluster.Options{})
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "numalane"}}
	if _, err := c.Client.CoreV1().Namespaces().Create(t.Context(), ns, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	node(t, c, "n1", sysfstest.Uniform(2, 8, 1, sysfstest.X710("0000:3b:00.0", 0, 7), sysfstest.X710("0000:af:00.0", 1, 7)), 14)
	return c
}

// batch creates pods and waits for all to run: none may be refused.
func batch(t *testing.T, c *cluster.Cluster, prefix string, n int) {
	t.Helper()
	createBatch(t, c, prefix, n)
	awaitBatch(t, c, prefix, n)
}

func createBatch(t *testing.T, c *cluster.Cluster, prefix string, n int) {
	t.Helper()
	for i := range n {
		create(t, c, pod(fmt.Sprintf("%s-%d", prefix, i), 1, 1))
	}
}

func awaitBatch(t *testing.T, c *cluster.Cluster, prefix string, n int) {
	t.Helper()
	for i := range n {
		p := until(t, c, fmt.Sprintf("%s-%d", prefix, i), "running or refused", func(p *corev1.Pod) bool {
			return running(p) || p.Status.Phase == corev1.PodFailed
		})
		if !running(p) {
			t.Errorf("the kubelet refused %s: %s %s", p.Name, p.Status.Reason, p.Status.Message)
		}
	}
}

// leading waits for one replica to lead, and returns it and the others.
func leading(t *testing.T, rs ...*replica) (leader *replica, others []*replica) {
	t.Helper()
	began := time.Now()
	if err := cluster.Wait(t.Context(), time.Minute, "one extender to lead", func(ctx context.Context) error {
		leader, others = nil, nil
		for _, r := range rs {
			if r.leads(ctx) == nil {
				if leader != nil {
					t.Fatalf("%s and %s lead", leader.host, r.host)
				}
				leader = r
			} else {
				others = append(others, r)
			}
		}
		if leader == nil {
			return errors.New("none does")
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	t.Logf("%s leads after %s", leader.host, time.Since(began).Round(time.Millisecond))
	return leader, others
}

// refusal is what an extender says to a binding.
func refusal(t *testing.T, client *http.Client, verbs string) string {
	t.Helper()
	body, err := json.Marshal(extenderv1.ExtenderBindingArgs{PodName: "x", PodNamespace: "default", PodUID: "x", Node: "n1"})
	if err != nil {
		t.Fatal(err)
	}
	r, err := client.Post(verbs+"/bind", "application/json", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	var out extenderv1.ExtenderBindingResult
	if err := json.NewDecoder(r.Body).Decode(&out); err != nil {
		t.Fatal(err)
	}
	return out.Error
}

// TestBeside: two pods of a kube-scheduler and its extender. What leads is
// killed, first the kube-scheduler alone and then the whole pod; the other takes
// over, an extender without its kube-scheduler binds no more, and no pod is lost.
func TestBeside(t *testing.T) {
	c := startShape(t)
	pair := func(host string) *replica {
		r := &replica{host: host}
		var err error
		if r.extender, r.verbs, r.health, err = c.StartExtenderCandidate(t.Context(), cluster.Candidate{Name: "extender-" + host, Host: host}, "--scheduler-lease=numalane/numalane-scheduler"); err != nil {
			t.Fatal(err)
		}
		r.scheduler = besideScheduler(t, c, host, r.verbs)
		return r
	}
	a, b := pair("pod-a"), pair("pod-b")
	leader, others := leading(t, a, b)
	batch(t, c, "first", 4)
	if got := refusal(t, http.DefaultClient, "http://"+others[0].verbs); !strings.Contains(got, "not leading") {
		t.Errorf("a follower answers a binding with %q", got)
	}

	leader.scheduler.Kill()
	createBatch(t, c, "second", 4)
	next, _ := leading(t, others...)
	awaitBatch(t, c, "second", 4)
	if got := refusal(t, http.DefaultClient, "http://"+leader.verbs); !strings.Contains(got, "not leading") {
		t.Errorf("an extender whose kube-scheduler has died answers a binding with %q", got)
	}

	// The pod's kube-scheduler comes back, and the other pod goes as a whole.
	leader.scheduler = besideScheduler(t, c, leader.host, leader.verbs)
	next.extender.Kill()
	next.scheduler.Kill()
	createBatch(t, c, "third", 4)
	leading(t, leader)
	awaitBatch(t, c, "third", 4)
}

func besideScheduler(t *testing.T, c *cluster.Cluster, host, verbs string) *cluster.Process {
	t.Helper()
	p, err := c.StartCandidate(t.Context(), cluster.Candidate{Name: "scheduler-" + host, Host: host},
		filepath.Join("..", "deploy", "scheduler-config.yaml"), "http://"+verbs, nil)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestBehindService: two extenders of which one is ready, and a relay that
// stands for the Service; TLS with certificates on both sides. The leader is killed, and later another is stopped.
func TestBehindService(t *testing.T) {
	c := startShape(t)
	service, certs := relay(t), newCertificates(t, "numalane-extender.numalane.svc")
	one := func(host string) *replica {
		r := &replica{host: host}
		var err error
		if r.extender, r.verbs, r.health, err = c.StartExtenderCandidate(t.Context(), cluster.Candidate{Name: "extender-" + host, Host: host}, append(certs.flags(), "--leader-elect", "--leader-elect-lease-duration=6s")...); err != nil {
			t.Fatal(err)
		}
		return r
	}
	a, b := one("pod-a"), one("pod-b")
	both := []*replica{a, b}
	service.backends.Store(&both)
	if _, err := c.StartCandidate(t.Context(), cluster.Candidate{Name: "scheduler"},
		filepath.Join("..", "deploy", "service", "scheduler-config.yaml"), "https://"+service.addr, certs.toScheduler); err != nil {
		t.Fatal(err)
	}
	leader, others := leading(t, a, b)
	batch(t, c, "first", 4)
	if got := refusal(t, certs.client(t), "https://"+others[0].verbs); !strings.Contains(got, "not leading") {
		t.Errorf("a follower answers a binding with %q", got)
	}

	leader.extender.Kill()
	createBatch(t, c, "second", 4)
	leading(t, others...)
	awaitBatch(t, c, "second", 4)

	three := one("pod-c")
	both = []*replica{others[0], three}
	service.backends.Store(&both)
	createBatch(t, c, "third", 4)
	began := time.Now()
	others[0].extender.Stop()
	leading(t, three)
	t.Logf("the lease was handed over within %s", time.Since(began).Round(time.Millisecond))
	awaitBatch(t, c, "third", 4)
}

// service is a TCP relay to whichever replica is ready, as kube-proxy is.
type service struct {
	addr     string
	backends atomic.Pointer[[]*replica]
}

func relay(t *testing.T) *service {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	s := &service{addr: l.Addr().String()}
	s.backends.Store(&[]*replica{})
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			go s.pass(in)
		}
	}()
	return s
}

func (s *service) pass(in net.Conn) {
	defer in.Close()
	for _, r := range *s.backends.Load() {
		ready, err := http.Get("http://" + r.health + "/readyz")
		if err != nil {
			continue
		}
		ready.Body.Close()
		if ready.StatusCode != http.StatusOK {
			continue
		}
		out, err := net.Dial("tcp", r.verbs)
		if err != nil {
			continue
		}
		defer out.Close()
		go func() {
			io.Copy(out, in)
			out.(*net.TCPConn).CloseWrite()
		}()
		io.Copy(in, out)
		return
	}
}
