package config_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/numalane/numalane/internal/config"
)

func TestExplain(t *testing.T) {
	c, err := config.Parse([]byte(`{"resourceList": [
		{"resourceName": "one", "selectors": {"vendors": ["8086"], "pfNames": ["ens1f0#1"]}},
		{"resourceName": "fpga", "deviceType": "accelerator", "selectors": {}},
		{"resourceName": "rest", "selectors": [{"drivers": ["vfio-pci"]}, {"vendors": ["8086"], "devices": ["154c"]}]},
		{"resourceName": "late", "selectors": {}}]}`), prefix)
	if err != nil {
		t.Fatal(err)
	}
	const pf = "it is a PF with VFs"
	network := []string{"it is a network device, the pool's deviceType is accelerator"}
	want := map[string]config.Explanation{
		"0000:3b:02.2": {Pool: "intel.com/rest", Answers: []config.Answer{
			{Resource: "intel.com/one", Holds: []string{"vendor 8086"}, Fails: []string{"VF 2 of PF ens1f0 is not in its pfNames [ens1f0#1]"}},
			{Resource: "intel.com/fpga", Fails: network},
			{Resource: "intel.com/rest", Fails: []string{"driver iavf is not in its drivers [vfio-pci]"}},
			{Resource: "intel.com/rest", Selector: 1, Takes: true, Holds: []string{"vendor 8086", "device 154c"}},
			{Resource: "intel.com/late"},
		}},
		"0000:3b:00.0": {Reason: pfWithVFs, Answers: []config.Answer{
			{Resource: "intel.com/one", Holds: []string{"vendor 8086"}, Fails: []string{"PF ens1f0 is not in its pfNames [ens1f0#1]", pf}},
			{Resource: "intel.com/fpga", Fails: network},
			{Resource: "intel.com/rest", Fails: []string{"driver i40e is not in its drivers [vfio-pci]", pf}},
			{Resource: "intel.com/rest", Selector: 1, Holds: []string{"vendor 8086"}, Fails: []string{"device 1572 is not in its devices [154c]", pf}},
			{Resource: "intel.com/late", Fails: []string{pf}},
		}},
	}
	seen := 0
	for _, e := range c.Explain(host(t)) {
		w, ok := want[e.ID]
		if !ok {
			continue
		}
		seen++
		w.ID, w.Kind = e.ID, "a network device"
		if d := cmp.Diff(w, e, cmpopts.IgnoreFields(config.Explanation{}, "Device")); d != "" {
			t.Errorf("%s (-want +got):\n%s", e.ID, d)
		}
	}
	if seen != len(want) {
		t.Errorf("%d devices explained, want %d", seen, len(want))
	}
}

func TestExplainTheUplink(t *testing.T) {
	c, err := config.Parse(corpus(t, "article/configmap-aws.yaml"), prefix)
	if err != nil {
		t.Fatal(err)
	}
	want := []config.Answer{{
		Resource: "intel.com/amazon_ena", Holds: []string{"vendor 1d0f", "device ec20", "driver ena"}, Fails: []string{"it does not ask for the node's way out by address"},
	}}
	if d := cmp.Diff(want, c.Explain(amazon(t))[0].Answers); d != "" {
		t.Errorf("answers (-want +got):\n%s", d)
	}
}

// What explains a device agrees with what assigns it.
func TestExplainAgreesWithAssign(t *testing.T) {
	c, err := config.Parse([]byte(`{"resourceList": [{"resourceName": "rdma", "selectors": {"isRdma": true}},
		{"resourceName": "sf", "deviceType": "auxNetDevice", "selectors": {"auxTypes": ["sf"], "isRdma": true}},
		{"resourceName": "net", "selectors": [{"vdpaType": "vhost"}, {"drivers": ["vfio-pci"]}]}]}`), prefix)
	if err != nil {
		t.Fatal(err)
	}
	a := c.Assign(zoo(t))
	pool, reason := map[string]string{}, reasons(t, a)
	for _, p := range a.Pools {
		for _, d := range p.Devices {
			pool[d.ID()] = p.Pool.Resource
		}
	}
	for _, e := range c.Explain(zoo(t)) {
		if e.Pool != pool[e.ID] || e.Reason != reason[e.ID] {
			t.Errorf("%s: explained by %q and %q, assigned to %q and %q", e.ID, e.Pool, e.Reason, pool[e.ID], reason[e.ID])
		}
		takes := 0
		for _, answer := range e.Answers {
			if answer.Takes {
				takes++
			}
		}
		if (takes == 1) != (e.Pool != "") {
			t.Errorf("%s: %d selectors take it, and it is in pool %q", e.ID, takes, e.Pool)
		}
	}
}
