package oracle

import (
	"fmt"
	"io"
	"maps"
	"slices"
)

// maxTold is how many violations of one kind are told in detail.
const maxTold = 8

// Promises are those of docs/architecture.md section 10 that a run of chaos looks at.
func Promises() []string { return []string{"P1", "P2", "P3", "P4", "P5", "P6", "P7", "P8"} }

// Stands is what is looked at beside the promises: no service ends by itself, or in disorder.
const Stands = "stands"

// Verdict is what was compared, and what is not as promised.
type Verdict struct {
	Compared   map[string]int // by promise: how many things were looked at
	violations map[string][]string
	kinds      map[string]int

	Events, People, Carts, Mails int            // of the truth
	Ends                         map[string]int // receipts by outcome and reason
	Late                         int            // carts whose news came after their reminder was due
	Later                        int            // purchases that were known in time, and so must have stopped a message
}

func newVerdict() *Verdict {
	v := &Verdict{Compared: map[string]int{}, violations: map[string][]string{}, kinds: map[string]int{}, Ends: map[string]int{}}
	for _, p := range Promises() {
		v.Compared[p] = 0
	}
	return v
}

func (v *Verdict) looked(promise string) { v.Compared[promise]++ }

// Violate notes that a promise was broken.
func (v *Verdict) Violate(promise, format string, args ...any) {
	v.kinds[promise]++
	if v.kinds[promise] <= maxTold {
		v.violations[promise] = append(v.violations[promise], fmt.Sprintf(format, args...))
	}
}

// OK says that every promise was kept.
func (v *Verdict) OK() bool { return len(v.kinds) == 0 }

// Unlooked are the promises for which there was nothing to look at: what is not compared is not shown.
func (v *Verdict) Unlooked() []string {
	return slices.DeleteFunc(append(Promises(), Stands), func(p string) bool { return v.Compared[p] > 0 })
}

// Violations counts by promise.
func (v *Verdict) Violations() map[string]int { return maps.Clone(v.kinds) }

// Print writes what was compared and each violation.
func (v *Verdict) Print(w io.Writer) {
	for _, p := range slices.Sorted(maps.Keys(v.Compared)) {
		fmt.Fprintf(w, "  %s  %6d compared  %4d violations\n", p, v.Compared[p], v.kinds[p])
	}
	for _, p := range slices.Sorted(maps.Keys(v.violations)) {
		for _, text := range v.violations[p] {
			fmt.Fprintf(w, "VIOLATION %s: %s\n", p, text)
		}
		if more := v.kinds[p] - len(v.violations[p]); more > 0 {
			fmt.Fprintf(w, "VIOLATION %s: and %d more\n", p, more)
		}
	}
}
