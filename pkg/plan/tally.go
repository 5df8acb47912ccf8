package plan

import (
	"cmp"
	"fmt"
	"slices"
)

// maxTallied bounds the different violations that a Tally tells apart: paths hold the senders' own names.
const maxTallied = 1000

// Tally counts the violations of many events. It is for one goroutine.
type Tally struct {
	counts map[Violation]int
	Left   int // violations beyond maxTallied different ones
}

// NewTally starts at nothing.
func NewTally() *Tally { return &Tally{counts: map[Violation]int{}} }

// Add counts what was said of one event. What is only new (an event or a field that the plan does not name) is for
// DiffTraffic to say.
func (t *Tally) Add(v Verdict) {
	for _, x := range v.Violations {
		if x.Rule == Unplanned || x.Additional {
			continue
		}
		x.Detail = "" // it may quote a value
		if _, known := t.counts[x]; !known && len(t.counts) >= maxTallied {
			t.Left++
			continue
		}
		t.counts[x]++
	}
}

// Differences are the violations with their numbers, the most frequent first.
func (t *Tally) Differences() []Difference {
	type counted struct {
		Violation
		n int
	}
	var list []counted
	for x, n := range t.counts {
		list = append(list, counted{x, n})
	}
	slices.SortFunc(list, func(a, b counted) int {
		return cmp.Or(cmp.Compare(b.n, a.n), cmp.Compare(a.Rule, b.Rule), cmp.Compare(a.Path, b.Path))
	})
	var out []Difference
	for _, x := range list {
		out = append(out, Difference{Rule: x.Rule, Path: x.Path, Breaking: true, Text: fmt.Sprintf("violated by %d events (%s)", x.n, x.Action)})
	}
	if t.Left > 0 {
		out = append(out, Difference{Breaking: true, Text: fmt.Sprintf("%d more violations in other places", t.Left)})
	}
	return out
}
