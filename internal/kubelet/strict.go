package kubelet

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	kjson "sigs.k8s.io/json"
)

// envelope is what the CPU and memory managers' files have around their
// fields: from Kubernetes 1.37 the payload as a string, with a checksum of its
// own. The checksums hash Go type names and are left alone: the files are
// replaced by rename, so a torn one shows in its JSON.
type envelope struct {
	Data *string `json:"data"`
}

// unwrap decodes the payload of a manager's file, wherever its format has it.
// Every format names the policy; one that does not is unknown. The second
// result names the fields of the payload that T does not have.
func unwrap[T any](b []byte, policy func(*T) string) (T, []string, error) {
	var payload T
	var e envelope
	if err := json.Unmarshal(b, &e); err != nil {
		return payload, nil, err
	}
	known := []string{"checksum"}
	if e.Data != nil {
		b, known = []byte(*e.Data), nil
	}
	unknown, err := decode(b, &payload, known...)
	if err != nil {
		return payload, nil, err
	}
	if policy(&payload) == "" {
		return payload, nil, errors.New("no policyName: the format is unknown")
	}
	return payload, unknown, nil
}

// decode is a case-sensitive decoder that names the fields it does not know,
// those given apart. Anything else that is strange, as a field listed twice,
// is an error.
func decode(b []byte, into any, known ...string) ([]string, error) {
	strict, err := kjson.UnmarshalStrict(b, into)
	if err != nil {
		return nil, err
	}
	var unknown []string
	for _, s := range strict {
		var field kjson.FieldError
		if !errors.As(s, &field) {
			return nil, s
		}
		var name string
		if _, err := fmt.Sscanf(s.Error(), "unknown field %q", &name); err != nil {
			return nil, s
		}
		if !slices.Contains(known, name) {
			unknown = append(unknown, name)
		}
	}
	slices.Sort(unknown)
	return slices.Compact(unknown), nil
}
