package plugin

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	pluginapi "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"

	"github.com/numalane/numalane/internal/handout"
)

// grant are the devices of one container, and all that it is handed with them.
type grant struct {
	*snapshot
	ids   []string // sorted, each once
	nodes []handout.Node
	nodal []string // those of ids that have nodes
}

// grant looks the devices up. An error rejects the pod for good, so it says
// what a person can do.
func (s *snapshot) grant(ids []string) (grant, error) {
	// The kubelet's order is that of a Go map; applications want the same one
	// at each start.
	g := grant{snapshot: s, ids: slices.Compact(slices.Sorted(slices.Values(ids)))}
	at := map[string]handout.Node{}
	for _, id := range g.ids {
		d, known := s.devices[id]
		switch {
		case !known:
			return g, status.Errorf(codes.NotFound,
				"device %s is not in pool %s: create the pod again, and if that repeats look for the device in 'numalane-plugin inspect'", id, s.resource)
		case !d.Healthy:
			return g, status.Errorf(codes.FailedPrecondition,
				"device %s of pool %s is unhealthy (%s): create the pod again to get another one", id, s.resource, d.problem())
		case d.Handout.Withheld != "":
			return g, status.Errorf(codes.FailedPrecondition,
				"device %s of pool %s cannot be handed over whole: %s", id, s.resource, d.Handout.Withheld)
		}
		if len(d.Handout.Nodes) > 0 {
			g.nodal = append(g.nodal, id)
		}
		// Devices of one IOMMU group share theirs, and a runtime refuses a node
		// given twice.
		for _, n := range d.Handout.Nodes {
			there, taken := at[n.Container]
			if taken && there != n {
				return g, status.Errorf(codes.FailedPrecondition,
					"device %s of pool %s cannot be handed over beside the others: both %s and %s would be %s", id, s.resource, there.Host, n.Host, n.Container)
			}
			if !taken {
				at[n.Container] = n
				g.nodes = append(g.nodes, n)
			}
		}
	}
	return g, nil
}

// envs are the variables that sriov-network-device-plugin made the custom:
// applications read PCIDEVICE_INTEL_COM_SRIOV. A hyphen stays one.
func (g *grant) envs() (map[string]string, error) {
	info := make(map[string]map[string]map[string]string, len(g.ids))
	for _, id := range g.ids {
		info[id] = g.devices[id].Handout.Info
	}
	infoJSON, err := json.Marshal(info)
	if err != nil {
		return nil, fmt.Errorf("encode device information of pool %s: %w", g.resource, err)
	}
	key := "PCIDEVICE_" + strings.ToUpper(strings.NewReplacer(".", "_", "/", "_").Replace(g.resource))
	return map[string]string{key: strings.Join(g.ids, ","), key + "_INFO": string(infoJSON)}, nil
}

// deviceSpecs are the nodes for a runtime that is not asked by name.
func (g *grant) deviceSpecs() []*pluginapi.DeviceSpec {
	var specs []*pluginapi.DeviceSpec
	for _, n := range g.nodes {
		specs = append(specs, &pluginapi.DeviceSpec{HostPath: n.Host, ContainerPath: n.Container, Permissions: "rw"})
	}
	return specs
}

// deviceInfos are those of the devices that have one.
func (s *snapshot) deviceInfos(ids []string) map[string][]byte {
	infos := map[string][]byte{}
	for _, id := range ids {
		if text := s.devices[id].Handout.DeviceInfo; len(text) > 0 {
			infos[id] = text
		}
	}
	return infos
}

func (d Device) problem() string {
	if d.Problem == "" {
		return "no reason given"
	}
	return d.Problem
}
