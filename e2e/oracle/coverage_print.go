package oracle

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
)

// columns are the answers that have a column of their own, in this order; the
// rest are "other".
func columns() []string {
	return []string{
		"admitted", "TopologyAffinityError", "UnexpectedAdmissionError", "SMTAlignmentError", "EmptyPodSharedPoolError", outOfTotals, "other",
	}
}

// Print writes the tables: for all kubelets together by answer, and for each
// kubelet admitted and refused cases. What never came is a dash.
func (c *Coverage) Print(w io.Writer) {
	minors := map[int]bool{}
	for _, cell := range c.Cells {
		minors[cell.Minor] = true
	}
	versions := slices.Sorted(maps.Keys(minors))
	titles := [...]string{
		"policy, scope and who has a say", "the kubelet's options", "machine and pools", "pod",
	}
	for t, title := range titles {
		c.printTable(w, table(t), title, versions)
	}
}

func (c *Coverage) printTable(w io.Writer, t table, title string, versions []int) {
	answers := map[string]map[string]int{} // by row and column
	byMinor := map[string]map[int][2]int{} // by row: admitted, refused
	for _, cell := range c.Cells {
		if cell.Table != t {
			continue
		}
		if answers[cell.Row] == nil {
			answers[cell.Row], byMinor[cell.Row] = map[string]int{}, map[int][2]int{}
		}
		column := cell.Answer
		if !slices.Contains(columns(), column) {
			column = "other"
		}
		answers[cell.Row][column] += cell.Cases
		counts := byMinor[cell.Row][cell.Minor]
		if cell.Answer == "admitted" {
			counts[0] += cell.Cases
		} else {
			counts[1] += cell.Cases
		}
		byMinor[cell.Row][cell.Minor] = counts
	}
	rows := slices.Sorted(maps.Keys(answers))
	if t == byPolicy {
		rows = everyPolicy(rows)
	}
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	head := []string{title}
	for _, column := range columns() {
		head = append(head, strings.TrimSuffix(strings.TrimSuffix(column, "Error"), "Admission"))
	}
	for _, v := range versions {
		head = append(head, fmt.Sprintf("1.%d yes/no", v))
	}
	fmt.Fprintf(tw, "\n%s\t\n", strings.Join(head, "\t"))
	for _, row := range rows {
		fields := []string{row}
		for _, column := range columns() {
			fields = append(fields, dash(answers[row][column]))
		}
		for _, v := range versions {
			counts := byMinor[row][v]
			fields = append(fields, dash(counts[0])+"/"+dash(counts[1]))
		}
		fmt.Fprintf(tw, "%s\t\n", strings.Join(fields, "\t"))
	}
	tw.Flush()
}

// everyPolicy adds the rows that never came: a hole in the coverage is to be seen.
func everyPolicy(rows []string) []string {
	all := map[string]bool{}
	for _, r := range rows {
		all[r] = true
	}
	for _, where := range []string{
		"none", "best-effort container", "best-effort pod", "restricted container", "restricted pod",
		"single-numa-node container", "single-numa-node pod",
	} {
		for _, who := range []string{"nothing", "devices", "loose devices", "cpu", "memory", "devices+cpu", "devices+memory", "cpu+memory", "devices+cpu+memory"} {
			all[where+" · "+who] = true
		}
	}
	return slices.Sorted(maps.Keys(all))
}

func dash(n int) string {
	if n == 0 {
		return "-"
	}
	return fmt.Sprint(n)
}
