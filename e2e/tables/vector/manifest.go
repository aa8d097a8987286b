package vector

// Manifest is how many vectors there are, so that a table that has lost some is seen.
type Manifest struct {
	Kubernetes string           `json:"kubernetes"`
	Tables     map[string]Count `json:"tables"`
}

// Count is what one of the kubelet's packages came to.
type Count struct {
	Recorded int            `json:"recorded"` // calls, with those that ask the same
	Pods     int            `json:"pods"`
	Takes    int            `json:"takes"`
	Hints    int            `json:"hints"`
	Grants   int            `json:"grants"`
	Merges   int            `json:"merges"`
	Left     map[string]int `json:"left"` // calls left out, by reason
}

// Add counts a vector.
func (c *Count) Add(v *Vector) {
	switch {
	case v.Pod != nil:
		c.Pods++
	case v.Take != nil:
		c.Takes++
	case v.Hints != nil:
		c.Hints++
	case v.Grant != nil:
		c.Grants++
	case v.Merge != nil:
		c.Merges++
	}
}
