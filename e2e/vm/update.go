package vm

import (
	"context"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/numalane/numalane/e2e/vm/view"
)

// useCDI is what the comments of deploy/daemonset.yaml say of CDI.
const useCDI = `[
  {"op": "add", "path": "/spec/template/spec/containers/0/args/-", "value": "--use-cdi"},
  {"op": "add", "path": "/spec/template/spec/containers/0/volumeMounts/-", "value": {"name": "cdi", "mountPath": "/var/run/cdi"}},
  {"op": "add", "path": "/spec/template/spec/volumes/-", "value": {"name": "cdi", "hostPath": {"path": "/var/run/cdi", "type": "DirectoryOrCreate"}}}
]`

// update: the DaemonSet changes, and from then on device nodes come by CDI.
func (s *setting) update() act {
	return act{
		{{"the DaemonSet updated, to CDI: all VFs are back with the new pod, and pods have what they had", func(ctx context.Context) (string, error) {
			id, err := s.pluginContainer(ctx)
			if err != nil {
				return "", err
			}
			from := s.seen.now()
			if _, err := s.c.Client.AppsV1().DaemonSets("numalane").Patch(ctx, "numalane-plugin", types.JSONPatchType, []byte(useCDI), metav1.PatchOptions{}); err != nil {
				return "", err
			}
			gone, err := s.seen.first(ctx, from, time.Minute, "nothing allocatable", func(e view.Event) bool { return e.Devices != nil && len(e.Devices[string(netVF)]) == 0 })
			if err != nil {
				return "", err
			}
			if _, err := s.seen.first(ctx, from, 2*time.Minute, "all VFs", func(e view.Event) bool {
				return e.Time.After(gone.Time) && count(e.Devices, netVF, 0) == 4 && count(e.Devices, netVF, 1) == 3 && count(e.Devices, dpdkVF, 1) == 2
			}); err != nil {
				return "", err
			}
			if err := s.pluginReady(ctx, "containerd://"+id); err != nil {
				return "", err
			}
			return "", s.same(ctx)
		}}},
		{{"a pod has its /dev/vfio/GROUP by CDI", func(ctx context.Context) (string, error) {
			if err := s.create(ctx, "c", want{dpdk: 1, scheduler: ours}); err != nil {
				return "", err
			}
			return s.groupsOf(ctx, "c")
		}}},
	}
}
