package oracle

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
)

// book is what the workers share: which scenarios are to be lived, and what
// came of those that were.
type book struct {
	mu      sync.Mutex
	changed *sync.Cond

	seed      uint64
	wanted    int
	order     []int // kubelets
	kubelets  map[int]*account
	tally     tally
	wrong     []Mismatch
	unstarted map[string]int
	classes   map[string]int // mismatches that were shrunk, by class
}

// account is one kubelet's part of the cases.
type account struct {
	cases     int // of finished scenarios
	left      int // neither done nor being done
	underway  int // scenarios
	next      uint64
	free      []uint64 // numbers below next that were not finished before a resumption
	finished  map[uint64]bool
	scenarios int
}

// ticket is leave to live a scenario.
type ticket struct {
	minor int
	index uint64
	cases int // at most
	more  int // scenarios of the same machine that follow
}

func newBook(o *Options) *book {
	b := &book{seed: o.Seed, wanted: o.Cases, order: o.Kubelets, kubelets: map[int]*account{}, tally: tally{}, unstarted: map[string]int{}, classes: map[string]int{}}
	b.changed = sync.NewCond(&b.mu)
	for i, minor := range o.Kubelets {
		share := o.Cases / len(o.Kubelets)
		if i < o.Cases%len(o.Kubelets) {
			share++
		}
		b.kubelets[minor] = &account{left: share, finished: map[uint64]bool{}}
	}
	return b
}

// take gives out scenarios: the next one of the same machine to the worker that
// had the last, else one for the kubelet that is behind. It waits while others
// may give cases back, and is false at the end.
func (b *book) take(ctx context.Context, last ticket) (ticket, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for ctx.Err() == nil {
		busy := false
		var best *account
		var minor int
		for _, v := range b.order {
			a := b.kubelets[v]
			busy = busy || a.underway > 0
			if a.left > 0 && (best == nil || a.left > best.left) {
				best, minor = a, v
			}
		}
		if best != nil {
			if a := b.kubelets[last.minor]; a != nil && a.left > 0 && last.more > 0 {
				return a.issue(last.minor, last.index+1, last.more-1), true
			}
			return best.begin(minor), true
		}
		if !busy {
			return ticket{}, false
		}
		b.changed.Wait()
	}
	return ticket{}, false
}

// begin opens a block of scenarios that share a machine.
func (a *account) begin(minor int) ticket {
	if len(a.free) > 0 {
		index := a.free[0]
		a.free = a.free[1:]
		return a.issue(minor, index, 0)
	}
	index := a.next
	a.next += sharedMachine
	return a.issue(minor, index, sharedMachine-1)
}

func (a *account) issue(minor int, index uint64, more int) ticket {
	t := ticket{minor: minor, index: index, cases: min(maxCases, a.left), more: more}
	a.left -= t.cases
	a.underway++
	return t
}

// enter notes a finished scenario.
func (b *book) enter(t ticket, r *result) {
	b.mu.Lock()
	defer b.mu.Unlock()
	a := b.kubelets[t.minor]
	a.underway--
	a.scenarios++
	a.cases += r.cases
	a.left += t.cases - r.cases
	a.finished[t.index] = true
	for cell, n := range r.tally {
		b.tally[cell] += n
	}
	if r.mismatch != nil {
		b.wrong = append(b.wrong, *r.mismatch)
	}
	if r.unstarted != "" {
		b.unstarted[digits().ReplaceAllString(r.unstarted, "N")]++
	}
	b.changed.Broadcast()
}

func (b *book) wake() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.changed.Broadcast()
}

func (b *book) cases() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := 0
	for _, a := range b.kubelets {
		n += a.cases
	}
	return n
}

func (b *book) mismatches() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.wrong)
}

// worthShrinking spares the time for a mismatch like one that was shrunk already.
func (b *book) worthShrinking(m *Mismatch) bool {
	const mostOfAClass, most = 2, 12
	b.mu.Lock()
	defer b.mu.Unlock()
	all := 0
	for _, n := range b.classes {
		all += n
	}
	class := m.class()
	if b.classes[class] >= mostOfAClass || all >= most {
		return false
	}
	b.classes[class]++
	return true
}

func (b *book) report() *Report {
	b.mu.Lock()
	defer b.mu.Unlock()
	r := &Report{
		Seed: b.seed, Kubelets: b.order, Coverage: b.tally.coverage(), Mismatches: slices.Clone(b.wrong),
		Unstarted: maps.Clone(b.unstarted), Done: true,
	}
	for _, a := range b.kubelets {
		r.Cases += a.cases
		r.Scenarios += a.scenarios
		r.Done = r.Done && a.left == 0 && a.underway == 0
	}
	return r
}

// saved is a book in a file.
type saved struct {
	Seed      uint64              `json:"seed"`
	Cases     int                 `json:"cases"`
	Kubelets  []int               `json:"kubelets"`
	Accounts  map[int]savedShares `json:"accounts"`
	Coverage  Coverage            `json:"coverage"`
	Wrong     []Mismatch          `json:"mismatches,omitempty"`
	Unstarted map[string]int      `json:"unstarted,omitempty"`
}

type savedShares struct {
	Cases    int      `json:"cases"`
	Finished []uint64 `json:"finished"`
}

// errOtherRun tells that the saved run is not the one to be resumed.
var errOtherRun = errors.New("it is another run")

// load goes on from a saved run. Scenarios that were under way are lived anew.
func (b *book) load(path string) error {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // nothing to go on from
	}
	if err != nil {
		return fmt.Errorf("resume: %w", err)
	}
	var s saved
	if err := json.Unmarshal(text, &s); err != nil {
		return fmt.Errorf("resume from %s: %w", path, err)
	}
	if s.Seed != b.seed || s.Cases != b.wanted || !slices.Equal(s.Kubelets, b.order) {
		return fmt.Errorf("resume from %s: %w: seed %d, %d cases, kubelets %v", path, errOtherRun, s.Seed, s.Cases, s.Kubelets)
	}
	for minor, shares := range s.Accounts {
		a := b.kubelets[minor]
		a.cases, a.scenarios, a.left = shares.Cases, len(shares.Finished), a.left-shares.Cases
		for _, index := range shares.Finished {
			a.finished[index] = true
			a.next = max(a.next, index/sharedMachine*sharedMachine+sharedMachine)
		}
		for index := range a.next {
			if !a.finished[index] {
				a.free = append(a.free, index)
			}
		}
	}
	b.tally.merge(s.Coverage)
	b.wrong, b.unstarted = s.Wrong, s.Unstarted
	if b.unstarted == nil {
		b.unstarted = map[string]int{}
	}
	return nil
}

// SavedSeed is the seed of the run saved in a file; false when there is none.
func SavedSeed(path string) (uint64, bool) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, false
	}
	var s saved
	err = json.Unmarshal(text, &s)
	return s.Seed, err == nil
}

func (b *book) save(path string) error {
	b.mu.Lock()
	s := saved{
		Seed: b.seed, Cases: b.wanted, Kubelets: b.order, Accounts: map[int]savedShares{},
		Coverage: b.tally.coverage(), Wrong: b.wrong, Unstarted: b.unstarted,
	}
	for minor, a := range b.kubelets {
		s.Accounts[minor] = savedShares{a.cases, slices.Sorted(maps.Keys(a.finished))}
	}
	text, err := json.Marshal(s)
	b.mu.Unlock()
	if err != nil {
		return fmt.Errorf("save the run: %w", err)
	}
	if err := writeFile(path, text); err != nil {
		return fmt.Errorf("save the run: %w", err)
	}
	return nil
}

// writeFile replaces a file in one go, so that an interrupted run leaves a
// whole one.
func writeFile(path string, text []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(path+".new", text, 0o644); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

func digits() *regexp.Regexp { return regexp.MustCompile(`\d+`) }
