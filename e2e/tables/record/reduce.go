package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/numalane/numalane/e2e/tables/vector"
	"github.com/numalane/numalane/pkg/topology"
)

// reduce makes a table of what was recorded: each input once, under the first
// of its tests by name, each machine once, and in an order that does not depend
// on that of the run.
func reduce(lines []byte) ([]byte, vector.Count, error) {
	count := vector.Count{Left: map[string]int{}}
	tests := map[string]string{}
	vectors := map[string]vector.Vector{}
	var machines []string
	for line := range bytes.Lines(lines) {
		var v vector.Vector
		if err := json.Unmarshal(line, &v); err != nil {
			return nil, count, fmt.Errorf("read a vector: %w", err)
		}
		count.Recorded++
		if v.Left != "" {
			count.Left[v.Left]++
			continue
		}
		test := v.Test
		v.Test = ""
		key, err := encode(v)
		if err != nil {
			return nil, count, err
		}
		if first, known := tests[key]; !known || test < first {
			tests[key] = test
			v.Test = test
			vectors[key] = v
		}
		if nodes := machineOf(&v); nodes != nil {
			m, err := encode(*nodes)
			if err != nil {
				return nil, count, err
			}
			machines = append(machines, m)
		}
	}
	slices.Sort(machines)
	machines = slices.Compact(machines)
	var out []string
	for _, v := range vectors {
		if err := intern(&v, machines); err != nil {
			return nil, count, err
		}
		count.Add(&v)
		line, err := encode(v)
		if err != nil {
			return nil, count, err
		}
		out = append(out, line)
	}
	slices.Sort(out)
	return fmt.Appendf(nil, "{\"machines\":[\n%s\n],\"vectors\":[\n%s\n]}\n", strings.Join(machines, ",\n"), strings.Join(out, ",\n")), count, nil
}

// machineOf is where a vector has its machine; nil when it has none.
func machineOf(v *vector.Vector) *[]topology.NodeNUMA {
	switch {
	case v.Take != nil:
		return &v.Take.NUMA
	case v.Pod != nil:
		return &v.Pod.State.NUMA
	case v.Hints != nil:
		return &v.Hints.State.NUMA
	case v.Grant != nil:
		return &v.Grant.State.NUMA
	}
	return nil
}

// intern puts the machine's index in its place.
func intern(v *vector.Vector, machines []string) error {
	nodes := machineOf(v)
	if nodes == nil {
		return nil
	}
	m, err := encode(*nodes)
	if err != nil {
		return err
	}
	at, _ := slices.BinarySearch(machines, m)
	*nodes = nil
	switch {
	case v.Take != nil:
		v.Take.Machine = at
	case v.Pod != nil:
		v.Pod.State.Machine = at
	case v.Hints != nil:
		v.Hints.State.Machine = at
	case v.Grant != nil:
		v.Grant.State.Machine = at
	}
	return nil
}

func encode(v any) (string, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return "", fmt.Errorf("write %T: %w", v, err)
	}
	return string(b), nil
}
