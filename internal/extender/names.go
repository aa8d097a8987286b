package extender

import (
	"bytes"
	"encoding/json"
	"strings"

	extenderv1 "k8s.io/kube-scheduler/extender/v1"

	"github.com/numalane/numalane/pkg/allocator"
)

// A filter call on a cluster of thousands of nodes is a list of names, asked for
// and answered. encoding/json takes many times as long for it as the answers do,
// so the lists are read and written here as far as they look as kube-scheduler
// and Kubernetes write them, and by encoding/json otherwise.

// decodeArgs is json.Unmarshal.
func decodeArgs(body []byte, args *extenderv1.ExtenderArgs) error {
	if rest, names, ok := cutNames(body); ok {
		if err := json.Unmarshal(rest, args); err == nil {
			args.NodeNames = &names
			return nil
		}
		*args = extenderv1.ExtenderArgs{}
	}
	return json.Unmarshal(body, args)
}

// cutNames takes the names off the end of a call, where kube-scheduler has them.
// The rest is JSON if the whole is; else what was taken for the names' key may
// have been something else, such as a part of a string.
func cutNames(body []byte) (rest []byte, names []string, ok bool) {
	const key = `,"NodeNames":[`
	at := bytes.Index(body, []byte(key))
	if at < 0 || len(bytes.TrimSpace(body[:at])) < len(`{"":0`) {
		return nil, nil, false
	}
	// One string for all of them.
	list, closed := strings.CutSuffix(strings.TrimRight(string(body[at+len(key):]), " \t\r\n"), "]}")
	if !closed {
		return nil, nil, false
	}
	names = []string{}
	if list != "" {
		if len(list) < 2 || list[0] != '"' || list[len(list)-1] != '"' {
			return nil, nil, false
		}
		names = strings.Split(list[1:len(list)-1], `","`)
	}
	for _, name := range names {
		if !isPlain(name) { // a quote left over among it
			return nil, nil, false
		}
	}
	return append(body[:at:at], '}'), names, true
}

// isPlain tells that a string is in JSON what it is, between quotes.
func isPlain(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}

// filtered is an extenderv1.ExtenderFilterResult.
type filtered struct {
	pass    []string
	refused []refusal
	fault   string
}

type refusal struct {
	node   string
	reason allocator.Reason
}

// encode is what json.Marshal makes of the ExtenderFilterResult, but for the
// order of the nodes.
func (f *filtered) encode() ([]byte, error) {
	if f.fault != "" {
		return json.Marshal(extenderv1.ExtenderFilterResult{Error: f.fault})
	}
	size := 128
	for _, n := range f.pass {
		size += len(n) + len(`"",`)
	}
	for i := range f.refused {
		size += len(f.refused[i].node) + len(f.refused[i].reason.String()) + len(`"":"",`)
	}
	b := make([]byte, 0, size)
	b = append(b, `{"Nodes":null,"NodeNames":[`...) // null would be no answer to kube-scheduler
	for i, n := range f.pass {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendString(b, n)
	}
	b = f.appendRefused(append(b, `],"FailedNodes":{`...), false)
	b = f.appendRefused(append(b, `},"FailedAndUnresolvableNodes":{`...), true)
	return append(b, `},"Error":""}`...), nil
}

// appendRefused writes the members of one of the two objects.
func (f *filtered) appendRefused(b []byte, unresolvable bool) []byte {
	var reason allocator.Reason
	var text []byte // of the reason, which mostly is that of the node before
	first := true
	for i := range f.refused {
		r := &f.refused[i]
		if r.reason.Unresolvable() != unresolvable {
			continue
		}
		if !first {
			b = append(b, ',')
		}
		if first || r.reason != reason {
			reason, text = r.reason, appendString(text[:0], r.reason.String())
		}
		first = false
		b = append(append(appendString(b, r.node), ':'), text...)
	}
	return b
}

func appendString(b []byte, s string) []byte {
	if isPlain(s) {
		return append(append(append(b, '"'), s...), '"')
	}
	quoted, _ := json.Marshal(s) // of a string there is no error
	return append(b, quoted...)
}
