package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	cadvisorapi "github.com/google/cadvisor/lib/model"
	"github.com/spf13/cobra"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/cmd/kubelet/app"
	"k8s.io/kubernetes/cmd/kubelet/app/options"
	"k8s.io/kubernetes/pkg/kubelet/cadvisor"
	cadvisortest "k8s.io/kubernetes/pkg/kubelet/cadvisor/testing"
	"k8s.io/kubernetes/pkg/kubelet/kubeletconfig/configfiles"
	utilfs "k8s.io/kubernetes/pkg/util/filesystem"
	"k8s.io/kubernetes/pkg/util/oom"

	"github.com/numalane/numalane/internal/sysfstest"
)

type kubeletOptions struct {
	root, name, kubeconfig, config, machine string
	verbosity                               int
}

func newKubeletCommand() *cobra.Command {
	var o kubeletOptions
	cmd := &cobra.Command{
		Use:   "kubelet",
		Short: "Run the real kubelet on a machine that a file describes",
		Long: `kubelet runs k8s.io/kubernetes/cmd/kubelet/app with three parts replaced: the
machine, which cAdvisor reports, the containers' runtime, and the OOM adjuster.
Everything that decides an admission is the kubelet's own.

It must be started in a mount namespace of its own, with kernel settings that it
has no reason to change: it is told to fail rather than to write them. Outside
its own folder it can write no file. Paths must be absolute.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runKubelet(cmd.Context(), o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.root, "root", "", "the node's folder: kubelet/, dp/ and runtime.sock are in it")
	f.StringVar(&o.name, "name", "", "name of the Node")
	f.StringVar(&o.kubeconfig, "kubeconfig", "", "how to reach the API")
	f.StringVar(&o.config, "config", "", "KubeletConfiguration file")
	f.StringVar(&o.machine, "machine", "", "the machine, a sysfstest.Machine as JSON")
	f.IntVar(&o.verbosity, "v", 0, "how much the kubelet logs; 2 tells of every pod that comes and goes")
	return cmd
}

func runKubelet(ctx context.Context, o kubeletOptions) error {
	debug.SetGCPercent(50) // several of these share a machine
	var level klog.Level
	if err := level.Set(fmt.Sprint(o.verbosity)); err != nil {
		return fmt.Errorf("verbosity: %w", err)
	}
	machine, err := readMachine(o.machine, o.name)
	if err != nil {
		return err
	}
	if err := seal(o.root); err != nil {
		return fmt.Errorf("seal the host off: %w", err)
	}
	s, err := server(o)
	if err != nil {
		return err
	}
	deps, err := app.UnsecuredDependencies(ctx, s, utilfeature.DefaultFeatureGate)
	if err != nil {
		return fmt.Errorf("kubelet dependencies: %w", err)
	}
	deps.CAdvisorInterface = &machineReader{Fake: cadvisortest.Fake{NodeName: o.name}, machine: machine}
	deps.OOMAdjuster = oom.NewFakeOOMAdjuster()
	return app.Run(ctx, s, deps, utilfeature.DefaultFeatureGate)
}

// server is the kubelet's flags and configuration.
func server(o kubeletOptions) (*options.KubeletServer, error) {
	flags := options.NewKubeletFlags()
	flags.RootDirectory = filepath.Join(o.root, "kubelet")
	flags.CertDirectory = filepath.Join(o.root, "pki")
	flags.HostnameOverride = o.name
	flags.KubeConfig = o.kubeconfig
	loader, err := configfiles.NewFsLoader(&utilfs.DefaultFs{}, o.config)
	if err != nil {
		return nil, fmt.Errorf("kubelet configuration: %w", err)
	}
	config, err := loader.Load(context.Background())
	if err != nil {
		return nil, fmt.Errorf("kubelet configuration: %w", err)
	}
	if config.EvictionHard == nil {
		config.EvictionHard = map[string]string{}
	}
	if !config.ProtectKernelDefaults {
		return nil, fmt.Errorf("kubelet configuration %s: protectKernelDefaults must be true, or the kubelet writes the host's sysctls", o.config)
	}
	if err := utilfeature.DefaultMutableFeatureGate.SetFromMap(config.FeatureGates); err != nil {
		return nil, fmt.Errorf("feature gates: %w", err)
	}
	return &options.KubeletServer{KubeletFlags: *flags, KubeletConfiguration: *config}, nil
}

// machineReader is a cAdvisor that reports one machine.
type machineReader struct {
	cadvisortest.Fake
	machine *cadvisorapi.MachineInfo
}

var _ cadvisor.Interface = (*machineReader)(nil)

func (c *machineReader) MachineInfo(klog.Logger) (*cadvisorapi.MachineInfo, error) {
	return c.machine, nil
}

func (c *machineReader) ImagesFsInfo(context.Context) (cadvisorapi.FsInfo, error) { return disk(), nil }

func (c *machineReader) RootFsInfo() (cadvisorapi.FsInfo, error) { return disk(), nil }

func (c *machineReader) GetDirFsInfo(string) (cadvisorapi.FsInfo, error) { return disk(), nil }

func (c *machineReader) ContainerFsInfo(context.Context) (cadvisorapi.FsInfo, error) {
	return disk(), nil
}

// disk is large and empty, so that no kubelet evicts for its sake.
func disk() cadvisorapi.FsInfo {
	inodes := uint64(1 << 20)
	return cadvisorapi.FsInfo{Timestamp: time.Now(), Device: "none", Capacity: 100 << 30, Available: 90 << 30, Usage: 10 << 30, Inodes: &inodes, InodesFree: &inodes}
}

func readMachine(path, name string) (*cadvisorapi.MachineInfo, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read machine: %w", err)
	}
	var m sysfstest.Machine
	if err := json.Unmarshal(b, &m); err != nil {
		return nil, fmt.Errorf("read machine %s: %w", path, err)
	}
	return machineInfo(m, name), nil
}

// machineInfo is the machine as cAdvisor would report it from its sysfs:
// offline CPUs are not in it, and distances are by position.
func machineInfo(m sysfstest.Machine, name string) *cadvisorapi.MachineInfo {
	mi := &cadvisorapi.MachineInfo{MachineID: name, SystemUUID: name, BootID: name}
	sockets := map[int]bool{}
	threads := map[int][]int{}
	for _, c := range m.CPUs() {
		if c.Online {
			threads[c.Core] = append(threads[c.Core], c.ID)
			mi.NumCores++
		}
	}
	for _, n := range m.NUMANodes {
		node := cadvisorapi.Node{Id: n.ID, Memory: n.Memory}
		for _, h := range n.Hugepages {
			node.HugePages = append(node.HugePages, cadvisorapi.HugePagesInfo{PageSize: h.Size >> 10, NumPages: uint64(h.Total)})
		}
		for _, other := range m.NUMANodes {
			node.Distances = append(node.Distances, uint64(m.Distance(n, other)))
		}
		mi.MemoryCapacity += n.Memory
		for _, c := range m.CPUs() {
			if c.NUMANode != n.ID || c.ID != c.Core || !c.Online {
				continue
			}
			node.Cores = append(node.Cores, cadvisorapi.Core{
				Id: c.CoreID, SocketID: c.Socket, Threads: threads[c.Core],
				UncoreCaches: []cadvisorapi.Cache{{Id: c.L3, Size: 32 << 20, Type: "Unified", Level: 3}},
			})
			mi.NumPhysicalCores++
			sockets[c.Socket] = true
		}
		mi.Topology = append(mi.Topology, node)
	}
	mi.NumSockets = len(sockets)
	return mi
}
