package fleet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/numalane/numalane/e2e/cluster"
)

const mostRestart = 90 * time.Second

// Restart starts the node's kubelet or plugin again, and waits until it is up:
// until the plugin is registered, and the kubelet knows its pods.
//
// A kubelet that has just started takes nothing back from pods that ended while
// it was down before it has met all pods that it has: until then its sources are
// not ready, and its managers leave their states as they read them
// (cpumanager.removeStaleState, devicemanager.UpdateAllocatedDevices). It meets
// them in one batch, and may refuse a pod of that batch for what a dead one held.
func (m *Member) Restart(ctx context.Context, p *cluster.Process) error {
	p.Kill()
	var since int64 // where the new life begins in the log
	if p == m.Live.Kubelet {
		info, err := os.Stat(p.Log)
		if err != nil {
			return fmt.Errorf("restart the kubelet of %s: %w", m.Name, err)
		}
		since = info.Size()
	}
	if err := p.Restart(ctx); err != nil {
		return err
	}
	return cluster.Wait(ctx, mostRestart, m.Name+" to be up", func(ctx context.Context) error {
		if p == m.Live.Kubelet {
			if hasEnded(p) {
				return m.revive(ctx, p)
			}
			if err := knowsPods(p.Log, since); err != nil {
				return err
			}
		}
		return m.Registered(ctx)
	})
}

func hasEnded(p *cluster.Process) bool {
	select {
	case <-p.Ended():
		return true
	default:
		return false
	}
}

// torn is what a kubelet says that will not start: it was killed between two
// writes of its CPU manager's state (policy_static.go, validateState), or of its
// memory manager's. What it says next is what an operator has to do.
const torn = "please drain node and remove policy state file"

// revive does that. Whatever else ends a kubelet is an error.
func (m *Member) revive(ctx context.Context, p *cluster.Process) error {
	text, err := os.ReadFile(p.Log)
	if err != nil {
		return fmt.Errorf("read what the kubelet of %s logs: %w", m.Name, err)
	}
	if tail := text[max(0, len(text)-4096):]; !bytes.Contains(tail, []byte(torn)) {
		return fmt.Errorf("the kubelet of %s has ended: %s", m.Name, p.Tail())
	}
	pods, err := m.client.CoreV1().Pods(metav1.NamespaceAll).List(ctx, metav1.ListOptions{FieldSelector: "spec.nodeName=" + m.Name})
	if err != nil {
		return fmt.Errorf("drain %s: %w", m.Name, err)
	}
	none := int64(0)
	for i := range pods.Items {
		if err := m.client.CoreV1().Pods(pods.Items[i].Namespace).Delete(ctx, pods.Items[i].Name, metav1.DeleteOptions{GracePeriodSeconds: &none}); err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("drain %s: %w", m.Name, err)
		}
	}
	for _, file := range []string{"cpu_manager_state", "memory_manager_state"} {
		if err := os.Remove(filepath.Join(m.Live.KubeletDir(), file)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("drain %s: %w", m.Name, err)
		}
	}
	if err := p.Restart(ctx); err != nil {
		return err
	}
	return fmt.Errorf("the kubelet of %s would not start over what its killing left torn; its node was drained", m.Name)
}

// met is what a kubelet logs (at level 2) when it turns to new pods of the API:
// first to all that it has, even if there are none. One thread does that
// (kubelet.syncLoopIteration), so a pod that was bound later is met when these
// are done with.
const met = `"SyncLoop ADD" source="api"`

// knowsPods tells whether a kubelet whose life begins at an offset of its log has
// turned to the pods that it has.
func knowsPods(log string, since int64) error {
	f, err := os.Open(log)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Size() < since {
		since = 0 // it was begun anew
	}
	text, err := io.ReadAll(io.NewSectionReader(f, since, info.Size()-since))
	if err != nil {
		return fmt.Errorf("read what the kubelet logs: %w", err)
	}
	if !bytes.Contains(text, []byte(met)) {
		return fmt.Errorf("the kubelet has not looked at its pods yet (%s)", log)
	}
	return nil
}
