//go:build integration

package keyed

import (
	"testing"
)

// TestPartsOnRealRedis: people are joined, split, told again and joined again over two owners, which come and go, on a real
// Redis that syncs each write: each has all of its own records once, and none of others.
func TestPartsOnRealRedis(t *testing.T) {
	e := newEnv(t)
	st, _ := ownRedis(t)
	e.store = st
	c := newCrowd(e, 1, 6)
	start := func() (stop func()) {
		d := c.deps()
		d.Stream, _ = c.connect()
		return run(t, c.parting(partFold{}, nil, d).Run)
	}
	owners := []func(){start(), start()}
	for range 80 {
		switch c.rng.IntN(14) {
		case 0, 1:
			c.join()
		case 2:
			c.split(func() {
				if c.rng.IntN(4) == 0 {
					c.event()
				}
			})
		case 3:
			j := c.rng.IntN(len(owners))
			owners[j]()
			owners[j] = start()
		default:
			c.event()
		}
	}
	c.settled()
	c.whole()
	for _, stop := range owners {
		stop()
	}
}
