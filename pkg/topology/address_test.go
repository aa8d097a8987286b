package topology_test

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/numalane/numalane/pkg/topology"
)

func TestParseAddress(t *testing.T) {
	good := map[string]topology.Address{
		"0000:00:00.0":     {},
		"0000:3b:02.7":     {Bus: 0x3b, Device: 2, Function: 7},
		"ffff:ff:1f.7":     {Domain: 0xffff, Bus: 0xff, Device: 31, Function: 7},
		"10000:01:00.0":    {Domain: 0x10000, Bus: 1},
		"c0a40001:01:00.0": {Domain: 0xc0a40001, Bus: 1},
	}
	for s, want := range good {
		a, err := topology.ParseAddress(s)
		if err != nil || a != want || a.String() != s {
			t.Errorf("%s: %+v (%s), %v; want %+v", s, a, a, err, want)
		}
	}
	if a, err := topology.ParseAddress("0000:3B:02.0"); err != nil || a.String() != "0000:3b:02.0" {
		t.Errorf("upper case: %s, %v", a, err)
	}
	for _, s := range []string{
		"", "3b:02.0", "000:3b:02.0", "100000000:3b:02.0", "0000:3b:02", "0000:3b:02.8", "0000:3b:20.0", "0000:3b:2.0",
		"0000:3b.02.0", "0000:g0:02.0", "0000:3b:02.0 ", " 0000:3b:02.0", "+000:3b:02.0", "0000:+b:02.0", "0000:3b:02.+", "-0001:3b:02.0",
		"0000:3b:02.01", "0000:3b:02.0\n", "virtio0",
	} {
		if a, err := topology.ParseAddress(s); err == nil {
			t.Errorf("%q is taken for %s", s, a)
		}
	}
}

func TestAddressOrder(t *testing.T) {
	want := []string{"0000:3b:00.0", "0000:3b:00.1", "0000:3b:02.0", "0000:a0:00.0", "ffff:00:00.0", "10000:00:00.0"}
	var addrs []topology.Address
	for _, s := range []int{5, 2, 0, 3, 4, 1} {
		addrs = append(addrs, address(t, want[s]))
	}
	slices.SortFunc(addrs, topology.Address.Compare)
	for i, a := range addrs {
		if a.String() != want[i] {
			t.Errorf("place %d: %s, want %s", i, a, want[i])
		}
	}
	if !(topology.Address{}).IsZero() || addrs[0].IsZero() {
		t.Error("IsZero")
	}
}

func TestAddressJSON(t *testing.T) {
	b, err := json.Marshal(map[string]topology.Address{"a": {Domain: 0x10000, Bus: 1}})
	if err != nil || string(b) != `{"a":"10000:01:00.0"}` {
		t.Fatalf("%s, %v", b, err)
	}
	var back map[string]topology.Address
	if err := json.Unmarshal(b, &back); err != nil || back["a"] != (topology.Address{Domain: 0x10000, Bus: 1}) {
		t.Errorf("%v, %v", back, err)
	}
	if err := json.Unmarshal([]byte(`{"a":"1:2"}`), &back); err == nil {
		t.Error("1:2 is taken for an address")
	}
}

func FuzzParseAddress(f *testing.F) {
	for _, s := range []string{"0000:3b:02.0", "10000:01:00.0", "0000:3B:1f.7", "3b:02.0", "::.", "0000:3b:02.0\x00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := topology.ParseAddress(s)
		if err != nil {
			return
		}
		if again, err := topology.ParseAddress(a.String()); err != nil || again != a {
			t.Errorf("%q is %+v, and its own form %s is %+v, %v", s, a, a, again, err)
		}
	})
}

func FuzzParseCPUSet(f *testing.F) {
	for _, s := range []string{"", "0", "0-3,8", "3-1", "0-65535", "0-65536", "0-65535,1", "1,,2", "-1", "0-3:1/2", "00", "0-99999999999"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		c, err := topology.ParseCPUSet(s)
		if err != nil {
			return
		}
		if again, err := topology.ParseCPUSet(c.String()); err != nil || !again.Equal(c) {
			t.Errorf("%q is %s, and that is %s, %v", s, c, again, err)
		}
	})
}

func TestParseCPUSet(t *testing.T) {
	for s, want := range map[string]string{"": "", "0": "0", "8,0-3": "0-3,8", "1,1": "1", "0-2,1-3": "0-3", "65535": "65535"} {
		if c, err := topology.ParseCPUSet(s); err != nil || c.String() != want {
			t.Errorf("%q: %s, %v", s, c, err)
		}
	}
	for _, s := range []string{" ", "a", "3-1", "-1", "1-", "1,", "0-99999999999", "65536", "0-65535,0", "+1"} {
		if c, err := topology.ParseCPUSet(s); err == nil {
			t.Errorf("%q is taken for %s", s, c)
		}
	}
}
