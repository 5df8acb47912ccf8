package identity

import (
	"flag"
	"testing"

	"github.com/stretchr/testify/require"
)

// ciUnions is how many unions TestLong makes where nobody asks for more.
const ciUnions = 2_000

var (
	flagUnions = flag.Int("identity.unions", ciUnions, "TestLong goes on until it has made this many unions")
	flagFrom   = flag.Uint64("identity.from", 0, "seed that TestLong begins with")
)

// TestLong runs schedules with and without limits, with and without undoing, until there were enough unions, from a seed on, so that runs add up.
func TestLong(t *testing.T) {
	schedules, unions, steps, faults, seed := 0, 0, 0, 0, *flagFrom
	orders := map[CommandKind]int{}
	for ; unions < *flagUnions; seed++ {
		for _, r := range []regime{free, limited, parting, strict} {
			s := simulateUnder(seed, mutation{}, r)
			require.Empty(t, s.bad, "seed %d, regime %d", seed, r)
			for kind, n := range s.carried {
				orders[kind] += n
			}
			schedules, unions, steps, faults = schedules+1, unions+s.unions, steps+s.steps, faults+s.injected
		}
		if seed%100_000 == 0 {
			t.Logf("seed %d: %d schedules, %d unions, %d steps, %d faults", seed, schedules, unions, steps, faults)
		}
	}
	t.Logf("seeds %d to %d: %d schedules, %d unions, %d steps, %d faults injected, orders carried out %v, no violation",
		*flagFrom, seed-1, schedules, unions, steps, faults, orders)
}
