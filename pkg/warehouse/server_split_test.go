//go:build integration

package warehouse

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
)

// Identifiers of a town are numbers from firstNode; below it are parts, so that each comes before all identifiers.
const firstNode = 1000

// town is people who are merged and split at random, with what journey-writer stores of it, and what an oracle remembers.
type town struct {
	*history
	r       *rand.Rand
	nodes   int
	root    map[int]int
	members map[int][]int
	gen     map[int]uint64
	parts   int // made so far
	step    int // minutes: when each thing is known
	command uint64

	events   []townEvent
	receipts []townReceipt
	then     []map[int]int // root after each step
	told     []townMove    // in their order

	identities *Block[Identity]
	moves      *Block[Move]
	redirects  *Block[Redirect]
	eventParts *Block[EventPart]
	messages   *Block[MessagePart]
}

// townEvent is of the identifier node; step is when it was stored.
type townEvent struct {
	origin Origin
	node   int
	step   int
	time   time.Time
	cart   bool
}

type townReceipt struct {
	id    string
	armed townEvent
}

type townMove struct {
	members []int
	person  int
	split   bool
	valid   int
	known   int
}

func newTown(t *testing.T, r *rand.Rand, n int) *town {
	c := &town{
		history: newHistory(t), r: r, nodes: n, root: map[int]int{}, members: map[int][]int{}, gen: map[int]uint64{},
		identities: Identities().NewBlock(), moves: Moves().NewBlock(), redirects: Redirects().NewBlock(),
		eventParts: EventParts().NewBlock(), messages: MessageParts().NewBlock(),
	}
	for i := range n {
		c.root[firstNode+i], c.members[firstNode+i] = firstNode+i, []int{firstNode + i}
	}
	return c
}

func (c *town) roots() []int {
	var out []int
	for r := range c.members {
		out = append(out, r)
	}
	slices.Sort(out)
	return out
}

// merge makes two random people one, and publishes that up to three times.
func (c *town) merge() {
	roots := c.roots()
	if len(roots) < 2 {
		return
	}
	w, l := roots[c.r.IntN(len(roots))], roots[c.r.IntN(len(roots))]
	if w == l {
		return
	}
	if l < w {
		w, l = l, w
	}
	moved := c.members[l]
	c.members[w] = append(slices.Clone(c.members[w]), moved...)
	c.gen[w] = max(c.gen[w], c.gen[l])
	delete(c.members, l)
	for _, m := range moved {
		c.root[m] = w
	}
	move := townMove{members: moved, person: w, valid: c.r.IntN(300), known: c.step}
	c.told = append(c.told, move)
	for again := range 1 + c.r.IntN(3) {
		o := c.origin()
		version := c.gen[w]<<32 | uint64(len(c.members[w]))
		c.identities.Add(&Identity{Origin: o, Loser: id(l), Winner: id(w), Members: uint32(len(moved)), Version: version, Rule: "same_event", //nolint:gosec // small
			Cause: fmt.Sprint("c", c.step), MessageID: fmt.Sprint("m", c.step), Time: c.at(move.valid), ReceivedAt: c.at(move.valid)})
		for _, m := range moved {
			c.moves.Add(&Move{Origin: o, Node: id(m), Person: id(w), Version: version, ValidFrom: c.at(move.valid), KnownFrom: c.at(c.step + again)})
			c.redirects.Add(&Redirect{Origin: o, Profile: id(m), Current: id(w), Version: version})
		}
	}
}

// split has a random person become two or three, and tells again what was stored of it.
func (c *town) split() {
	roots := slices.DeleteFunc(c.roots(), func(r int) bool { return len(c.members[r]) < 3 })
	if len(roots) == 0 {
		return
	}
	old := roots[c.r.IntN(len(roots))]
	members := c.members[old]
	k := 2 + c.r.IntN(2)
	to := map[int]int{} // member -> part
	for i, at := range c.r.Perm(len(members)) {
		p := i
		if i >= k {
			p = c.r.IntN(k)
		}
		to[members[at]] = c.parts + p
	}
	c.parts += k
	require.Less(c.t, c.parts, firstNode)
	delete(c.members, old)
	c.command++
	name := fmt.Sprint("split", c.command)
	generation := c.gen[old] + 1
	for _, m := range members {
		p := to[m]
		if c.members[p] == nil {
			c.members[p], c.root[p], c.gen[p] = []int{p}, p, generation
		}
		c.members[p] = append(c.members[p], m)
		c.root[m] = p
		o := c.origin()
		c.identities.Add(&Identity{Origin: o, Loser: id(m), Winner: id(p), Members: 1, Version: generation << 32, Rule: "split", Cause: name, MessageID: name,
			Time: c.at(c.step), ReceivedAt: c.at(c.step), Actor: "ann", Reason: "twins"})
		c.moves.Add(&Move{Origin: o, Node: id(m), Incarnation: uint32(generation), Version: generation << 32, Person: id(p), KnownFrom: c.at(c.step)}) //nolint:gosec // small
		c.redirects.Add(&Redirect{Origin: o, Profile: id(m), Current: id(p), Version: generation << 32})
		c.told = append(c.told, townMove{members: []int{m}, person: p, split: true, known: c.step})
	}
	index := uint64(0)
	next := func() uint64 { index++; return c.command<<20 | index }
	for _, x := range c.receipts {
		if to[x.armed.node] == 0 && !slices.Contains(members, x.armed.node) {
			continue
		}
		for p := c.parts - k; p < c.parts; p++ { // every part is told
			c.messages.Add(&MessagePart{Origin: c.origin(), Receipt: x.id, Decision: x.armed.origin, Person: id(p), Command: name, Version: next(),
				Brand: "main", CartID: "cart", ArmedAt: x.armed.time, EndedAt: x.armed.time.Add(time.Hour), KnownFrom: c.at(c.step)})
		}
	}
	for _, e := range c.events {
		if slices.Contains(members, e.node) {
			c.eventParts.Add(&EventPart{Origin: c.origin(), Event: e.origin, Person: id(to[e.node]), Command: name, Version: next(), Brand: "main",
				Time: e.time, Cart: e.cart, CartID: "cart", KnownFrom: c.at(c.step)})
		}
	}
}

// happen stores an event of a random identifier, under its person of now, and now and then a receipt of what it armed.
func (c *town) happen() {
	e := townEvent{origin: c.origin(), node: firstNode + c.r.IntN(c.nodes), step: c.step, cart: c.r.IntN(2) == 0}
	e.origin.Topic, e.origin.Partition = "weft.events.identified", uint32(c.r.IntN(3)) //nolint:gosec // small
	e.time = c.at(len(c.events))
	c.events = append(c.events, e)
	row := Event{Origin: e.origin, Brand: "main", Type: "track", Name: "Product Added", Profile: id(c.root[e.node]), MessageID: fmt.Sprint("e", len(c.events)),
		AnonymousID: fmt.Sprint(e.node), Time: e.time, ReceivedAt: e.time}
	insertOne(c.shop, Events(), row)
	if e.cart && c.r.IntN(2) == 0 {
		x := townReceipt{id: fmt.Sprint("r", len(c.receipts)), armed: e}
		c.receipts = append(c.receipts, x)
		insertOne(c.shop, Receipts(), Receipt{Origin: c.origin(), Brand: "main", Journey: "cart", Outcome: "delivered", ID: x.id, CartID: "cart",
			Profile: id(c.root[e.node]), ArmedAt: e.time, SettledAt: e.time.Add(time.Hour)})
	}
}

func (c *town) flush() {
	c.t.Helper()
	for _, b := range []interface {
		Rows
		Reset()
	}{c.identities, c.moves, c.messages, c.eventParts, c.redirects} {
		text := uuid.NewString()
		for range 1 + c.r.IntN(2) { // a writer may try again
			require.NoError(c.t, c.Insert(c.t.Context(), b, token(text), time.Now))
		}
		b.Reset()
	}
}

// personAt replays what was told of an identifier up to a time: a link that does not hold yet ends it, until a split begins
// anew.
func (c *town) personAt(node, at, known int) int {
	p, over := node, false
	for _, m := range c.told {
		if m.known > known || !slices.Contains(m.members, node) {
			continue
		}
		switch {
		case m.split:
			p, over = m.person, false
		case over || m.valid > at:
			over = true
		default:
			p = m.person
		}
	}
	return p
}

// byRow asks for whose each row is, by a number of the row.
func (c *town) byRow(sql string) map[string]uuid.UUID {
	c.t.Helper()
	var rows []struct {
		Row    string    `ch:"row"`
		Person uuid.UUID `ch:"person_id"`
	}
	require.NoError(c.t, c.Select(c.t.Context(), &rows, sql))
	out := map[string]uuid.UUID{}
	for _, x := range rows {
		require.NotContains(c.t, out, x.Row)
		out[x.Row] = x.Person
	}
	return out
}

// Whatever is merged and split: an event's person, a message's and an identifier's, of today and as known at any time, is
// that of an oracle, who knows which identifier each event had.
func TestWhoseARowIsAfterSplitsIsAnOraclesAnswer(t *testing.T) {
	for seed := range uint64(2) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			const steps = 60
			c := newTown(t, rand.New(rand.NewPCG(19, seed)), 25) //nolint:gosec // a test
			for i := range steps {
				c.step = 1000 + 10*i
				c.happen()
				switch n := c.r.IntN(10); {
				case n < 6:
					c.merge()
				case n < 8:
					c.split()
				}
				now := map[int]int{}
				for k, v := range c.root {
					now[k] = v
				}
				c.then = append(c.then, now)
				if c.r.IntN(8) == 0 {
					c.flush()
				}
			}
			require.Greater(t, c.parts, 4, "it was split")
			c.flush()
			require.NoError(t, c.ReloadPersons(t.Context()))
			c.checkToday()
			for range 10 {
				k := c.r.IntN(steps)
				known := c.text(1000 + 10*k + 5)
				got := c.byRow(fmt.Sprintf("SELECT message_id AS row, person_id FROM ${database}.events_by_person_at(at = '2290-01-01', known = '%s')", known))
				for i, e := range c.events {
					if e.step <= 1000+10*k {
						require.Equal(t, id(c.then[k][e.node]), got[fmt.Sprint("e", i+1)], "event %d as known at step %d", i, k)
					}
				}
				at := c.r.IntN(330) - 10
				who := c.people(fmt.Sprintf("SELECT node, person_id FROM ${database}.identity_at(at = '%s', known = '%s')", c.text(at), known))
				for n := firstNode; n < firstNode+c.nodes; n++ {
					person, moved := who[id(n)]
					if !moved {
						person = id(n)
					}
					require.Equal(t, id(c.personAt(n, at, 1000+10*k+5)), person, "identifier %d at %d as known at step %d", n, at, k)
				}
			}
			require.EqualValues(t, 0, scalar[uint64](t, c.Client, `SELECT count() FROM (SELECT node, valid_to,
				leadInFrame(valid_from, 1, valid_to) OVER (PARTITION BY node ORDER BY valid_from ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING) AS next
				FROM ${database}.identity_intervals(known = '')) WHERE next != valid_to`))
			doubles, err := c.Doubles(t.Context(), 10)
			require.NoError(t, err)
			require.Empty(t, doubles)
		})
	}
}

// checkToday compares views and questions about one person with the oracle.
func (c *town) checkToday() {
	t := c.t
	events := c.byRow("SELECT message_id AS row, person_id FROM ${database}.events_by_person")
	require.Len(t, events, len(c.events))
	count := map[int]int{}
	for i, e := range c.events {
		require.Equal(t, id(c.root[e.node]), events[fmt.Sprint("e", i+1)], "event %d of identifier %d", i, e.node)
		count[c.root[e.node]]++
	}
	messages := c.byRow("SELECT receipt AS row, person_id FROM ${database}.messages")
	require.Len(t, messages, len(c.receipts))
	for _, x := range c.receipts {
		require.Equal(t, id(c.root[x.armed.node]), messages[x.id], "receipt %s of identifier %d", x.id, x.armed.node)
	}
	for _, r := range c.roots() {
		var want, got []string
		for _, m := range c.members[r] {
			want = append(want, id(m).String())
			person, err := c.CurrentPerson(t.Context(), id(m))
			require.NoError(t, err)
			require.Equal(t, id(r), person)
		}
		members, err := c.PersonMembers(t.Context(), id(r))
		require.NoError(t, err)
		for _, m := range members {
			got = append(got, m.String())
		}
		slices.Sort(got)
		require.ElementsMatch(t, want, slices.Compact(got))
		rows, err := c.PersonEvents(t.Context(), id(r))
		require.NoError(t, err)
		n := 0
		for _, x := range rows {
			n += int(x.Events) //nolint:gosec // small
		}
		require.Equal(t, count[r], n, "events of person %d", r)
		require.EqualValues(t, count[r], scalar[uint64](t, c.Client, "SELECT countIf(kind = 'event') FROM ${database}.person_timeline(person = ?)", id(r).String()))
		receipts := 0
		for _, x := range c.receipts {
			if c.root[x.armed.node] == r {
				receipts++
			}
		}
		require.EqualValues(t, receipts, scalar[uint64](t, c.Client, "SELECT count() FROM ${database}.receipts WHERE "+fmt.Sprintf(messagesOf, membersOf(id(r)))))
	}
}
