package ledger_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	k8swatch "k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/numalane/numalane/internal/ledger"
)

// TestForbiddenWatch: an extender that may not see all is not ready, says what
// it may not and says it in the log once; and is ready once it may.
func TestForbiddenWatch(t *testing.T) {
	for _, tt := range []struct{ verb, resource string }{{"list", "nodes"}, {"list", "pods"}, {"watch", "nodes"}, {"watch", "pods"}} {
		t.Run(tt.verb+" "+tt.resource, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var forbidden atomic.Bool
				forbidden.Store(true)
				client := fake.NewClientset(two.node(t, "n1"))
				denied := apierrors.NewForbidden(v1.Resource(tt.resource), "", errors.New(`User "x" cannot `+tt.verb+` resource "`+tt.resource+`" in API group "" at the cluster scope`))
				if tt.verb == "list" {
					client.PrependReactor("list", tt.resource, func(clienttesting.Action) (bool, runtime.Object, error) {
						return forbidden.Load(), nil, denied
					})
				}
				// client-go may ask for the list with a watch.
				client.PrependWatchReactor(tt.resource, func(clienttesting.Action) (bool, k8swatch.Interface, error) {
					return forbidden.Load(), nil, denied
				})
				log := &lockedBuffer{}
				l, err := ledger.New(client, ledger.Policy{}, slog.New(slog.NewTextHandler(log, nil)), prometheus.NewRegistry())
				if err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan error, 1)
				go func() { done <- l.Run(ctx) }()
				time.Sleep(5 * time.Minute)
				synctest.Wait()
				want := `User "x" cannot ` + tt.verb + ` resource "` + tt.resource + `"`
				if err := l.Ready(); err == nil || !strings.Contains(err.Error(), "watch "+tt.resource+": ") || !strings.Contains(err.Error(), want) {
					t.Errorf("not ready because of %v, want %q", err, want)
				}
				if n := strings.Count(log.String(), `msg="cannot watch;`); n != 1 {
					t.Errorf("the log says it %d times:\n%s", n, log)
				}
				forbidden.Store(false)
				time.Sleep(3 * time.Minute)
				synctest.Wait()
				if err := l.Ready(); err != nil {
					t.Errorf("allowed by now: %v", err)
				}
				cancel()
				if err := <-done; err != nil {
					t.Error(err)
				}
			})
		})
	}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
