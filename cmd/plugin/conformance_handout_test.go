package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	pluginapi "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"

	"github.com/numalane/numalane/internal/sysfstest"
)

// allocated is the answer for one container, and it is no error.
func (n *node) allocated(resource string, ids ...string) *pluginapi.ContainerAllocateResponse {
	n.t.Helper()
	got, err := n.allocate(resource, ids...)
	must(n.t, err)
	return got
}

func variable(resource string) string {
	return "PCIDEVICE_" + strings.ToUpper(strings.NewReplacer("/", "_", ".", "_").Replace(resource))
}

// expectInfo allocates a device, whose _INFO has to be the wanted JSON, without
// the braces.
func (n *node) expectInfo(resource, id, want string) {
	n.t.Helper()
	var got map[string]json.RawMessage
	must(n.t, json.Unmarshal([]byte(n.allocated(resource, id).Envs[variable(resource)+"_INFO"]), &got))
	if diff := cmp.Diff("{"+want+"}", string(got[id])); diff != "" {
		n.t.Errorf("_INFO of %s (-want +got):\n%s", id, diff)
	}
}

// expectDevices allocates a device, whose nodes have to be these: a path, or
// "host container".
func (n *node) expectDevices(resource, id string, want ...string) {
	n.t.Helper()
	answer := n.allocated(resource, id)
	var got []string
	for _, d := range answer.Devices {
		line := d.HostPath
		if d.ContainerPath != d.HostPath {
			line += " " + d.ContainerPath
		}
		if d.Permissions != "rw" {
			n.t.Errorf("%s has permissions %q", d.HostPath, d.Permissions)
		}
		got = append(got, line)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		n.t.Errorf("nodes of %s (-want +got):\n%s", id, diff)
	}
	if len(answer.Mounts) > 0 {
		n.t.Errorf("mounts %v, want none", answer.Mounts)
	}
}

// handed is a pool of one device of the zoo.
type handed struct {
	deviceType, selectors, id string
}

var (
	kernelVF  = handed{"netDevice", `{"pfNames": ["eno1#0"]}`, x710v0}
	vfioVF    = handed{"netDevice", `{"pfNames": ["eno1#3"]}`, x710dpdk}
	rdmaVF    = handed{"netDevice", `{"pfNames": ["p0#2"], "isRdma": true}`, cx5v2}
	vhostVF   = handed{"netDevice", `{"pfNames": ["eno1#0"], "needVhostNet": true}`, x710v0}
	vdpaVF    = handed{"netDevice", `{"vdpaType": "vhost"}`, cx5v0}
	virtioVF  = handed{"netDevice", `{"vdpaType": "virtio"}`, cx5v1}
	vfioFEC   = handed{"accelerator", `{"pciAddresses": ["` + fec0 + `"]}`, fec0}
	uioFEC    = handed{"accelerator", `{"drivers": ["igb_uio"]}`, fecFree}
	rdmaSF    = handed{"auxNetDevice", `{"auxTypes": ["sf"], "isRdma": true, "pfNames": ["p0#4"]}`, sf4}
	generic   = func(id string) string { return `"generic":{"deviceID":"` + id + `"}` }
	rdmaNodes = func(n string) []string {
		return []string{"/dev/infiniband/issm" + n, "/dev/infiniband/rdma_cm", "/dev/infiniband/umad" + n, "/dev/infiniband/uverbs" + n}
	}
)

// serve has the device in intel.com/net.
func (h handed) serve(t *testing.T, z *zoo, args ...string) *node {
	t.Helper()
	n := z.node(t, `{"resourceList": [{"resourceName": "net", "deviceType": "`+h.deviceType+`", "selectors": `+h.selectors+`}]}`)
	n.command(args...)
	n.expect("intel.com/net", h.id+healthy)
	return n
}

func (h handed) info(z *zoo, want string) func(*testing.T) {
	return func(t *testing.T) {
		t.Helper()
		h.serve(t, z).expectInfo("intel.com/net", h.id, want)
	}
}

func (h handed) nodes(z *zoo, want ...string) func(*testing.T) {
	return func(t *testing.T) {
		t.Helper()
		h.serve(t, z).expectDevices("intel.com/net", h.id, want...)
	}
}

func deviceRows(z *zoo) []row {
	return []row{
		{
			name: "id", peer: "the PCI address; of a subfunction its name, `mlx5_core.sf.4`",
			test: all(z.takes("netDevice", kernelVF.selectors, x710v0), z.takes("auxNetDevice", rdmaSF.selectors, sf4)),
		},
		{
			name: "order of the list", peer: "random: that of a Go map", ours: "by address",
			test: z.takes("netDevice", `{"vendors": ["8086"]}`, x710v0, x710v1, x710v2, x710dpdk, x710free, e810v0, ixgbe0, ixgbe1),
		},
		{
			name: "topology", peer: "the one node of `numa_node`",
			test: func(t *testing.T) {
				n := z.node(t, `{"resourceList": [{"resourceName": "net", "selectors": {"devices": ["154c", "10ed"]}}]}`)
				n.command()
				n.expectNodes("intel.com/net", x710v0+" [0]", x710v1+" [0]", x710v2+" [0]", x710dpdk+" [0]", ixgbe0+" [1]", ixgbe1+" [1]")
			},
		},
		{
			name: "`numa_node` -1", peer: "no topology",
			test: func(t *testing.T) {
				n := newNodeAt(t, t.TempDir(), onePool)
				must(t, sysfstest.Uniform(1, 1, 1, sysfstest.X710(pf, -1, 2)).Write(n.sysfs))
				n.command()
				n.expectNodes("intel.com/net", v0+" without", v1+" without")
			},
		},
		{
			name: "health", peer: "always healthy", ours: "unhealthy while it cannot be handed over, with the reason in the log",
			test: func(t *testing.T) {
				n := newNode(t, onePool)
				must(t, sysfstest.Bind(n.sysfs, v1, "vfio-pci"))
				must(t, sysfstest.RemoveFile(n.sysfs, v1, "iommu_group"))
				n.command()
				n.expect("intel.com/net", v0+healthy, v1+unhealthy, v2+healthy, v3+healthy)
				n.said("it is bound to vfio-pci and has no IOMMU group")
			},
		},
		{
			name: "health by link", peer: "promised by its README; there is none", ours: "none with its configuration either. With our own, unless switched off: [configuration](configuration.md)",
			elsewhere: "cmd/plugin TestNoLinkHealth",
		},
		{
			name: "health by link, our own format", peer: "has none", ours: "free VFs are unhealthy while their PF has no carrier", elsewhere: "cmd/plugin TestLinkHealth",
		},
		{
			name: "a VF that vanished while a pod holds it", peer: "not noticed; after a restart the pool is smaller", ours: "listed as unhealthy until the pod is gone", elsewhere: "cmd/plugin TestVFsComeAndGo",
		},
		{
			name: "a VF whose interface is in a pod", peer: "healthy", elsewhere: "cmd/plugin TestNetdevsMove",
		},
		{
			name: "the same, at a restart of the plugin", peer: "lost from the pool (its issue 392)", ours: "listed as healthy",
			test: func(t *testing.T) {
				n := newNode(t, `{"resourceList": [{"resourceName": "net", "selectors": {"pfNames": ["ens1f0"], "linkTypes": ["ether"], "drivers": ["iavf"]}}]}`)
				must(t, sysfstest.RemoveNetdev(n.sysfs, "ens1f0v1"))
				n.hold("intel.com/net", v1)
				n.command()
				n.expect("intel.com/net", v0+healthy, v1+healthy, v2+healthy, v3+healthy)
			},
		},
		{
			name: "options", peer: "none", ours: "`GetPreferredAllocation` is offered",
			test: func(t *testing.T) {
				got, err := kernelVF.serve(t, z).plugin("intel.com/net").GetDevicePluginOptions(t.Context(), &pluginapi.Empty{})
				must(t, err)
				if !got.GetPreferredAllocationAvailable || got.PreStartRequired {
					t.Errorf("options %v", got)
				}
			},
		},
		{
			name: "preferred allocation", peer: "an empty answer, so that the kubelet takes devices at random", ours: "devices of as few NUMA nodes as can be, then of one PF",
			test: func(t *testing.T) {
				n := z.node(t, `{"resourceList": [{"resourceName": "net", "selectors": {"devices": ["154c", "10ed"]}}]}`)
				n.command()
				n.expectIDs("intel.com/net", x710v0, x710v1, x710v2, x710dpdk, ixgbe0, ixgbe1)
				got, err := n.plugin("intel.com/net").GetPreferredAllocation(t.Context(), &pluginapi.PreferredAllocationRequest{
					ContainerRequests: []*pluginapi.ContainerPreferredAllocationRequest{{AvailableDeviceIDs: []string{x710v2, ixgbe1, ixgbe0}, AllocationSize: 2}},
				})
				must(t, err)
				if ids := slices.Sorted(slices.Values(got.ContainerResponses[0].DeviceIDs)); !slices.Equal(ids, []string{ixgbe0, ixgbe1}) {
					t.Errorf("of three devices on two NUMA nodes it prefers %v", ids)
				}
			},
		},
	}
}

func variableRows(z *zoo) []row {
	return []row{
		{
			name: "name", peer: "`PCIDEVICE_<PREFIX>_<NAME>` in upper case, dots become `_`, hyphens stay",
			test: func(t *testing.T) {
				n := z.node(t, `{"resourceList": [{"resourceName": "sriov-net_a", "resourcePrefix": "my.example-org.com", "selectors": {"pfNames": ["eno1#0"]}}]}`)
				n.command()
				n.expectIDs("my.example-org.com/sriov-net_a", x710v0)
				got := n.allocated("my.example-org.com/sriov-net_a", x710v0).Envs
				want := map[string]string{
					"PCIDEVICE_MY_EXAMPLE-ORG_COM_SRIOV-NET_A": x710v0, "PCIDEVICE_MY_EXAMPLE-ORG_COM_SRIOV-NET_A_INFO": `{"` + x710v0 + `":{` + generic(x710v0) + `}}`,
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("variables (-want +got):\n%s", diff)
				}
			},
		},
		{
			name: "value", peer: "the ids with commas between, in the kubelet's order, which is random", ours: "sorted",
			test: func(t *testing.T) {
				n := z.node(t, `{"resourceList": [{"resourceName": "net", "selectors": {"pfNames": ["eno1#0-2"]}}]}`)
				n.command()
				n.expectIDs("intel.com/net", x710v0, x710v1, x710v2)
				if got := n.allocated("intel.com/net", x710v2, x710v0).Envs["PCIDEVICE_INTEL_COM_NET"]; got != x710v0+","+x710v2 {
					t.Errorf("it is %s", got)
				}
			},
		},
		{name: "`_INFO`, `generic`", peer: "for every device: `deviceID`", test: kernelVF.info(z, generic(x710v0))},
		{
			name: "`_INFO`, `vfio`", peer: "driver vfio-pci: `mount`, `dev-mount`",
			test: vfioVF.info(z, generic(x710dpdk)+`,"vfio":{"dev-mount":"/dev/vfio/15123","mount":"/dev/vfio/vfio"}`),
		},
		{
			name: "`_INFO`, `uio`", peer: "drivers uio, igb_uio: `mount`, which the first allocation of a device lacks", ours: "there from the first on",
			test: uioFEC.info(z, generic(fecFree)+`,"uio":{"mount":"/dev/uio55808"}`),
		},
		{
			name: "`_INFO`, `uio` of uio_pci_generic", peer: "nothing", ours: "`mount`", elsewhere: "internal/handout TestVariables/uio_pci_generic",
		},
		{
			name: "`_INFO`, `rdma`", peer: "`isRdma`: `rdma_dev`, `uverbs`, `umad`, `issm`, `rdma_cm`",
			test: all(
				rdmaVF.info(z, generic(cx5v2)+`,"rdma":{"issm":"/dev/infiniband/issm34308","rdma_cm":"/dev/infiniband/rdma_cm","rdma_dev":"rocev2",`+
					`"umad":"/dev/infiniband/umad34308","uverbs":"/dev/infiniband/uverbs34308"}`),
				rdmaSF.info(z, generic(sf4)+`,"rdma":{"issm":"/dev/infiniband/issm65540","rdma_cm":"/dev/infiniband/rdma_cm","rdma_dev":"roces4",`+
					`"umad":"/dev/infiniband/umad65540","uverbs":"/dev/infiniband/uverbs65540"}`)),
		},
		{
			name: "`_INFO`, `rdma` of two RDMA devices", peer: "the last node of a kind", ours: "all of them, with commas between", elsewhere: "internal/handout TestVariables/rdma, two RDMA devices",
		},
		{
			name: "`_INFO`, `vhost`", peer: "`needVhostNet`: `net-mount`, `tun-mount`",
			test: vhostVF.info(z, generic(x710v0)+`,"vhost":{"net-mount":"/dev/vhost-net","tun-mount":"/dev/net/tun"}`),
		},
		{
			name: "`_INFO`, `vdpa`", peer: "`vdpaType`: `mount`, which the first allocation of a device lacks", ours: "there from the first on",
			test: all(
				vdpaVF.info(z, generic(cx5v0)+`,"vdpa":{"mount":"/dev/vhost-vdpa-0"}`),
				virtioVF.info(z, generic(cx5v1)+`,"vdpa":{}`)),
		},
		{
			name: "`_INFO`, `extra`", peer: "`additionalInfo`", elsewhere: "internal/handout TestVariables/extra",
		},
		{
			name: "its README's names", peer: "`vfio-dev-mount`, `vfio-mount`, `extraInfo`: not what its code does", ours: "as its code", elsewhere: "internal/handout TestVariables/all at once",
		},
	}
}

func nodeRows(z *zoo) []row {
	return []row{
		{name: "a kernel driver", peer: "none: a CNI plugin moves the interface", test: kernelVF.nodes(z)},
		{
			name: "vfio-pci", peer: "`/dev/vfio/vfio`, `/dev/vfio/<group>`",
			test: all(vfioVF.nodes(z, "/dev/vfio/vfio", "/dev/vfio/15123"), vfioFEC.nodes(z, "/dev/vfio/vfio", "/dev/vfio/55312")),
		},
		{
			name: "vfio-pci without an IOMMU", peer: "`/dev/vfio/noiommu-<group>` of the host is `/dev/vfio/<group>` of the container",
			test: func(t *testing.T) {
				n := newNodeAt(t, t.TempDir(), onePool)
				nic := sysfstest.X710(pf, 0, 1)
				nic.VFsOnVFIO = []int{0}
				m := sysfstest.Uniform(1, 1, 1, nic)
				m.NoIOMMU = true
				must(t, m.Write(n.sysfs))
				n.command()
				n.expect("intel.com/net", v0+healthy)
				n.expectDevices("intel.com/net", v0, "/dev/vfio/vfio", "/dev/vfio/noiommu-15120 /dev/vfio/15120")
			},
		},
		{name: "uio", peer: "`/dev/uioN`", test: uioFEC.nodes(z, "/dev/uio55808")},
		{
			name: "RDMA", peer: "every one of each RDMA device below `/dev/infiniband`",
			test: all(rdmaVF.nodes(z, rdmaNodes("34308")...), rdmaSF.nodes(z, rdmaNodes("65540")...)),
		},
		{name: "vhost-net", peer: "`/dev/vhost-net`, `/dev/net/tun`", test: vhostVF.nodes(z, "/dev/vhost-net", "/dev/net/tun")},
		{
			name: "vhost-net that the host lacks", peer: "the device is handed out without them", ours: "the device is unhealthy, with the reason in the log",
			test: func(t *testing.T) {
				n := newNode(t, `{"resourceList": [{"resourceName": "net", "selectors": {"pfNames": ["ens1f0#0"], "needVhostNet": true}}]}`)
				n.command()
				n.expect("intel.com/net", v0+unhealthy)
				n.said("load the kernel modules vhost_net and tun")
			},
		},
		{name: "vDPA, vhost", peer: "`/dev/vhost-vdpa-N`", test: vdpaVF.nodes(z, "/dev/vhost-vdpa-0")},
		{name: "vDPA, virtio", peer: "none", test: virtioVF.nodes(z)},
		{name: "a node of two devices", peer: "once a container", elsewhere: "internal/plugin TestAllocate/shared nodes"},
		{name: "permissions, mounts", peer: "`rw`; no mounts", test: vfioVF.nodes(z, "/dev/vfio/vfio", "/dev/vfio/15123")},
		{
			name: "what is not there", peer: "a log line, and the pod starts with fewer nodes", ours: "the allocation is refused, and the pod's event says why", elsewhere: "e2e/registration TestAllocateFailsWhole",
		},
		{
			name: "an RDMA device that is in a pod", peer: "as above", ours: "refused", elsewhere: "internal/handout TestWithheld/RDMA device in a pod",
		},
		{
			name: "an id that is not in the pool", peer: "an error for netDevice; empty variables for the other types", ours: "refused",
			test: func(t *testing.T) {
				for _, h := range []handed{kernelVF, vfioFEC, rdmaSF} {
					if got, err := h.serve(t, z).allocate("intel.com/net", "0000:ff:1f.7"); err == nil || !strings.Contains(err.Error(), "0000:ff:1f.7 is not in pool intel.com/net") {
						t.Errorf("%s: it answers %v, %v", h.deviceType, got, err)
					}
				}
			},
		},
	}
}

func deviceInfoRows(z *zoo) []row {
	written := func(h handed, want string) func(*testing.T) {
		return func(t *testing.T) {
			t.Helper()
			dir := t.TempDir()
			h.serve(t, z, "--devinfo-dir", dir).allocated("intel.com/net", h.id)
			file := filepath.Join(dir, "intel.com-net-"+h.id+"-device.json")
			if got, err := os.ReadFile(file); err != nil || string(got) != want {
				t.Errorf("it says %s, %v; want %s", got, err, want)
			}
			if info, err := os.Stat(file); err != nil || info.Mode() != 0o444 {
				t.Errorf("%v, %v; want mode 0444", info, err)
			}
		}
	}
	return []row{
		{
			name: "file", peer: "`/var/run/k8s.cni.cncf.io/devinfo/dp/<prefix>-<name>-<id>-device.json`, mode 0444, made by Allocate",
			test: func(t *testing.T) {
				if f := newCommand(nil).Flags().Lookup("devinfo-dir"); f.DefValue != "/var/run/k8s.cni.cncf.io/devinfo/dp" {
					t.Errorf("the folder is %s", f.DefValue)
				}
				written(kernelVF, `{"type":"pci","version":"1.1.0","pci":{"pci-address":"`+x710v0+`"}}`)(t)
			},
		},
		{
			name: "type `pci`", peer: "`pci-address`, and `rdma-device`",
			test: written(rdmaVF, `{"type":"pci","version":"1.1.0","pci":{"pci-address":"`+cx5v2+`","rdma-device":"rocev2"}}`),
		},
		{
			name: "type `vdpa`", peer: "`parent-device`, `driver`, `path`, `pci-address`",
			test: written(vdpaVF, `{"type":"vdpa","version":"1.1.0","vdpa":{"parent-device":"vdpa0","driver":"vhost","path":"/dev/vhost-vdpa-0","pci-address":"`+cx5v0+`"}}`),
		},
		{
			name: "the other types", peer: "none for accelerators and subfunctions",
			test: func(t *testing.T) {
				for _, h := range []handed{vfioFEC, rdmaSF} {
					dir := t.TempDir()
					h.serve(t, z, "--devinfo-dir", dir).allocated("intel.com/net", h.id)
					if files, err := os.ReadDir(dir); err != nil || len(files) > 0 {
						t.Errorf("%s: %v, %v", h.deviceType, files, err)
					}
				}
			},
		},
		{
			name: "over a restart", peer: "all files of the pool are removed at each start and end, those of running pods too", ours: "stays while a pod holds the device",
			elsewhere: "internal/plugin TestDeviceInfoLifecycle",
		},
		{
			name: "that is missing", peer: "made by Allocate alone", ours: "made at start too, for devices that pods hold, as after a reboot", elsewhere: "internal/plugin TestDeviceInfoIsRestored",
		},
	}
}

func cdiRows(z *zoo) []row {
	return []row{
		{
			name: "answer", peer: "variables as ever, no device nodes; devices by annotation alone", ours: "by the `cdi_devices` field; with `--cdi-annotations` by annotation, too",
			test: func(t *testing.T) {
				const name = "intel.com/net-pci-net=" + x710dpdk
				for flag, annotations := range map[string]map[string]string{
					"--cdi-annotations=false": nil, "--cdi-annotations": {"cdi.k8s.io/intel.com_net-pci-net": name},
				} {
					got := vfioVF.serve(t, z, "--use-cdi", "--cdi-dir", t.TempDir(), flag).allocated("intel.com/net", x710dpdk)
					if len(got.CdiDevices) != 1 || got.CdiDevices[0].Name != name || len(got.Devices) > 0 || len(got.Envs) != 2 {
						t.Errorf("it answers %v", got)
					}
					if diff := cmp.Diff(annotations, got.Annotations); diff != "" {
						t.Errorf("%s: annotations (-want +got):\n%s", flag, diff)
					}
				}
			},
		},
		{
			name: "kind", peer: "`<prefix>/net-pci`, `net-accel`, `net-sf`: one for all pools of a type", ours: "one a pool: `<prefix>/net-pci-<name>`, `net-accel-<name>`, `net-sf-<name>`",
			elsewhere: "internal/cdi TestNames",
		},
		{
			name: "two pools of a prefix in a container", peer: "one annotation key for both: the kubelet keeps the first, the devices of the other are missing", ours: "both are there", elsewhere: "internal/plugin TestCDI",
		},
		{
			name: "specification", peer: "`/var/run/cdi/sriov-dp-…`, device nodes alone; written when the kubelet asks for the list", ours: "`numalane-<prefix>_net-pci-<name>.json` there, before the kubelet has the list",
			test: func(t *testing.T) {
				if f := newCommand(nil).Flags().Lookup("cdi-dir"); f.DefValue != "/var/run/cdi" {
					t.Errorf("the folder is %s", f.DefValue)
				}
				dir := t.TempDir()
				vfioVF.serve(t, z, "--use-cdi", "--cdi-dir", dir)
				got, err := os.ReadFile(filepath.Join(dir, "numalane-intel.com_net-pci-net.json"))
				must(t, err)
				want := `{"cdiVersion":"0.5.0","kind":"intel.com/net-pci-net","devices":[{"name":"` + x710dpdk + `","containerEdits":{"deviceNodes":[` +
					`{"path":"/dev/vfio/vfio","hostPath":"/dev/vfio/vfio","permissions":"rw"},{"path":"/dev/vfio/15123","hostPath":"/dev/vfio/15123","permissions":"rw"}]}}],"containerEdits":{}}`
				if diff := cmp.Diff(want, strings.TrimSpace(string(got))); diff != "" {
					t.Errorf("it says (-want +got):\n%s", diff)
				}
			},
		},
		{
			name: "its end", peer: "all of its files are removed at start and at SIGTERM, those of running pods too", ours: "stays: a runtime looks devices up whenever it makes a container again", elsewhere: "internal/plugin TestCDI",
		},
		{
			name: "files of others", peer: "its own are `sriov-dp-*`", ours: "ours are `numalane-*`: what the peer left stays, for pods may need it",
			test: func(t *testing.T) {
				dir := t.TempDir()
				other := filepath.Join(dir, "sriov-dp-intel.com-net-pci-net.json")
				must(t, os.WriteFile(other, []byte(`{"cdiVersion":"0.5.0","kind":"intel.com/net-pci","devices":[]}`), 0o644))
				vfioVF.serve(t, z, "--use-cdi", "--cdi-dir", dir)
				if _, err := os.Stat(other); err != nil {
					t.Error(err)
				}
			},
		},
	}
}
