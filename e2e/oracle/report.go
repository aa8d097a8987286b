package oracle

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
)

// Print writes what the cases covered, what did not start and what was not
// foretold in numbers. The mismatches themselves have a Print of their own.
func (r *Report) Print(w io.Writer) {
	r.Coverage.Print(w)
	fmt.Fprintf(w, "\n%d scenarios in %s", r.Scenarios, r.Took.Round(time.Second/10))
	if len(r.Unstarted) > 0 {
		fmt.Fprint(w, "; kubelets that refused to start:")
	}
	fmt.Fprintln(w)
	for _, why := range slices.Sorted(maps.Keys(r.Unstarted)) {
		fmt.Fprintf(w, "  %d: %s\n", r.Unstarted[why], why)
	}
	classes := map[string]int{}
	for i := range r.Mismatches {
		classes[r.Mismatches[i].class()]++
	}
	for _, class := range slices.Sorted(maps.Keys(classes)) {
		fmt.Fprintf(w, "  %d not foretold: %s\n", classes[class], class)
	}
}

// Line is the run in one line.
func (r *Report) Line() string {
	var versions []string
	for _, minor := range r.Kubelets {
		versions = append(versions, fmt.Sprintf("1.%d", minor))
	}
	return fmt.Sprintf("oracle: %d cases, %d mismatches, kubelets %s", r.Cases, len(r.Mismatches), strings.Join(versions, " "))
}
