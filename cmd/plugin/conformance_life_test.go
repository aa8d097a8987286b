package main

import (
	"os"
	"path/filepath"
	"testing"
)

func lifeRows(z *zoo) []row {
	return []row{
		{
			name: "sockets", peer: "one a pool, `<prefix>_<name>.sock`; in `plugins_registry` if that is there, else in `device-plugins`", ours: "one a pool, in `device-plugins`",
			test: func(t *testing.T) {
				n := z.node(t, `{"resourceList": [{"resourceName": "one", "selectors": {"pfNames": ["eno1#0"]}}, {"resourceName": "two", "selectors": {"pfNames": ["eno1"]}}]}`)
				must(t, os.Mkdir(filepath.Join(n.root, "plugins_registry"), 0o755))
				n.command()
				n.expectIDs("intel.com/one", x710v0)
				n.expectIDs("intel.com/two", x710v1, x710v2, x710dpdk)
				one, two := n.socket("intel.com/one"), n.socket("intel.com/two")
				for _, socket := range []string{one, two} {
					if info, err := os.Stat(filepath.Join(n.pluginDir(), socket)); err != nil || info.Mode().Type() != os.ModeSocket {
						t.Errorf("%s: %v, %v", socket, info, err)
					}
				}
				if one == two {
					t.Errorf("both are served at %s", one)
				}
			},
		},
		{
			name: "a socket's name", peer: "the same at each registration, which a kubelet of 1.37 refuses while it knows the old one", ours: "used for one registration only",
			elsewhere: "e2e/registration TestUniqueSockets",
		},
		{
			name: "the kubelet's other root folder", peer: "does not work: the kubelet is told a path of the container (its issue 586)", ours: "`--kubelet-dir`", elsewhere: "e2e/registration TestAnotherRootFolder",
		},
		{
			name: "no kubelet at start", peer: "in `device-plugins`: fatal", ours: "waits for it", elsewhere: "internal/plugin TestPluginBeforeKubelet",
		},
		{
			name: "the kubelet restarts", peer: "in `device-plugins`: its own socket is looked for every 5 s, then all servers start again", ours: "registered again at once, one time a pool", elsewhere: "e2e/registration TestKubeletRestart",
		},
		{
			name: "the kubelet's stream ends, the socket stays", peer: "never noticed (its issue 411)", ours: "a new session", elsewhere: "e2e/registration TestStreamEndIsTheSign",
		},
		{
			name: "the plugin's socket is removed", peer: "noticed in `device-plugins`, within 5 s; in `plugins_registry` never", ours: "a new session", elsewhere: "e2e/registration TestOwnSocketRemoved",
		},
		{
			name: "what a lost stream leaves", peer: "a goroutine that takes updates from the next stream, and a signal that ends it", ours: "nothing", elsewhere: "internal/plugin TestKubeletComesBack",
		},
		{
			name: "options", peer: "both off", ours: "answered before the kubelet asks for devices", elsewhere: "e2e/registration TestOptionsBeforeRegister",
		},
		{
			name: "the configuration changes", peer: "not noticed; SIGHUP ends the process", ours: "taken up without a restart; with a mistake in it the last good one stays", elsewhere: "cmd/plugin TestConfigurationChanges",
		},
		{
			name: "a ConfigMap changes", peer: "not noticed", ours: "as above, when the kubelet has updated the mount", elsewhere: "internal/reload TestConfigMap",
		},
		{
			name: "a pool without devices at start", peer: "skipped for good", ours: "registered when it has some", elsewhere: "e2e/registration TestNoDevicesAtFirst",
		},
		{
			name: "a pool leaves the configuration", peer: "its resource stays on the Node with capacity 0", ours: "the same, when no pod holds of it", elsewhere: "internal/plugin TestPoolLeavesConfiguration",
		},
		{
			name: "the plugin ends", peer: "nothing can be allocated at once; the capacity stays", elsewhere: "e2e/registration TestPluginGone",
		},
		{
			name: "two plugins, in an update with a surge", peer: "the same socket for both", ours: "the younger has the pools", elsewhere: "e2e/registration TestSurgeUpgrade",
		},
		{
			name: "sockets of a plugin that was killed", peer: "have the name of the next one's", ours: "removed, if nobody listens", elsewhere: "e2e/registration TestStaleSockets",
		},
		{
			name: "a pod that the kubelet starts again after a reboot", peer: "is handed the answer of before, in which `/dev/vfio/N` may now be another's (its issue 451)",
			ours: "the same: create such a pod again. Nothing else in the answer may change", elsewhere: "e2e/registration TestReboot",
		},
		{
			name: "rights", peer: "hostNetwork, privileged", ours: "hostNetwork; not privileged, without capabilities, with a file system that cannot be written", elsewhere: "deploy TestPluginPod",
		},
		{
			name: "at rest", peer: "looks at each pool every 20 s, for nothing; about 20 MB", ours: "nothing to do: below 40 MB and 0.5% of a core", elsewhere: "e2e TestAtRest",
		},
	}
}
