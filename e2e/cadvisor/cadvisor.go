// Package cadvisor reads a sysfs tree as a kubelet does.
//
// In flows a tree, such as internal/sysfstest writes. Out flows the MachineInfo
// that cAdvisor would tell a kubelet on that machine.
package cadvisor

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	cadvisorapi "github.com/google/cadvisor/lib/model"
	"github.com/google/cadvisor/lib/utils/sysfs"
	"github.com/google/cadvisor/lib/utils/sysinfo"
	"k8s.io/utils/cpuset"
)

// MachineInfo is a sysfs tree as cAdvisor's own code reads it for the kubelet
// (machine.Info), so that our reading of the same tree is checked as well.
func MachineInfo(root string) (*cadvisorapi.MachineInfo, error) {
	t, err := newTree(root)
	if err != nil {
		return nil, fmt.Errorf("read the machine as cAdvisor: %w", err)
	}
	nodes, cpus, err := sysinfo.GetNodesInfo(t)
	if err != nil {
		return nil, fmt.Errorf("read the machine as cAdvisor: %w", err)
	}
	const id = "machine"
	m := &cadvisorapi.MachineInfo{MachineID: id, SystemUUID: id, BootID: id, Topology: nodes, NumCores: cpus}
	sockets := map[int]bool{}
	pages := map[uint64]int{} // index into HugePages by size
	for i := range nodes {
		m.MemoryCapacity += nodes[i].Memory
		m.NumPhysicalCores += len(nodes[i].Cores)
		for _, c := range nodes[i].Cores {
			sockets[c.SocketID] = true
		}
		for _, h := range nodes[i].HugePages {
			at, known := pages[h.PageSize]
			if !known {
				at = len(m.HugePages)
				pages[h.PageSize] = at
				m.HugePages = append(m.HugePages, cadvisorapi.HugePagesInfo{PageSize: h.PageSize})
			}
			m.HugePages[at].NumPages += h.NumPages
		}
	}
	m.NumSockets = len(sockets)
	return m, nil
}

// tree is cAdvisor's sysfs at another root. What is not overridden
// takes its paths from what is.
type tree struct {
	sysfs.SysFs
	system string // sys/devices/system
	online cpuset.CPUSet
}

func newTree(root string) (*tree, error) {
	t := &tree{SysFs: sysfs.NewRealSysFs(), system: filepath.Join(root, "sys/devices/system")}
	list, err := os.ReadFile(filepath.Join(t.system, "cpu/online"))
	if err != nil {
		return nil, err // names the path
	}
	t.online, err = cpuset.Parse(strings.TrimSpace(string(list)))
	return t, err
}

// GetNodesPaths lists the NUMA nodes as the original does: by name, so that
// node10 comes before node2.
func (t *tree) GetNodesPaths() ([]string, error) {
	return filepath.Glob(filepath.Join(t.system, "node", "node*[0-9]"))
}

// IsCPUOnline saves the original's reading of the list for every CPU.
func (t *tree) IsCPUOnline(dir string) bool {
	id, err := strconv.Atoi(strings.TrimPrefix(filepath.Base(dir), "cpu"))
	return err == nil && t.online.Contains(id)
}

func (t *tree) cache(cpu int, name string) string {
	return filepath.Join(t.system, "cpu", "cpu"+strconv.Itoa(cpu), "cache", name)
}

// GetCaches lists a CPU's caches.
func (t *tree) GetCaches(cpu int) ([]os.FileInfo, error) {
	entries, err := os.ReadDir(t.cache(cpu, ""))
	if err != nil {
		return nil, err
	}
	infos := make([]os.FileInfo, 0, len(entries))
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			return nil, err
		}
		infos = append(infos, info)
	}
	return infos, nil
}

// GetCacheInfo reads one cache of a CPU.
func (t *tree) GetCacheInfo(cpu int, name string) (sysfs.CacheInfo, error) {
	var texts [5]string
	for i, attr := range []string{"id", "size", "level", "type", "shared_cpu_list"} {
		b, err := os.ReadFile(filepath.Join(t.cache(cpu, name), attr))
		if err != nil {
			return sysfs.CacheInfo{}, err
		}
		texts[i] = strings.TrimSpace(string(b))
	}
	id, errID := strconv.Atoi(texts[0])
	size, errSize := strconv.ParseUint(strings.TrimSuffix(texts[1], "K"), 10, 64)
	level, errLevel := strconv.Atoi(texts[2])
	shared, errShared := cpuset.Parse(texts[4])
	for _, err := range []error{errID, errSize, errLevel, errShared} {
		if err != nil {
			return sysfs.CacheInfo{}, err
		}
	}
	return sysfs.CacheInfo{Id: id, Size: size << 10, Level: level, Type: texts[3], Cpus: shared.Size()}, nil
}
