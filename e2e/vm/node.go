package vm

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/numalane/numalane/e2e/cluster"
	"github.com/numalane/numalane/e2e/vm/view"
	"github.com/numalane/numalane/hack/lab/disk"
	"github.com/numalane/numalane/hack/lab/machine"
)

//go:embed files
var files embed.FS

// apiService is the API server's service address, which is in its certificate.
// The guest reaches it as any node does, by a rule that a kube-proxy would make.
const apiService = "10.0.0.1"

const nodeName = "vm"

// Options are what a run needs.
type Options struct {
	Bin    string // folder of what cmd/build makes
	Images string // folder of the images' archives
	Deploy string // folder of the manifests
	Cache  string // the lab's
	Share  string // becomes /lab in the guest; keeps logs and captures
	Out    io.Writer
}

// setting is the cluster and its one node.
type setting struct {
	o       Options
	c       *cluster.Cluster
	machine *machine.Machine
	seen    *observer
	slow    float64 // how many times slower the guest's CPUs are than this machine's
	started time.Time
}

func (s *setting) say(format string, args ...any) {
	fmt.Fprintf(s.o.Out, "            %4.0f s  %s\n", time.Since(s.started).Seconds(), fmt.Sprintf(format, args...))
}

// start brings all up, to a node that is ready and the plugin's pod on it.
func (s *setting) start(ctx context.Context) error {
	d, err := disk.Ensure(ctx, s.o.Cache, s.say)
	if err != nil {
		return err
	}
	large := filepath.Join(s.o.Share, "large")
	if err := s.linkLarge(large); err != nil {
		return err
	}
	agent := filepath.Join(s.o.Bin, "vmguest")
	s.say("the machine boots, and the control plane starts")
	booted := make(chan error, 1)
	go func() {
		var err error
		if s.machine, err = machine.New(ctx, machine.Config{Disk: d, Share: s.o.Share, Files: large, Agent: agent, Console: filepath.Join(s.o.Share, "console.log"), Progress: s.say}); err == nil {
			err = s.machine.Boot(ctx)
		}
		booted <- err
	}()
	if err = s.startControlPlane(ctx); err == nil {
		err = errors.Join(s.writeFiles(), s.prepare(ctx))
	}
	if err := errors.Join(err, <-booted); err != nil {
		return err
	}
	s.say("setting up the node: containerd, images, kubelet")
	steps, err := s.guest(ctx, "sh", "/lab/node/setup.sh")
	if err != nil {
		return err
	}
	s.say("set up, by the guest's uptime: %s", strings.ReplaceAll(strings.TrimSpace(steps), "\n", ", "))
	if err := s.nodeReady(ctx); err != nil {
		return err
	}
	s.say("the node is ready")
	if err := s.deploy(ctx); err != nil {
		return err
	}
	if err := s.compare(ctx); err != nil {
		return err
	}
	s.say("the guest's CPUs are %.0f times slower than this machine's: what takes a second at most may take %.0f", s.slow, s.soon().Seconds())
	return s.observe(ctx)
}

func (s *setting) startControlPlane(ctx context.Context) (err error) {
	if s.c, err = cluster.Start(ctx, cluster.Options{Bin: s.o.Bin, Authorization: "RBAC", Progress: s.say}); err != nil {
		return err
	}
	_, extender, err := s.c.StartExtender(ctx)
	if err != nil {
		return err
	}
	if _, err := s.c.StartScheduler(ctx, "numalane-scheduler", filepath.Join(s.o.Deploy, "scheduler-config.yaml"), extender); err != nil {
		return err
	}
	_, err = s.c.StartScheduler(ctx, "default-scheduler", "", "")
	return err
}

// writeFiles puts what the guest needs into the shared folder.
func (s *setting) writeFiles() error {
	to := filepath.Join(s.o.Share, "node")
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	from, err := fs.Sub(files, "files")
	if err != nil {
		return err
	}
	if err := fs.WalkDir(from, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := fs.ReadFile(from, name)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, name), b, 0o644)
	}); err != nil {
		return err
	}
	port := s.c.Config.Host[strings.LastIndex(s.c.Config.Host, ":")+1:]
	for name, rule := range map[string]string{
		"nftables.conf":    "type nat hook output priority -100\n\t\tip daddr %s tcp dport 443 dnat to 10.0.2.2:" + port,
		"unreachable.conf": "type filter hook output priority 0\n\t\tip daddr %s tcp dport 443 reject with tcp reset",
	} {
		rules := fmt.Sprintf("flush ruleset\ntable ip services {\n\tchain output {\n\t\t"+rule+"\n\t}\n}\n", apiService)
		if err := os.WriteFile(filepath.Join(to, name), []byte(rules), 0o644); err != nil {
			return err
		}
	}
	return s.c.WriteKubeconfig(filepath.Join(to, "kubeconfig"), "https://"+apiService, s.c.Config.BearerToken)
}

// linkLarge makes the folder of what the second disk has.
func (s *setting) linkLarge(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, file := range []string{
		filepath.Join(s.o.Bin, "kubelet"), filepath.Join(s.o.Bin, "vmguest"), filepath.Join(s.o.Bin, "numalane-plugin"),
		filepath.Join(s.o.Images, "numalane-plugin.tar"), filepath.Join(s.o.Images, "vmguest.tar"),
	} {
		if err := os.Link(file, filepath.Join(dir, filepath.Base(file))); err != nil {
			return err
		}
	}
	return nil
}

// soon is how long what the plugin does at once may take: a second, and on slower
// CPUs as many times longer, but not more than ten.
func (s *setting) soon() time.Duration {
	return time.Duration(min(max(s.slow, 1), 10) * float64(time.Second))
}

// compare measures how much slower the guest's CPUs are than this machine's.
func (s *setting) compare(ctx context.Context) error {
	out, err := s.guest(ctx, "/lab/agent", "work")
	if err != nil {
		return err
	}
	there, err := time.ParseDuration(strings.TrimSpace(out))
	if err != nil {
		return err
	}
	here, err := view.Work()
	s.slow = float64(there) / float64(here)
	return err
}

func (s *setting) nodeReady(ctx context.Context) error {
	return cluster.Wait(ctx, 4*time.Minute, "the node to be ready", func(ctx context.Context) error {
		node, err := s.node(ctx)
		if err != nil {
			return err
		}
		return cluster.IsReady(node)
	})
}

// prepare applies the manifests of the plugin as they are, and pools of this
// machine; deploy then has its pod made, and waits until it is ready.
func (s *setting) prepare(ctx context.Context) error {
	for _, args := range [][]string{
		{"apply", "-f", filepath.Join(s.o.Deploy, "namespace.yaml")},
		{"apply", "-k", filepath.Join(s.o.Deploy, "plugin-rbac")},
		{"-n", "numalane", "create", "configmap", "numalane-plugin", "--from-file=config.json=" + filepath.Join(s.o.Share, "node", "pools.yaml")},
	} {
		if err := s.c.Kubectl(ctx, args...); err != nil {
			return err
		}
	}
	return nil
}

func (s *setting) deploy(ctx context.Context) error {
	if err := s.c.Kubectl(ctx, "apply", "-f", filepath.Join(s.o.Deploy, "daemonset.yaml")); err != nil {
		return err
	}
	if err := s.pluginReady(ctx, ""); err != nil {
		return err
	}
	s.say("the plugin's pod is ready")
	return nil
}

// pluginReady waits until a plugin's container other than the given one is ready.
func (s *setting) pluginReady(ctx context.Context, notContainer string) error {
	return cluster.Wait(ctx, 4*time.Minute, "the plugin's pod to be ready", func(ctx context.Context) error {
		list, err := s.c.Client.CoreV1().Pods("numalane").List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		for _, p := range list.Items {
			for _, c := range p.Status.ContainerStatuses {
				if c.Ready && c.ContainerID != notContainer {
					return nil
				}
			}
		}
		return fmt.Errorf("%d pods, none ready", len(list.Items))
	})
}

func (s *setting) node(ctx context.Context) (*corev1.Node, error) {
	return s.c.Client.CoreV1().Nodes().Get(ctx, nodeName, metav1.GetOptions{})
}

// guest runs a program in the guest.
func (s *setting) guest(ctx context.Context, args ...string) (string, error) {
	return s.machine.Guest().Output(ctx, args...)
}

// sh runs shell commands in the guest.
func (s *setting) sh(ctx context.Context, script string) (string, error) {
	out, err := s.guest(ctx, "sh", "-euc", script)
	return strings.TrimSpace(out), err
}

// end ends everything. It brings out the logs of the control plane and the
// guest's journal; of a run that failed also the pods' logs, and the journal as
// text, which takes the guest some seconds.
func (s *setting) end(ctx context.Context, failed bool) error {
	var all error
	if s.seen != nil {
		s.seen.stop()
	}
	if s.machine != nil {
		if s.machine.Guest().URL != "" {
			script := "cp -r /run/log/journal /lab/"
			if failed {
				script = "journalctl --no-pager -o short-precise >/lab/journal.log; cp -r /var/log/pods /lab/ 2>/dev/null || :"
			}
			_, err := s.sh(ctx, script)
			all = errors.Join(all, err)
		}
		all = errors.Join(all, s.machine.Close())
	}
	if s.c != nil {
		for _, p := range s.c.Processes() {
			b, err := os.ReadFile(p.Log)
			if err == nil {
				err = os.WriteFile(filepath.Join(s.o.Share, p.Name+".log"), b, 0o644)
			}
			all = errors.Join(all, err)
		}
		all = errors.Join(all, s.c.Stop())
	}
	return all
}
