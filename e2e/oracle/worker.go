package oracle

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/numalane/numalane/e2e/kubelets/wire/client"
)

// lifetime is how many scenarios a kubelet's process lives through: its
// managers were made to live once a process, and leave goroutines behind.
const lifetime = 200

// worker lives scenarios one after the other. One goroutine at a time.
type worker struct {
	binaries string
	dir      string // its own, on a tmpfs where there is one

	kubelets map[int]*client.Kubelet // by minor version
	lives    map[int]int             // scenarios that each has lived
	tree     *tree
	trees    int
	nodes    int
	stale    string // folder of the node before, which its kubelet may still hold
}

func newWorker(binaries, dir string) *worker {
	return &worker{binaries: binaries, dir: dir, kubelets: map[int]*client.Kubelet{}, lives: map[int]int{}}
}

// newDir makes a folder for files that are short-lived and many. Its name is
// short, for the sockets in it.
func newDir() (string, error) {
	for _, parent := range []string{"/dev/shm", ""} {
		if dir, err := os.MkdirTemp(parent, "oracle-"); err == nil {
			return dir, nil
		}
	}
	return "", fmt.Errorf("no folder for the kubelets: neither /dev/shm nor %s takes one", os.TempDir())
}

// live lives a scenario by a source of steps, and returns those that were taken.
func (w *worker) live(ctx context.Context, s *Scenario, src source, most int, watch watcher) (steps []Step, err error) {
	if err := w.prepareTree(s); err != nil {
		return nil, err
	}
	m, err := w.kubelet(s.Minor)
	if err != nil {
		return nil, err
	}
	w.nodes++
	dir := filepath.Join(w.dir, fmt.Sprintf("n%d", w.nodes))
	n, err := startNode(ctx, m, w.tree, s, dir)
	errStale := os.RemoveAll(w.stale)
	w.stale = dir
	if err != nil {
		return nil, err
	}
	steps, err = n.drive(ctx, src, most, watch)
	return steps, errors.Join(err, n.close(), errStale)
}

// prepareTree keeps the tree of the scenario before if the machine is the same.
func (w *worker) prepareTree(s *Scenario) error {
	if w.tree != nil && w.tree.fits(s) {
		return w.tree.restore()
	}
	if w.tree != nil {
		if err := os.RemoveAll(w.tree.root); err != nil {
			return err
		}
		w.tree = nil
	}
	w.trees++
	root := filepath.Join(w.dir, fmt.Sprintf("t%d", w.trees))
	t, err := writeTree(root, s)
	if err != nil {
		return errors.Join(err, os.RemoveAll(root))
	}
	w.tree = t
	return nil
}

// kubelet is the process of this version, a new one when it is time.
func (w *worker) kubelet(minor int) (*client.Kubelet, error) {
	if m := w.kubelets[minor]; m != nil {
		if !m.Ended() && w.lives[minor] < lifetime {
			w.lives[minor]++
			return m, nil
		}
		m.Kill()
	}
	m, err := client.Start(w.binaries, minor, &tail{most: 16 << 10})
	if err != nil {
		return nil, err
	}
	w.kubelets[minor], w.lives[minor] = m, 1
	return m, nil
}

// close ends the processes and removes what there is of the scenarios.
func (w *worker) close() error {
	for _, m := range w.kubelets {
		m.Kill()
	}
	return os.RemoveAll(w.dir)
}
