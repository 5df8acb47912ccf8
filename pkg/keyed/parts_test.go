package keyed

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weft-cdp/weft/pkg/topic"
)

// crowd is people who are joined and split at random. Each has a key of their own at first; nodes are all keys that lead
// to a live one, open those of them that are not gone.
type crowd struct {
	*env
	rng    *rand.Rand
	live   map[string]string   // by person
	nodes  map[string][]string // by live key
	open   map[string][]string // by live key
	into   map[string]string   // by key: what it was merged into
	said   map[string][]string // by person: what its events were
	number int
}

func newCrowd(e *env, seed uint64, people int) *crowd {
	c := &crowd{
		env: e, rng: rand.New(rand.NewPCG(seed, 1)), //nolint:gosec // a seed reproduces
		live: map[string]string{}, nodes: map[string][]string{}, open: map[string][]string{}, said: map[string][]string{},
		into: map[string]string{},
	}
	for i := range people {
		p := fmt.Sprint("p", i)
		c.live[p], c.nodes[p], c.open[p] = p, []string{p}, []string{p}
	}
	return c
}

func (c *crowd) anybody() string {
	all := slices.Sorted(maps.Keys(c.live))
	return all[c.rng.IntN(len(all))]
}

// event has something happen to somebody. Whoever decided that may know an earlier key of the person.
func (c *crowd) event() {
	p := c.anybody()
	c.number++
	v := fmt.Sprint(c.number)
	c.said[p] = append(c.said[p], v)
	keys := c.open[c.live[p]]
	c.send(keys[c.rng.IntN(len(keys))], topic.KindEvent, v)
}

func (c *crowd) join() {
	w, l := c.live[c.anybody()], c.live[c.anybody()]
	if w == l {
		return
	}
	if l < w {
		w, l = l, w
	}
	c.send(l, topic.KindMerge, mergeInto(w))
	for p, k := range c.live {
		if k == l {
			c.live[p] = w
		}
	}
	c.nodes[w], c.open[w] = append(c.nodes[w], c.nodes[l]...), append(c.open[w], c.open[l]...)
	c.into[l] = w
	delete(c.nodes, l)
	delete(c.open, l)
}

// leads is the live key that a part leads to by now.
func (c *crowd) leads(s string) string {
	for c.into[s] != "" {
		s = c.into[s]
	}
	return s
}

// split makes two parts of somebody, and tells each what was before; chance befalls both meanwhile.
func (c *crowd) split(chance func()) {
	root := c.live[c.anybody()]
	nodes := c.nodes[root]
	delete(c.nodes, root)
	delete(c.open, root)
	c.number++
	parts := []string{fmt.Sprintf("0%05da", 99999-c.number), fmt.Sprintf("0%05db", 99999-c.number)} // before all that were there
	for _, s := range parts {
		c.nodes[s], c.open[s] = []string{s}, []string{s}
	}
	before, of := map[string][]string{}, map[string]string{}
	for _, p := range slices.Sorted(maps.Keys(c.live)) {
		if c.live[p] == root {
			s := parts[c.rng.IntN(2)]
			c.live[p], of[p], before[s] = s, s, append(before[s], c.said[p]...)
		}
	}
	c.event() // what is decided behind the cut may come before the records of it
	for _, n := range nodes {
		s, ok := of[n]
		if !ok { // a part of an earlier split
			s = parts[c.rng.IntN(2)]
		}
		c.send(n, topic.KindSplit, splitInto(s))
		c.nodes[c.leads(s)] = append(c.nodes[c.leads(s)], n)
		chance()
	}
	for _, s := range parts {
		for _, v := range before[s] {
			c.again(s, topic.KindEvent, v)
			chance()
		}
		c.again(s, topic.KindRefolded, "{}")
	}
}

// whole says whether each person's events, and nobody else's, are in the state that their key leads to.
func (c *crowd) whole() {
	c.t.Helper()
	want := map[string]map[string]int{}
	for p, k := range c.live {
		if want[k] == nil {
			want[k] = map[string]int{}
		}
		for _, v := range c.said[p] {
			want[k][v] = 1
		}
	}
	for p, k := range c.live {
		f := c.found(p)
		require.Equal(c.t, k, f.Live)
		if len(want[k]) == 0 {
			continue
		}
		require.NotNil(c.t, f.State, k)
		require.False(c.t, f.Waiting, k)
		require.Equal(c.t, want[k], f.State.N, "%s, of %s", k, p)
	}
}

// TestPartsAreAsIfNeverMet runs several owners against each other, cuts them off and makes Redis fail at random, while
// people are joined, split, told again, and joined again: each has all of its own records once, and none of others.
func TestPartsAreAsIfNeverMet(t *testing.T) {
	dropped := 0.0
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			c := newCrowd(newEnv(t), seed, 5)
			type owner struct {
				stop func()
				s    *Stage
			}
			start := func() owner {
				d := c.deps()
				d.Stream, d.Store = c.connect()
				s := c.parting(partFold{}, nil, d)
				return owner{run(t, s.Run), s}
			}
			owners := []owner{start(), start()}
			end := func(o owner) {
				o.stop()
				dropped += value(t, o.s.metrics.gone)
			}
			chance := func() {
				switch c.rng.IntN(12) {
				case 0:
					j := c.rng.IntN(len(owners))
					end(owners[j])
					owners[j] = start()
				case 1:
					c.redis.SetError("LOADING injected")
					time.AfterFunc(time.Duration(c.rng.IntN(20))*time.Millisecond, func() { c.redis.SetError("") })
				case 2, 3:
					c.event()
				case 4:
					c.join()
				}
			}
			for range 60 {
				switch c.rng.IntN(12) {
				case 0, 1:
					c.join()
				case 2:
					c.split(chance)
				default:
					c.event()
				}
				chance()
			}
			c.settled()
			c.whole()
			n, err := Pending(context.Background(), c.store, c.topics, topic.StageBuilder)
			require.NoError(t, err)
			require.LessOrEqual(t, n, int64(testPartitions), "moves are stuck")
			for v, reason := range c.all(c.topics.EventsRejected()) {
				t.Errorf("%s was rejected: %s", v, reason)
			}
			for _, o := range owners {
				end(o)
			}
		})
	}
	require.NotZero(t, dropped)
}
