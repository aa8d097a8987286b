package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/numalane/numalane/e2e/cluster"
	"github.com/numalane/numalane/internal/sysfstest"
)

// TestAdmissionToPublished prints how long it takes from the kubelet's write of
// its checkpoint, seen by its modification time, until a watcher has the pod's
// annotation; one pod at a time, and in a burst. The pods are bound by the test,
// so that nothing else uses the machine's two cores.
//
// The figures: make test-lane, or go test -run AdmissionToPublished -v .
func TestAdmissionToPublished(t *testing.T) {
	c := control(t)
	listen := address(t)
	n := node(t, c, "n1", sysfstest.Uniform(2, 24, 1, sysfstest.X710("0000:3b:00.0", 0, 32), sysfstest.X710("0000:af:00.0", 1, 32)), 64, "--listen", listen)
	published(t, c, n.Name)
	w := watchAcknowledgements(t, c)
	admitted := watchCheckpoint(t, n)

	const each = 20
	var single []time.Duration
	for i := range each {
		name := fmt.Sprintf("one-%02d", i)
		bindTo(t, c, n, pod(name, 1, 1))
		at := w.wait(t, name)
		single = append(single, at.Sub(admitted.of(t, w.uid(name))))
	}
	report(t, "one at a time", single)

	var wg sync.WaitGroup
	for i := range each {
		wg.Go(func() { bindTo(t, c, n, pod(fmt.Sprintf("burst-%02d", i), 1, 1)) })
	}
	wg.Wait()
	var burst []time.Duration
	for i := range each {
		name := fmt.Sprintf("burst-%02d", i)
		at := w.wait(t, name)
		burst = append(burst, at.Sub(admitted.of(t, w.uid(name))))
	}
	report(t, fmt.Sprintf("a burst of %d", each), burst)
	for _, line := range strings.Split(metricsOf(t, listen), "\n") {
		if strings.HasPrefix(line, "numalane_plugin_") && !strings.Contains(line, "_bucket") {
			t.Log(line)
		}
	}
}

func report(t *testing.T, what string, took []time.Duration) {
	t.Helper()
	slices.Sort(took)
	at := func(q float64) time.Duration { return took[int(q*float64(len(took)-1))].Round(100 * time.Microsecond) }
	t.Logf("admission to published, %s: median %s, 95%% %s, longest %s", what, at(.5), at(.95), at(1))
}

// control is a control plane without a scheduler.
func control(t *testing.T) *cluster.Cluster {
	t.Helper()
	c, err := cluster.Start(t.Context(), cluster.Options{Bin: bin(t), Progress: t.Logf})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			for _, p := range c.Processes() {
				t.Logf("the end of the log of %s:\n%s", p.Name, p.Tail())
			}
		}
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// bindTo creates a pod that no scheduler sees.
func bindTo(t *testing.T, c *cluster.Cluster, n *cluster.Node, p *corev1.Pod) {
	t.Helper()
	p.Spec.NodeName = n.Name
	if _, err := c.Client.CoreV1().Pods(p.Namespace).Create(t.Context(), p, metav1.CreateOptions{}); err != nil {
		t.Error(err)
	}
}

// acknowledgements notes when pods were seen to be acknowledged.
type acknowledgements struct {
	mu   sync.Mutex
	seen map[string]time.Time // by name
	uids map[string]string
}

func watchAcknowledgements(t *testing.T, c *cluster.Cluster) *acknowledgements {
	t.Helper()
	a := &acknowledgements{seen: map[string]time.Time{}, uids: map[string]string{}}
	ctx, cancel := context.WithCancel(t.Context())
	w, err := c.Client.CoreV1().Pods("default").Watch(ctx, metav1.ListOptions{FieldSelector: fields.Everything().String()})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for e := range w.ResultChan() {
			p, ok := e.Object.(*corev1.Pod)
			if !ok || e.Type == watch.Deleted {
				continue
			}
			a.mu.Lock()
			a.uids[p.Name] = string(p.UID)
			if _, known := a.seen[p.Name]; !known && acknowledged(p) {
				a.seen[p.Name] = time.Now()
			}
			a.mu.Unlock()
		}
	}()
	t.Cleanup(func() { cancel(); w.Stop(); <-done })
	return a
}

func (a *acknowledgements) wait(t *testing.T, name string) (at time.Time) {
	t.Helper()
	if err := cluster.Wait(t.Context(), time.Minute, name+" to be acknowledged", func(context.Context) error {
		a.mu.Lock()
		defer a.mu.Unlock()
		var ok bool
		if at, ok = a.seen[name]; !ok {
			return fmt.Errorf("it is not")
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return at
}

func (a *acknowledgements) uid(name string) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.uids[name]
}

// admissions notes when each pod was first in the kubelet's checkpoint.
type admissions struct {
	mu    sync.Mutex
	first map[string]time.Time // by UID
}

// watchCheckpoint looks at the checkpoint all the time: what the plugin takes to
// see a change is to be in the figure.
func watchCheckpoint(t *testing.T, n *cluster.Node) *admissions {
	t.Helper()
	a := &admissions{first: map[string]time.Time{}}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		file := filepath.Join(n.DevicePluginDir(), "kubelet_internal_checkpoint")
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		var last time.Time
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			info, err := os.Stat(file)
			if err != nil || info.ModTime().Equal(last) {
				continue
			}
			b, err := os.ReadFile(file)
			if err != nil {
				continue
			}
			last = info.ModTime()
			a.mu.Lock()
			for _, part := range strings.Split(string(b), `"PodUID":"`)[1:] {
				uid, _, _ := strings.Cut(part, `"`)
				if _, known := a.first[uid]; !known {
					a.first[uid] = last
				}
			}
			a.mu.Unlock()
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
	return a
}

func (a *admissions) of(t *testing.T, uid string) time.Time {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	at, ok := a.first[uid]
	if !ok {
		t.Fatalf("pod %s was never seen in the checkpoint", uid)
	}
	return at
}

// address is one of the loopback that was free a moment ago.
func address(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func metricsOf(t *testing.T, addr string) string {
	t.Helper()
	text, err := scrape(t.Context(), addr)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func scrape(ctx context.Context, addr string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/metrics", nil)
	if err != nil {
		return "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("metrics: %s", resp.Status)
	}
	return string(b), err
}
