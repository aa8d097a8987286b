package extender

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	extenderv1 "k8s.io/kube-scheduler/extender/v1"

	"github.com/numalane/numalane/pkg/allocator"
)

// FuzzDecodeArgs: whatever the body is, it is read as encoding/json reads it.
func FuzzDecodeArgs(f *testing.F) {
	for _, names := range [][]string{nil, {}, {""}, {"a"}, {"a", "b.example"}, {`qu"ote`, `back\slash`, "<html>", "ümlaut", "\x00"}} {
		b, err := json.Marshal(extenderv1.ExtenderArgs{Pod: &v1.Pod{}, NodeNames: &names})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	for _, s := range []string{
		`{"Pod":null,"NodeNames":["a","b"]}`, `{"Pod":null,"NodeNames":["a" , "b"] }`, ` {"Pod":{},"NodeNames":["a"]} `,
		`{"Pod":{},"NodeNames":["a",]}`, `{"Pod":{},"NodeNames":[,"a"]}`, `{"Pod":{},"NodeNames":["a""b"]}`, `{"Pod":{},"NodeNames":["a]}`,
		`{,"NodeNames":["a"]}`, `{ ,"NodeNames":["a"]}`, `[,"NodeNames":["a"]}`, `,"NodeNames":["a"]}`, `{"Pod":{},,"NodeNames":["a"]}`,
		`{"NodeNames":["x"],"NodeNames":["a"]}`, `{"nodenames":["x"],"NodeNames":[]}`, `{"Pod":{},"NodeNames":["a"],"NodeNames":["b"]}`,
		`{"Pod":{"metadata":{"name":",\"NodeNames\":["}},"NodeNames":["a"]}`, `{"Pod":{"x":{"y":1,"NodeNames":["a"]}}}`, `{"Pod":{"y":1,"NodeNames":["a"]}`,
		`{"Pod":{},"NodeNames":["a"]}}`, `{"Pod":{},"NodeNames":["a"]} 1`, `{"Pod":7,"NodeNames":["a"]}`, `{"Pod":{},"NodeNames":["a",7]}`, `{"Pod":{},"NodeNames":null}`,
		`{"Pod":"","NodeNames":["a"]}`, `{"x":",","NodeNames":["a"]}`, `{"Pod":{},"NodeNames":["a"]}x`, "{\"Pod\":{},\"NodeNames\":[\"a\xff\"]}", "{\"Pod\":{},\"NodeNames\":[\"a\n\"]}",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var got, want extenderv1.ExtenderArgs
		errGot, errWant := decodeArgs(append([]byte(nil), body...), &got), json.Unmarshal(body, &want)
		if (errGot == nil) != (errWant == nil) {
			t.Fatalf("%q: %v, want %v", body, errGot, errWant)
		}
		if d := cmp.Diff(want, got); d != "" && errWant == nil {
			t.Errorf("%q: -want +got:\n%s", body, d)
		}
	})
}

// TestCutNames: the call that kube-scheduler makes is one that is read fast.
func TestCutNames(t *testing.T) {
	names := make([]string, 5000)
	for i := range names {
		names[i] = fmt.Sprintf("worker-%04d.cluster.example", i)
	}
	p := &v1.Pod{}
	p.Annotations = map[string]string{"config": `{"a":",\"NodeNames\":["}`}
	body, err := json.Marshal(extenderv1.ExtenderArgs{Pod: p, NodeNames: &names})
	if err != nil {
		t.Fatal(err)
	}
	rest, got, ok := cutNames(body)
	if !ok || !json.Valid(rest) || strings.Contains(string(rest), "worker-") {
		t.Errorf("names are taken off: %t, rest %q", ok, rest)
	}
	if d := cmp.Diff(names, got); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}

// FuzzEncode: the answer is that of encoding/json, whatever the nodes' names.
func FuzzEncode(f *testing.F) {
	f.Add("a b.example c d", uint8(1), uint8(2))
	f.Add(`qu"ote back\slash <html> ümlaut`+" \x00 \xff", uint8(3), uint8(9))
	f.Add("", uint8(0), uint8(0))
	f.Fuzz(func(t *testing.T, text string, first, second uint8) {
		want := extenderv1.ExtenderFilterResult{NodeNames: &[]string{}, FailedNodes: extenderv1.FailedNodesMap{}, FailedAndUnresolvableNodes: extenderv1.FailedNodesMap{}}
		var in filtered
		for i, name := range strings.Split(text, " ") {
			reason := allocator.Reason([]uint8{0, first, second}[i%3]) % (lastReason + 1)
			switch {
			case reason == allocator.Admitted:
				in.pass = append(in.pass, name)
				*want.NodeNames = append(*want.NodeNames, name)
				continue
			case reason.Unresolvable():
				want.FailedAndUnresolvableNodes[name] = reason.String()
			default:
				want.FailedNodes[name] = reason.String()
			}
			in.refused = append(in.refused, refusal{name, reason})
		}
		b, err := in.encode()
		if err != nil {
			t.Fatal(err)
		}
		wanted, err := json.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		var got, same extenderv1.ExtenderFilterResult
		if err := json.Unmarshal(b, &got); err != nil {
			t.Fatalf("%s: %v", b, err)
		}
		if err := json.Unmarshal(wanted, &same); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(same, got); d != "" {
			t.Errorf("-want +got:\n%s", d)
		}
	})
}
