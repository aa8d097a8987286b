package main

import (
	"bytes"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func keyRows(z *zoo) []row {
	return []row{
		{
			name: "keys in any case", peer: "as `encoding/json` matches them: `IsRdma`, `NeedVhostNet`",
			test: z.lists(`{"ResourceList": [{"RESOURCENAME": "net", "Selectors": {"pfnames": ["eno1#0-1"], "NeedVhostNet": true, "IsRdma": false}}]}`, x710v0, x710v1),
		},
		{
			name: "unknown keys", peer: "ignored in silence", ours: "ignored, with a warning that has line, column and path",
			test: func(t *testing.T) {
				n := z.node(t, `{"resourceList": [{"resourceName": "net", "selectors": {"pfName": ["eno2"], "pfNames": ["eno1#0"]}}]}`)
				n.command()
				n.expectIDs("intel.com/net", x710v0)
				n.said("line 1, column 57: resourceList[0].selectors.pfName: unknown key, without effect: did you mean pfNames?")
			},
		},
		{
			name: "`SelectorObj`", peer: "left by serializers of its types, no effect", ours: "the same, and no warning",
			test: func(t *testing.T) {
				n := z.node(t, `{"resourceList": [{"resourceName": "net", "selectors": {"pfNames": ["eno1#0"]}, "SelectorObj": null, "SelectorObjs": [{}]}]}`)
				n.command()
				n.expectIDs("intel.com/net", x710v0)
				if strings.Contains(n.log.String(), "resourceList[0].SelectorObj") {
					t.Errorf("it is warned of:\n%s", n.log.String())
				}
			},
		},
		{
			name: "JSON that is none", peer: "not read: a comment, a comma after the last element; the process ends with exit code 0",
			ours: "a mistake with line and column, exit code 1",
			test: all(
				refusesFile("{\"resourceList\": [\n],}", "line 2, column 3: invalid JSON"),
				refusesFile("{\"resourceList\": [ // pools\n]}", "line 1, column 20: invalid JSON")),
		},
		{
			name: "YAML", peer: "not read", ours: "read too",
			test: z.lists("resourceList:\n- resourceName: net # all of a port\n  selectors:\n    pfNames: [eno1#0-1]\n", x710v0, x710v1),
		},
		{
			name: "`resourceList` absent", peer: "a log line; the process ends with exit code 0", ours: "a mistake, exit code 1",
			test: refusesFile(`{}`, "line 1, column 1: resourceList: missing"),
		},
		{
			name: "`resourceList` empty", peer: "a log line; the process ends with exit code 0", ours: "runs without pools, as a node without a policy of the sriov-network-operator's wants",
			test: func(t *testing.T) {
				n := z.node(t, `{"resourceList": []}`).run(nil)
				n.eventually("the plugin to be ready", func() bool { return n.app.registered() == nil })
				n.said("no pool is configured")
			},
		},
		{
			name: "`resourceName`", peer: "required; letters, digits, `_` and `-`", ours: "the same, and dots",
			test: all(
				z.listsAs("intel.com/Net_1-a", `{"resourceList": [{"resourceName": "Net_1-a", "selectors": {"pfNames": ["eno1#0"]}}]}`, x710v0),
				z.listsAs("intel.com/a.b", `{"resourceList": [{"resourceName": "a.b", "selectors": {"pfNames": ["eno1#0"]}}]}`, x710v0),
				refuses(`{"selectors": {}}`, "resourceList[0].resourceName: missing")),
		},
		{
			name: "`resourceName` that the kubelet refuses", peer: "taken: `-a`, `a_`, 64 characters; the kubelet refuses the registration", ours: "a mistake",
			test: all(
				refuses(`{"resourceName": "-a", "selectors": {}}`, "resourceList[0].resourceName: \"-a\""),
				refuses(`{"resourceName": "a_", "selectors": {}}`, "resourceList[0].resourceName: \"a_\""),
				refuses(`{"resourceName": "`+strings.Repeat("a", 64)+`", "selectors": {}}`, "resourceList[0].resourceName", "63")),
		},
		{
			name: "`resourcePrefix`", peer: "by default that of the command line",
			test: z.listsAs("mellanox.com/net", `{"resourceList": [{"resourceName": "net", "resourcePrefix": "mellanox.com", "selectors": {"pfNames": ["p0#0"]}}]}`, cx5v0),
		},
		{
			name: "`resourcePrefix` that is none", peer: "not looked at", ours: "a mistake: what the kubelet refuses, and `*kubernetes.io`",
			test: all(
				refuses(`{"resourceName": "net", "resourcePrefix": "a b", "selectors": {}}`, "resourceList[0].resourcePrefix"),
				refuses(`{"resourceName": "net", "resourcePrefix": "node.kubernetes.io", "selectors": {}}`, "resourceList[0].resourcePrefix")),
		},
		{
			name: "`deviceType`", peer: "`netDevice` (PCI class 02, the default), `accelerator` (12), `auxNetDevice` (subfunctions of 02)",
			test: all(
				z.takes("netDevice", `{}`, zooDevices["netDevice"]...),
				z.lists(`{"resourceList": [{"resourceName": "net", "selectors": {}}]}`, zooDevices["netDevice"]...),
				z.takes("accelerator", `{}`, zooDevices["accelerator"]...),
				z.takes("auxNetDevice", `{"auxTypes": ["sf"]}`, zooDevices["auxNetDevice"]...)),
		},
		{
			name: "another `deviceType`", peer: "the process ends with exit code 0", ours: "a mistake, exit code 1",
			test: refuses(`{"resourceName": "net", "deviceType": "gpu", "selectors": {}}`, `"gpu" is not a device type`),
		},
		{
			name: "`excludeTopology`", peer: "the kubelet is told no NUMA nodes", ours: "the same. The extender is told so too: [what that means](#what-excludetopology-means-for-the-extender)",
			test: func(t *testing.T) {
				n := z.node(t, `{"resourceList": [{"resourceName": "without", "excludeTopology": true, "selectors": {"pfNames": ["eno1#0"]}},
					{"resourceName": "net", "selectors": {"pfNames": ["eno1#1"]}}]}`)
				n.command()
				n.expectNodes("intel.com/without", x710v0+" without")
				n.expectNodes("intel.com/net", x710v1+" [0]")
			},
		},
		{
			name: "`selectors`", peer: "one object, or a list of them of which any may match",
			test: all(
				z.takes("netDevice", `{"pfNames": ["eno1#0"]}`, x710v0),
				z.takes("netDevice", `[{"pfNames": ["eno1#0"]}, {"drivers": ["ixgbevf"]}]`, x710v0, ixgbe0, ixgbe1)),
		},
		{
			name: "`selectors` absent", peer: "\"not required\" by its README; it panics", ours: "a mistake; `{}` takes every device",
			test: refuses(`{"resourceName": "net"}`, "resourceList[0].selectors: missing"),
		},
		{
			name: "`selectors` an empty list", peer: "the resource is left out, with a warning", ours: "a mistake",
			test: refuses(`{"resourceName": "net", "selectors": []}`, "resourceList[0].selectors: an empty list selects nothing"),
		},
		{
			name: "`selectors` that cannot be read", peer: "the resource is left out, with a warning", ours: "a mistake",
			test: refuses(`{"resourceName": "net", "selectors": {"vendors": "8086"}}`, "resourceList[0].selectors.vendors: is a string"),
		},
		{
			name: "`additionalInfo`", peer: "words for pods by `\"*\"` or PCI address; those of the address win, key by key", ours: "the same, and by a subfunction's name",
			test: func(t *testing.T) {
				n := z.node(t, `{"resourceList": [{"resourceName": "net", "selectors": {"pfNames": ["eno1#0-1"]},
					"additionalInfo": {"*": {"site": "a", "token": "all"}, "`+x710v1+`": {"token": "mine"}}},
					{"resourceName": "sf", "deviceType": "auxNetDevice", "selectors": {"auxTypes": ["sf"], "pfNames": ["p0#4"]}, "additionalInfo": {"`+sf4+`": {"site": "b"}}}]}`)
				n.command()
				n.expectIDs("intel.com/net", x710v0, x710v1)
				n.expectIDs("intel.com/sf", sf4)
				n.expectInfo("intel.com/sf", sf4, `"extra":{"site":"b"},"generic":{"deviceID":"`+sf4+`"}`)
				n.expectInfo("intel.com/net", x710v0, `"extra":{"site":"a","token":"all"},"generic":{"deviceID":"`+x710v0+`"}`)
				n.expectInfo("intel.com/net", x710v1, `"extra":{"site":"a","token":"mine"},"generic":{"deviceID":"`+x710v1+`"}`)
			},
		},
		{
			name: "a resource twice", peer: "fatal", ours: "a mistake",
			test: refuses(`{"resourceName": "net", "selectors": {}}, {"resourceName": "net", "resourcePrefix": "intel.com", "selectors": {}}`,
				"resourceList[1]: resource intel.com/net is resourceList[0] already"),
		},
		{
			name: "`isRdma` with `vdpaType`", peer: "fatal", ours: "a mistake",
			test: refuses(`{"resourceName": "net", "selectors": {"isRdma": true, "vdpaType": "vhost"}}`, "resourceList[0].selectors.vdpaType: contradicts isRdma"),
		},
		{
			name: "`auxNetDevice` without `auxTypes`", peer: "fatal", ours: "a mistake",
			test: refuses(`{"resourceName": "net", "deviceType": "auxNetDevice", "selectors": {"vendors": ["15b3"]}}`, "resourceList[0].selectors.auxTypes: missing"),
		},
		{
			name: "`auxTypes` other than `sf`", peer: "fatal, also its README's `[\"sf\", \"eth\"]`", ours: "a mistake",
			test: refuses(`{"resourceName": "net", "deviceType": "auxNetDevice", "selectors": {"auxTypes": ["sf", "eth"]}}`, `resourceList[0].selectors.auxTypes[1]: "eth": want sf`),
		},
		{
			name: "a key there twice", peer: "the last one counts", ours: "a mistake",
			test: refuses(`{"resourceName": "net", "resourcename": "b", "selectors": {}}`, "the key is there twice"),
		},
		{
			name: "its published ConfigMaps", peer: "two of the seven are no JSON", ours: "the five are taken, of the two the place is told",
			elsewhere: "internal/config TestParseCorpus",
		},
	}
}

// lists runs the plugin on the zoo with a configuration, whose resource
// intel.com/net has to list just these.
func (z *zoo) lists(config string, want ...string) func(*testing.T) {
	return z.listsAs("intel.com/net", config, want...)
}

func (z *zoo) listsAs(resource, config string, want ...string) func(*testing.T) {
	return func(t *testing.T) {
		t.Helper()
		n := z.node(t, config)
		n.command()
		n.expectIDs(resource, want...)
	}
}

func flagRows(z *zoo) []row {
	const one = `{"resourceList": [{"resourceName": "net", "selectors": {"pfNames": ["eno1#0"]}}]}`
	return []row{
		{
			name: "`-config-file`", peer: "by default `/etc/pcidp/config.json`",
			test: func(t *testing.T) {
				if f := newCommand(nil).Flags().Lookup("config-file"); f.DefValue != "/etc/pcidp/config.json" {
					t.Errorf("by default it is %s", f.DefValue)
				}
				z.lists(one, x710v0)(t)
			},
		},
		{
			name: "a file a node", peer: "`--config-file=/etc/pcidp/$(NODE_NAME)`, of a ConfigMap with a key a node",
			test: func(t *testing.T) {
				n := z.node(t, "")
				file := filepath.Join(t.TempDir(), "worker-7")
				must(t, os.WriteFile(file, []byte(one), 0o644))
				n.command("--config-file=" + file)
				n.expectIDs("intel.com/net", x710v0)
			},
		},
		{
			name: "`-resource-prefix`", peer: "by default `intel.com`",
			test: func(t *testing.T) {
				n := z.node(t, one)
				n.command("-resource-prefix", "example.com")
				n.expectIDs("example.com/net", x710v0)
				z.lists(one, x710v0)(t)
			},
		},
		{
			name: "`-use-cdi`", peer: "off by default", ours: "the same; [CDI](#cdi) below",
			test: func(t *testing.T) {
				n := z.node(t, `{"resourceList": [{"resourceName": "net", "selectors": {"drivers": ["vfio-pci"]}}]}`)
				n.command()
				n.expectIDs("intel.com/net", x710dpdk)
				if got := n.allocated("intel.com/net", x710dpdk); len(got.CdiDevices) > 0 || len(got.Devices) == 0 {
					t.Errorf("without the flag Allocate answers %v", got)
				}
			},
		},
		{
			name: "one dash", peer: "as Go's flag package: `-config-file` or `--config-file`", elsewhere: "cmd/plugin TestLongFlags",
		},
		{
			name: "flags of glog", peer: "`-alsologtostderr -log_backtrace_at -log_dir -logtostderr -stderrthreshold -v -vmodule`",
			ours: "`-v`, `-log_dir` and `-logtostderr` do the same. The others are taken and have no effect, and the log says so", elsewhere: "cmd/plugin TestFlagsOfThePeer/every flag",
		},
		{
			name: "flags of its image", peer: "`--log-dir`: a folder below `/var/log`; `--log-level`: glog's verbosity, 10 by default",
			ours: "the same folder; verbosities and `debug`, `info`, `warn`, `error`, by default `info`", elsewhere: "cmd/plugin TestFlagsOfThePeer/image",
		},
		{
			name: "`-h`", peer: "help", test: func(t *testing.T) {
				if out := output(t, "-h"); !strings.Contains(out, "--config-file") {
					t.Errorf("help is %q", out)
				}
			},
		},
		{
			name: "`--version`", peer: "none", ours: "prints it", test: func(t *testing.T) {
				if out := output(t, "--version"); !strings.HasPrefix(out, "numalane-plugin version ") {
					t.Errorf("it prints %q", out)
				}
			},
		},
		{
			name: "the Kubernetes API", peer: "not used", ours: "not needed: without `--node-name` nothing is published, and all else is the same",
			test: func(t *testing.T) {
				kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
				must(t, os.WriteFile(kubeconfig, []byte(`{"apiVersion": "v1", "kind": "Config", "clusters": [{"name": "a", "cluster": {"server": "https://127.0.0.1:1"}}],
					"contexts": [{"name": "a", "context": {"cluster": "a"}}], "current-context": "a"}`), 0o600))
				n := z.node(t, one)
				n.command("--kubeconfig", kubeconfig, "--node-name=")
				n.expectIDs("intel.com/net", x710v0)
				n.said("--node-name is not given: nothing is published")
			},
		},
		{
			name: "HTTP", peer: "none: no probes, no metrics", ours: "`/livez`, `/readyz` and `/metrics` at 127.0.0.1:8892, by `--listen`; none with `--listen=`",
			test: func(t *testing.T) {
				if f := newCommand(nil).Flags().Lookup("listen"); f.DefValue != "127.0.0.1:8892" {
					t.Errorf("by default it is %s", f.DefValue)
				}
				n := z.node(t, one)
				n.command("--listen", "127.0.0.1:0")
				n.expectIDs("intel.com/net", x710v0)
				addr := regexp.MustCompile(`msg="serving HTTP".* addr=(\S+)`)
				n.eventually("/readyz to say so", func() bool {
					said := addr.FindStringSubmatch(n.log.String())
					if said == nil {
						return false
					}
					answer, err := http.Get("http://" + said[1] + "/readyz")
					return err == nil && answer.Body.Close() == nil && answer.StatusCode == http.StatusOK
				})
			},
		},
		{
			name: "an end with an error", peer: "exit code 0, so that the container is \"Completed\"", ours: "exit code 1, with the reason on standard error",
			elsewhere: "cmd/plugin TestScripts",
		},
	}
}

// output is what a command prints.
func output(t *testing.T, args ...string) string {
	t.Helper()
	var b bytes.Buffer
	cmd := newCommand(args)
	cmd.SetOut(&b)
	must(t, cmd.ExecuteContext(t.Context()))
	return b.String()
}
