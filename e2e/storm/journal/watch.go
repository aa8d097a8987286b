package journal

import (
	"bytes"
	"context"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/scheme"
)

// Where the API server keeps them (storage prefix /registry; Nodes are minions).
const (
	registry = "/registry/"
	pods     = registry + "pods/"
	nodes    = registry + "minions/"
)

// Watch writes down what becomes of Nodes and Pods until ctx ends. It asks the
// API server's etcd: a watch of the API breaks when the API server is killed,
// and what then happens comes late, out of order or not at all. Here each
// version of each object comes, in order and at once.
func (j *Journal) Watch(ctx context.Context, etcd string) (wait func() error, err error) {
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{etcd}, DialTimeout: 10 * time.Second})
	if err != nil {
		return nil, fmt.Errorf("connect to etcd: %w", err)
	}
	start, err := client.Get(ctx, registry, clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil {
		return nil, fmt.Errorf("read etcd's revision: %w", err)
	}
	// One watch: then Nodes and Pods are in one order.
	ch := client.Watch(ctx, registry, clientv3.WithPrefix(), clientv3.WithPrevKV(), clientv3.WithRev(start.Header.Revision+1))
	done := make(chan error, 1)
	go func() {
		defer client.Close()
		done <- j.follow(ctx, ch)
	}()
	return func() error { return <-done }, nil
}

func (j *Journal) follow(ctx context.Context, ch clientv3.WatchChan) error {
	for resp := range ch {
		if err := resp.Err(); err != nil && ctx.Err() == nil {
			return fmt.Errorf("watch etcd: %w", err)
		}
		for _, e := range resp.Events {
			if err := j.take(e); err != nil {
				return fmt.Errorf("read %s of etcd: %w", e.Kv.Key, err)
			}
		}
	}
	return nil
}

func (j *Journal) take(e *clientv3.Event) error {
	value := e.Kv.Value
	gone := e.Type == clientv3.EventTypeDelete
	if gone {
		if e.PrevKv == nil {
			return nil
		}
		value = e.PrevKv.Value
	}
	switch {
	case bytes.HasPrefix(e.Kv.Key, []byte(pods)):
		p, err := decode[*corev1.Pod](value, e.Kv.ModRevision)
		switch {
		case err != nil:
			return err
		case gone:
			j.Lose(p)
		default:
			j.See(p)
		}
	case bytes.HasPrefix(e.Kv.Key, []byte(nodes)) && !gone:
		n, err := decode[*corev1.Node](value, e.Kv.ModRevision)
		if err != nil {
			return err
		}
		j.SeeNode(n)
	}
	return nil
}

// decode reads an object as it is stored. Its resource version is the revision
// by which it was written, or removed.
func decode[T interface {
	runtime.Object
	metav1.Object
}](value []byte, revision int64) (T, error) {
	var none T
	obj, _, err := scheme.Codecs.UniversalDeserializer().Decode(value, nil, nil)
	if err != nil {
		return none, err
	}
	o, ok := obj.(T)
	if !ok {
		return none, fmt.Errorf("%T is not what it should be", obj)
	}
	o.SetResourceVersion(fmt.Sprint(revision))
	o.SetManagedFields(nil)
	return o, nil
}
