package identity

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// oracle is the plain union-find over all records: each identifier's component's first node.
func oracle(slots []*simSlot, all []Identifier) map[Node]Node {
	root := map[Node]Node{}
	for _, id := range all {
		root[id.Node] = id.Node
	}
	for _, slot := range slots {
		for _, r := range slot.input {
			for _, id := range r.ids[1:] {
				a, b := root[r.ids[0].Node], root[id.Node]
				for n, x := range root {
					if x == a || x == b {
						root[n] = Node(slices.MinFunc([][]byte{a[:], b[:]}, slices.Compare))
					}
				}
			}
		}
	}
	return root
}

// check compares the graph in the end with the oracle.
func (s *sim) check(all []Identifier) {
	for _, slot := range s.slots {
		if slot.applied != len(slot.input) || len(slot.outbox) > 0 {
			s.violate("a slot is not finished")
		}
	}
	all = s.withParts(all)
	want := s.components(all)
	for _, id := range all {
		n := id.Node
		v, err := decode(n, s.kv[n])
		if err != nil {
			s.violate("%v", err)
			return
		}
		at := n
		for x := v; x.linked; {
			at = x.parent
			if x, err = decode(at, s.kv[at]); err != nil {
				s.violate("%v", err)
				return
			}
		}
		if s.end[n] = at; s.latent(n) {
			continue
		}
		if at != want[n] {
			s.violate("%s is in %s, the oracle says %s", n, at, want[n])
		}
		s.checkRedirect(n, at)
		if v.parted {
			if s.published[n] != v.link {
				s.violate("it was never told that %s was split", n)
			}
			continue
		}
		if v.linked {
			if s.published[n] != v.link || s.causes[n][s.made[n].Source] == 0 {
				s.violate("the merge of %s was never published with its cause", n)
			}
			if len(s.causes[n]) != 1 {
				s.violate("the merge of %s was published with several causes", n)
			}
			continue
		}
		if v.order != nil {
			s.violate("%s is being split for ever", n)
		}
		if v.joining && !s.lateJoin(v) {
			s.violate("%s is joining for ever", n)
		}
		var members []byte
		for _, m := range all {
			if want[m.Node] == n {
				members = append(members, m.Node[:]...)
			}
		}
		if string(members) != string(v.members) && !slices.ContainsFunc(nodes(v), s.latent) {
			s.violate("the members of %s are not its component", n)
		}
	}
	s.justify()
	for n := range s.published {
		if v, err := decode(n, s.kv[n]); err != nil || !v.linked {
			s.violate("a merge of %s was published that is not in the graph", n)
		}
	}
}

// checkRedirect: a flat table that keeps, for each node, the winner of the merge with the highest version
// that lists it, tells today's profile.
func (s *sim) checkRedirect(n, root Node) {
	var best Merge
	for _, m := range s.redirects[n.String()] {
		if m.Version == best.Version && m.Winner != best.Winner {
			s.violate("two redirects of %s have one version", n)
		}
		if m.Version > best.Version {
			best = m
		}
	}
	if to := best.Winner; best.Version > 0 && to != root.String() || best.Version == 0 && n != root {
		s.violate("the redirects of %s lead to %q, it is in %s", n, to, root)
	}
}

func TestProtocolUnderFaults(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		seed := rapid.Uint64().Draw(t, "seed")
		if s := simulate(seed, mutation{}); s.bad != "" {
			t.Fatalf("seed %d: %s", seed, s.bad)
		}
	})
}

func TestProtocolSweep(t *testing.T) {
	crossed, published := 0, 0
	for seed := range uint64(1500) {
		s := simulate(seed, mutation{})
		require.Empty(t, s.bad, "seed %d", seed)
		crossed += s.crossed
		published += len(s.published)
	}
	require.Positive(t, crossed, "nobody ever crossed a foreign link")
	require.Positive(t, published)
}

// Each clause is needed: without it the oracle finds a violation.
func TestEachClauseIsNeeded(t *testing.T) {
	for name, mut := range map[string]mutation{
		"only the maker of a link publishes it":        {ownMergesOnly: true},
		"links are confirmed before they are stored":   {confirmEarly: true},
		"every link counts as confirmed":               {allConfirmed: true},
		"a joining root is linked like any other":      {hideJoining: true},
		"writes do not compare":                        {blindWrites: true},
		"batches are published before they are stored": {noSlot: true},
	} {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(4000) {
				if s := simulate(seed, mut); s.bad != "" {
					t.Logf("seed %d: %s", seed, s.bad)
					return
				}
			}
			t.Fatal("no violation found")
		})
	}
}

// Undoing needs each of these.
func TestEachClauseOfUndoingIsNeeded(t *testing.T) {
	for name, mut := range map[string]mutation{
		"a batch reads the epoch": {noEpoch: true},
		"a split is told when all that was decided before is published": {tellsEarly: true},
		"merges within are published before people are split":           {mergesUntold: true},
	} {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(4000) {
				if s := simulateUnder(seed, mut, parting); s.bad != "" {
					t.Logf("seed %d: %s", seed, s.bad)
					return
				}
			}
			t.Fatal("no violation found")
		})
	}
}

// TestUndoUnderFaults: whatever befalls whom while people are split, released, cut, blocked and forgotten, they are in the
// end those that the commits, in their order, have made.
func TestUndoUnderFaults(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		seed, regime := rapid.Uint64().Draw(t, "seed"), rapid.SampledFrom([]regime{parting, strict}).Draw(t, "regime")
		if s := simulateUnder(seed, mutation{}, regime); s.bad != "" {
			t.Fatalf("seed %d, regime %d: %s", seed, regime, s.bad)
		}
	})
}

// TestUndoSweep is the same for fixed seeds, and sees that they meet what they are there for.
func TestUndoSweep(t *testing.T) {
	carried, setAside := map[CommandKind]int{}, map[Reason]int{}
	for seed := range uint64(250) {
		for _, regime := range []regime{parting, strict} {
			s := simulateUnder(seed, mutation{}, regime)
			require.Empty(t, s.bad, "seed %d, regime %d", seed, regime)
			for kind, n := range s.carried {
				carried[kind] += n
			}
			for reason, n := range s.setAside {
				setAside[reason] += n
			}
		}
	}
	t.Logf("carried out: %v; set aside: %v", carried, setAside)
	for _, kind := range []CommandKind{
		CommandSplit, CommandErase, CommandRelease, CommandReject, CommandBlock, CommandUnblock, CommandLink,
	} {
		require.Positive(t, carried[kind], "nobody ever ordered: %s", kind)
	}
	for _, r := range []Reason{ReasonCut, ReasonBlocked, ReasonLimit} {
		require.Positive(t, setAside[r], "nobody was ever set aside for reason %s", r)
	}
}

func TestSameSeedSameRun(t *testing.T) {
	a, b := simulate(42, mutation{}), simulate(42, mutation{})
	require.Equal(t, a.keys, b.keys)
	require.Equal(t, a.published, b.published)
}

// TestLimitsUnderFaults: limits, windows, trust and caps hold after every single write, whatever befalls whom.
func TestLimitsUnderFaults(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		seed := rapid.Uint64().Draw(t, "seed")
		if s := simulateUnder(seed, mutation{}, limited); s.bad != "" {
			t.Fatalf("seed %d: %s", seed, s.bad)
		}
	})
}

// TestLimitsSweep is the same for fixed seeds, and sees that they meet what they are there for.
func TestLimitsSweep(t *testing.T) {
	unions, gaveUp, dated, refused := 0, 0, 0, map[Reason]int{}
	for seed := range uint64(3000) {
		s := simulateUnder(seed, mutation{}, limited)
		require.Empty(t, s.bad, "seed %d", seed)
		unions, gaveUp, dated = unions+s.unions, gaveUp+s.gaveUp, dated+s.dated
		for r, n := range s.refused {
			refused[r] += n
		}
	}
	t.Logf("%d unions, %d joins given up, %d roots dated first, set aside: %v", unions, gaveUp, dated, refused)
	require.Positive(t, gaveUp, "no join was ever given up")
	require.Positive(t, dated)
	for _, r := range []Reason{ReasonLimit, ReasonUntrusted, ReasonGovernor} {
		require.Positive(t, refused[r], "nobody was ever set aside for reason %s", r)
	}
}
