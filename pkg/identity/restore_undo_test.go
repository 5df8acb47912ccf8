package identity

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// told is what stands on identities.linked: records under their keys, in the order of each key.
type told struct {
	keys    []string
	records map[string][]func(r *Restore) error
}

func (k *told) add(key string, take func(r *Restore) error) {
	if k.records[key] == nil {
		k.keys = append(k.keys, key)
	}
	k.records[key] = append(k.records[key], take)
}

func (k *told) merges(ms []Merge) {
	for _, m := range ms {
		k.add(m.Loser, func(r *Restore) error { return r.Link(&m, true) })
	}
}

// history makes a graph by links, splits, releases, rejects, blocks and erasures, one after the other, and what was told of it.
func history(t require.TestingT, g *Graph, rng *rand.Rand, ids []Identifier) *told {
	ctx, k := context.Background(), &told{records: map[string][]func(r *Restore) error{}}
	r := NewResolver(g, 0, Policy{})
	publish := func(_ context.Context, ms []Merge) error { k.merges(ms); return nil }
	one := func() Identifier { return ids[rng.IntN(len(ids))] }
	parts := map[string]map[cut]bool{} // of splits that can be released, with their cuts
	names := map[string][]Node{}
	state := map[Node]*NodeState{}
	say := func(n Node, change func(s *NodeState)) {
		if state[n] == nil {
			state[n] = &NodeState{Node: n.String(), Command: "c"}
		}
		change(state[n])
		s := *state[n]
		k.add(s.Key(), func(r *Restore) error { return r.State(&s) })
	}
	for i := range 10 + rng.IntN(40) {
		command := fmt.Sprint("c", i)
		part := func(p int, generation uint64) Node { return simPart(i, p, generation) }
		switch a := one(); rng.IntN(10) {
		case 5:
			members, err := Members(ctx, g, a.Node)
			require.NoError(t, err)
			_, root, err := newView(g).person(ctx, a.Node)
			require.NoError(t, err)
			if len(root.cuts) > 0 { // an erasure takes away what its own side has of a cut; a graph made anew has it on both
				continue
			}
			went, err := r.Forget(ctx, members, part, publish)
			require.NoError(t, err)
			for _, p := range went {
				rec := Parted{Command: command, Node: p.Node.String(), Into: p.Into.String(), Person: members[0].String(), Generation: p.Generation}
				k.add(rec.Node, func(r *Restore) error { return r.Parted(&rec) })
			}
		case 0, 1:
			members, err := Members(ctx, g, a.Node)
			require.NoError(t, err)
			if len(members) < 2 {
				continue
			}
			o := SplitOrder{Members: members, Parts: make([][]Node, 2), Part: part}
			for j, n := range members {
				p := min(j, rng.IntN(2))
				o.Parts[p] = append(o.Parts[p], n)
			}
			if len(o.Parts[1]) == 0 {
				o.Parts[0], o.Parts[1] = o.Parts[0][1:], o.Parts[0][:1]
			}
			went, err := r.Split(ctx, o, publish)
			require.NoError(t, err)
			c := [2]string{went[0].Into.String(), ""}
			for _, p := range went {
				if p.Into != went[0].Into {
					c[1] = p.Into.String()
				}
				rec := Parted{Command: command, Node: p.Node.String(), Into: p.Into.String(), Person: members[0].String(), Generation: p.Generation, Day: p.Day, Degree: p.Degree}
				k.add(rec.Node, func(r *Restore) error { return r.Parted(&rec) })
			}
			parts[command] = nil
			for _, n := range c {
				rec := Part{Command: command, Node: n, Generation: went[0].Generation, Cuts: [][2]string{c}}
				k.add(rec.Key(), func(r *Restore) error { return r.Part(&rec) })
				node, err := ParseNode(n)
				require.NoError(t, err)
				names[command] = append(names[command], node)
			}
		case 2:
			for command, nodes := range names {
				generations, err := r.Release(ctx, nodes)
				require.NoError(t, err)
				for j, n := range nodes {
					rec := Part{Command: command, Node: n.String(), Generation: generations[j]}
					k.add(rec.Key(), func(r *Restore) error { return r.Part(&rec) })
				}
				delete(names, command)
				break
			}
		case 3:
			b := one()
			err := r.Cut(ctx, a.Node, b.Node)
			if errors.Is(err, ErrOnePerson) {
				continue
			}
			require.NoError(t, err)
			say(a.Node, func(s *NodeState) { s.Cuts = append(slices.Clone(s.Cuts), [2]string{a.Node.String(), b.Node.String()}) })
		case 4:
			blocked := rng.IntN(2) == 0
			require.NoError(t, r.SetBlocked(ctx, a.Node, blocked))
			say(a.Node, func(s *NodeState) { s.Blocked = blocked })
		default:
			q := Request{Identifiers: []Identifier{a, one()}, Cause: Cause{Source: fmt.Sprint(i), MessageID: "m", Rule: RuleSameEvent,
				Time: simEpoch.Add(time.Duration(i) * 24 * time.Hour)}}
			got, err := r.Resolve(ctx, []Request{q})
			require.NoError(t, err)
			k.merges(got[0].Merges)
			for _, m := range got[0].Merges {
				loser, err := ParseNode(m.Loser)
				require.NoError(t, err)
				require.NoError(t, r.Confirm(ctx, []Node{loser}))
			}
		}
	}
	return k
}

// TestRestoreAfterUndoing: a graph that is made anew of what was told is equal, whatever order the keys are read in, whether
// or not Kafka has thrown away what a later record of a key has replaced.
func TestRestoreAfterUndoing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		seed := rapid.Uint64().Draw(t, "seed")
		rng := rand.New(rand.NewPCG(seed, 3)) //nolint:gosec // a test
		ids := simIdentifiers(3)
		first := &mapKV{m: map[string]string{}}
		g := NewGraph(first, "weft.")
		k := history(t, g, rng, ids)
		for _, compacted := range []bool{false, true} {
			second := &mapKV{m: map[string]string{}}
			again := NewGraph(second, "weft.")
			rs := NewRestore(again, func(key string, value []byte) error { second.m[key] = string(value); return nil })
			rng.Shuffle(len(k.keys), func(i, j int) { k.keys[i], k.keys[j] = k.keys[j], k.keys[i] })
			for _, key := range k.keys {
				records := k.records[key]
				if compacted {
					records = records[len(records)-1:]
				}
				for _, take := range records {
					if err := take(rs); err != nil {
						t.Fatal(err)
					}
				}
			}
			if _, err := rs.Roots(context.Background()); err != nil {
				t.Fatal(err)
			}
			for _, id := range ids {
				want, got := personOf(t, g, id.Node), personOf(t, again, id.Node)
				if want != got {
					t.Fatalf("seed %d, compacted %v: %s was %s, and is %s", seed, compacted, id.Node, want, got)
				}
			}
		}
	})
}

// person is all that counts of a node: whose it is, what is known of that person, and of the node.
func personOf(t *rapid.T, g *Graph, n Node) string {
	v := newView(g)
	root, r, err := v.person(context.Background(), n)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("root %s, members %x, days %x, degrees %x, merges %d, generation %d, cuts %v, blocked %v", root, r.members, r.days, r.degrees, r.merges,
		r.incarnation, r.cuts, v.values[n].blocked)
}
