package stream

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// drawMembers makes members that all read the same topics, with claims of any kind: true ones, of older
// generations, of partitions that others claim too or that do not exist.
func drawMembers(t *rapid.T, counts map[string]int) []candidate {
	topics := slices.Sorted(maps.Keys(counts))
	members := make([]candidate, rapid.IntRange(1, 6).Draw(t, "members"))
	for i := range members {
		m := candidate{id: fmt.Sprintf("m%d", i), topics: topics, generation: int32(rapid.IntRange(-1, 4).Draw(t, "generation"))} //nolint:gosec // small
		if rapid.Bool().Draw(t, "static") {
			m.instance = fmt.Sprintf("i%d", (i*7)%11)
		}
		for range rapid.IntRange(0, 8).Draw(t, "claims") {
			m.owned = append(m.owned, place{rapid.SampledFrom(topics).Draw(t, "topic"), rapid.IntRange(0, 9).Draw(t, "partition")})
		}
		members[i] = m
	}
	return members
}

func drawCounts(t *rapid.T) map[string]int {
	counts := map[string]int{"a": rapid.IntRange(0, 12).Draw(t, "partitions of a")}
	if rapid.Bool().Draw(t, "two topics") {
		counts["b"] = rapid.IntRange(0, 5).Draw(t, "partitions of b")
	}
	return counts
}

func TestAssignProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		counts := drawCounts(t)
		members := drawMembers(t, counts)
		shares := assign(members, counts)
		require.Equal(t, shares, assign(rapid.Permutation(members).Draw(t, "order"), counts), "the order of members says nothing")

		assigned, claims := map[place]string{}, map[place][]candidate{}
		for _, m := range members {
			for _, p := range m.owned {
				if p.partition < counts[p.topic] && !slices.ContainsFunc(claims[p], func(c candidate) bool { return c.id == m.id }) {
					claims[p] = append(claims[p], m)
				}
			}
		}
		for id, s := range shares {
			for _, p := range s.assigned {
				require.NotContains(t, assigned, p, "assigned twice")
				assigned[p] = id
			}
		}
		for _, p := range partitionsOf(counts) {
			id, given := assigned[p]
			for _, c := range claims[p] {
				if given { // whoever else claims it is older, and does not hold it up
					require.True(t, c.id == id || !slices.Contains(shares[c.id].owed, p))
					if c.id != id {
						claimed := slices.IndexFunc(claims[p], func(o candidate) bool { return o.id == id })
						require.GreaterOrEqual(t, claimed, 0, "%v went to %s while %s claims it", p, id, c.id)
						require.Greater(t, claims[p][claimed].generation, c.generation, "an older claim won")
					}
				} else {
					require.Contains(t, shares[c.id].owed, p)
				}
			}
			require.True(t, given || len(claims[p]) > 0, "%v is nobody's", p)
		}
	})
}

// settle plays generations with true claims until nothing is owed: every member keeps what it is assigned,
// and what it owes until the next join. It checks that no partition ever has two holders.
func settle(t *rapid.T, members []candidate, counts map[string]int, generation int32) (rounds int) {
	for rounds = 1; ; rounds++ {
		shares := assign(members, counts)
		owed, holder := 0, map[place]string{}
		for i := range members {
			s := shares[members[i].id]
			for _, p := range slices.Concat(s.assigned, s.owed) {
				require.NotContains(t, holder, p)
				holder[p] = members[i].id
			}
			members[i].owned, members[i].generation = s.assigned, generation
			owed += len(s.owed)
		}
		generation++
		if owed == 0 {
			return rounds
		}
		require.Less(t, rounds, 3)
	}
}

// From any group that is at rest, one that joins, leaves or adds partitions ends balanced, in at most two
// generations, and with as few moves as there can be.
func TestAssignSettles(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		counts := drawCounts(t)
		topics := slices.Sorted(maps.Keys(counts))
		var members []candidate
		var made int
		join := func() {
			made++
			members = append(members, candidate{id: fmt.Sprintf("m%d-%d", rapid.IntRange(0, 9).Draw(t, "name"), made), topics: topics, generation: noGeneration})
		}
		join()
		generation := int32(1)
		settle(t, members, counts, generation)
		for range rapid.IntRange(1, 8).Draw(t, "changes") {
			switch rapid.SampledFrom([]string{"join", "leave", "grow"}).Draw(t, "change") {
			case "join":
				join()
			case "leave":
				if len(members) > 1 {
					i := rapid.IntRange(0, len(members)-1).Draw(t, "who")
					members = slices.Delete(members, i, i+1)
				}
			case "grow":
				counts["a"] += rapid.IntRange(1, 3).Draw(t, "more")
			}
			before := map[place]string{}
			loads := make([]int, 0, len(members))
			for _, m := range members {
				for _, p := range m.owned {
					before[p] = m.id
				}
				loads = append(loads, len(m.owned))
			}
			generation += 10
			settle(t, members, counts, generation)

			total := len(partitionsOf(counts))
			low, extra := total/len(members), total%len(members)
			slices.SortFunc(loads, func(a, b int) int { return b - a })
			least := 0 // those that have most keep one more
			for i, n := range loads {
				goal := low
				if i < extra {
					goal++
				}
				least += max(0, n-goal)
			}
			moved, had := 0, 0
			for _, m := range members {
				require.GreaterOrEqual(t, len(m.owned), low)
				require.LessOrEqual(t, len(m.owned), low+min(extra, 1))
				had += len(m.owned)
				for _, p := range m.owned {
					if by, ok := before[p]; ok && by != m.id {
						moved++
					}
				}
			}
			require.Equal(t, total, had)
			require.Equal(t, least, moved, "moves")
		}
	})
}

// Members that read different topics get only those, and each partition that somebody reads has an owner.
func TestAssignMixedTopics(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		counts := map[string]int{"a": rapid.IntRange(0, 6).Draw(t, "a"), "b": rapid.IntRange(0, 6).Draw(t, "b")}
		members := make([]candidate, rapid.IntRange(1, 5).Draw(t, "members"))
		read := map[string]bool{}
		for i := range members {
			members[i] = candidate{id: fmt.Sprintf("m%d", i), generation: noGeneration}
			members[i].topics = rapid.SampledFrom([][]string{{"a"}, {"b"}, {"a", "b"}, {"gone"}}).Draw(t, "topics")
			for _, n := range members[i].topics {
				read[n] = true
			}
		}
		settle(t, members, counts, 1)
		had := map[place]bool{}
		for _, m := range members {
			for _, p := range m.owned {
				require.Contains(t, m.topics, p.topic)
				had[p] = true
			}
		}
		for _, p := range partitionsOf(counts) {
			require.Equal(t, read[p.topic], had[p], p)
		}
	})
}

// What members tell each other comes back as it was, and nothing that arrives breaks a reader.
func TestGroupMetadata(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		places := rapid.SliceOfDistinct(rapid.Custom(func(t *rapid.T) place {
			return place{rapid.StringMatching("[a-c]{1,2}").Draw(t, "topic"), rapid.IntRange(0, 50).Draw(t, "partition")}
		}), func(p place) place { return p })
		sorted := func(label string) []place {
			return slices.SortedFunc(slices.Values(places.Draw(t, label)), place.compare)
		}
		req := joinRequest{topics: []string{"a", "b"}, owned: sorted("owned"), since: 7, nonce: rapid.Int32().Draw(t, "nonce")}
		var m candidate
		m.read(encodeSubscription(&req))
		require.Equal(t, candidate{topics: req.topics, owned: req.owned, generation: 7}, m)
		m = candidate{generation: noGeneration}
		m.read(encodeEagerSubscription(&req))
		require.Equal(t, candidate{topics: req.topics, generation: noGeneration}, m)

		a := assignment{share: share{assigned: sorted("assigned"), owed: sorted("owed")}, counts: map[string]int{"a": 3, "b": 0}, more: rapid.Bool().Draw(t, "more")}
		got, err := decodeAssignment(a.encode())
		require.NoError(t, err)
		require.Equal(t, a, got)

		junk := rapid.SliceOfN(rapid.Byte(), 0, 40).Draw(t, "junk")
		(&candidate{}).read(junk)
		_, err = decodeAssignment(junk)
		if err != nil {
			require.ErrorIs(t, err, errAssignment)
		}
	})
}
