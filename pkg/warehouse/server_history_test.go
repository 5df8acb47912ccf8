//go:build integration

package warehouse

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
)

// merge is what a merge record says of who is who. Identifiers are numbers here: the smaller one wins.
type merge struct {
	loser, winner int
	members       []int
	version       uint64
	valid, known  int // minutes
}

// randomMerges unites n identifiers at random until parts components are left. Times of receipt come in any order; a
// merge is known after the one before it, unless unordered.
func randomMerges(r *rand.Rand, n, parts int, unordered bool) []merge {
	root := make([]int, n)
	members := map[int][]int{}
	for i := range n {
		root[i], members[i] = i, []int{i}
	}
	var out []merge
	for len(members) > parts {
		w, l := root[r.IntN(n)], root[r.IntN(n)]
		if w == l {
			continue
		}
		if l < w {
			w, l = l, w
		}
		m := merge{loser: l, winner: w, members: members[l], valid: r.IntN(3 * n), known: 10 * len(out)}
		if unordered {
			m.known = r.IntN(10 * n)
		}
		members[w] = append(slices.Clone(members[w]), members[l]...)
		delete(members, l)
		for _, i := range m.members {
			root[i] = w
		}
		m.version = uint64(len(members[w])) //nolint:gosec // a length
		out = append(out, m)
	}
	return out
}

// personAt is whose an identifier was: the merges that moved it, in the order in which they were made, up to the first
// that does not hold yet. Of those alone that are known.
func personAt(merges []merge, n, at, known int) int {
	for _, m := range merges {
		if m.known > known || !slices.Contains(m.members, n) {
			continue
		}
		if m.valid > at {
			break
		}
		n = m.winner
	}
	return n
}

// componentAt is the first identifier of a component whose links are the merges, loser to winner, that hold.
func componentAt(merges []merge, n, at, known int) int {
	for {
		i := slices.IndexFunc(merges, func(m merge) bool { return m.loser == n && m.valid <= at && m.known <= known })
		if i < 0 {
			return n
		}
		n = merges[i].winner
	}
}

// history is the tables behind the views of who somebody was.
type history struct {
	*shop
	zero time.Time
}

func newHistory(t *testing.T) *history {
	s := newShop(t)
	return &history{s, s.start}
}

func (h *history) at(minutes int) time.Time { return h.zero.Add(time.Duration(minutes) * time.Minute) }

func (h *history) text(minutes int) string {
	return h.at(minutes).Format("2006-01-02 15:04:05")
}

// moves is the rows of a merge, as journey-writer makes them, known later by late minutes.
func (h *history) moves(b *Block[Move], m merge, late int) {
	o := h.origin()
	for _, n := range m.members {
		b.Add(&Move{Origin: o, Node: id(n), Person: id(m.winner), Version: m.version, ValidFrom: h.at(m.valid), KnownFrom: h.at(m.known + late)})
	}
}

// people asks a view for everybody.
func (h *history) people(sql string, args ...any) map[uuid.UUID]uuid.UUID {
	h.t.Helper()
	var rows []struct {
		Node   uuid.UUID `ch:"node"`
		Person uuid.UUID `ch:"person_id"`
	}
	require.NoError(h.t, h.Select(h.t.Context(), &rows, sql, args...))
	out := map[uuid.UUID]uuid.UUID{}
	for _, r := range rows {
		require.NotContains(h.t, out, r.Node, "one person at a time")
		out[r.Node] = r.Person
	}
	return out
}

// Whatever is merged, in whatever order the merges come and however often: everybody's person at any time, as known at
// any time, is that of an oracle.
func TestWhoSomebodyWasIsAnOraclesAnswer(t *testing.T) {
	for seed, unordered := range []bool{false, true, false} {
		t.Run(fmt.Sprint(seed, unordered), func(t *testing.T) {
			const n = 40
			r := rand.New(rand.NewPCG(7, uint64(seed))) //nolint:gosec // a test
			h := newHistory(t)
			merges := randomMerges(r, n, 1+r.IntN(4), unordered)
			// Each comes one to three times, in any order, some together; copies are published later, with a version that
			// may be any up to the winner's own last one.
			type arrival struct {
				merge
				late int
			}
			var arrivals []arrival
			for _, m := range merges {
				arrivals = append(arrivals, arrival{m, 0})
				last := m.version
				for _, later := range merges {
					if later.loser == m.winner {
						last = uint64(len(later.members)) //nolint:gosec // a length
					}
				}
				for range r.IntN(3) {
					again := m
					again.version += r.Uint64N(last - m.version + 1)
					arrivals = append(arrivals, arrival{again, 1 + r.IntN(500)})
				}
			}
			r.Shuffle(len(arrivals), func(i, j int) { arrivals[i], arrivals[j] = arrivals[j], arrivals[i] })
			for len(arrivals) > 0 {
				size := min(len(arrivals), 1+r.IntN(30))
				b := Moves().NewBlock()
				for _, a := range arrivals[:size] {
					h.moves(b, a.merge, a.late)
				}
				text := uuid.NewString()
				for range 1 + r.IntN(2) { // a writer may try again
					require.NoError(t, h.Insert(t.Context(), b, token(text), time.Now))
				}
				arrivals = arrivals[size:]
			}
			for range 12 {
				at, known := r.IntN(3*n+10)-5, r.IntN(10*n+10)-5
				ask, everything := fmt.Sprintf("known = '%s'", h.text(known)), r.IntN(3) == 0
				if everything {
					ask, known = "known = ''", 1<<30
				}
				got := h.people(fmt.Sprintf("SELECT node, person_id FROM ${database}.identity_at(at = '%s', %s)", h.text(at), ask))
				for i := range n {
					want := personAt(merges, i, at, known)
					person, moved := got[id(i)]
					if !moved {
						person = id(i)
					}
					require.Equal(t, id(want), person, "identifier %d at %d as known at %d", i, at, known)
					if !unordered || everything {
						require.Equal(t, componentAt(merges, i, at, known), want, "the oracles agree")
					}
				}
			}
			// Intervals have no gaps and do not overlap.
			require.EqualValues(t, 0, scalar[uint64](t, h.Client, `SELECT count() FROM (SELECT node, valid_to,
				leadInFrame(valid_from, 1, valid_to) OVER (PARTITION BY node ORDER BY valid_from ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING) AS next
				FROM ${database}.identity_intervals(known = '')) WHERE next != valid_to`))
		})
	}
}

// A split gives an identifier a new history; what was known before it stays as it was known.
func TestASplitIsANewIncarnation(t *testing.T) {
	h := newHistory(t)
	b := Moves().NewBlock()
	h.moves(b, merge{loser: 3, winner: 2, members: []int{3}, version: 2, valid: 0, known: 0}, 0)
	h.moves(b, merge{loser: 2, winner: 1, members: []int{2, 3}, version: 4, valid: 10, known: 10}, 0)
	// At 50 it is known that 3 never was 2, and at 60 that it has been 9 since minute 5.
	b.Add(&Move{Origin: h.origin(), Node: id(3), Incarnation: 1, Version: 1 << 32, Person: id(3), KnownFrom: h.at(50)})
	b.Add(&Move{Origin: h.origin(), Node: id(3), Version: 1<<32 | 2, Person: id(0), ValidFrom: h.at(5), KnownFrom: h.at(60)})
	require.NoError(t, h.Insert(t.Context(), b, token("x"), time.Now))
	who := func(at, known int) string {
		got := h.people(fmt.Sprintf("SELECT node, person_id FROM ${database}.identity_at(at = '%s', known = '%s')", h.text(at), h.text(known)))
		out := make([]string, 0, len(got))
		for _, node := range slices.SortedFunc(maps.Keys(got), func(a, b uuid.UUID) int { return strings.Compare(a.String(), b.String()) }) {
			out = append(out, node.String()[35:]+"="+got[node].String()[35:])
		}
		return strings.Join(out, " ")
	}
	require.Equal(t, "2=1 3=1", who(20, 40))
	require.Equal(t, "2=2 3=2", who(7, 40))
	require.Equal(t, "2=1 3=3", who(20, 55))
	require.Equal(t, "2=1 3=0", who(20, 65))
	require.Equal(t, "2=2 3=0", who(7, 65))
	require.Equal(t, "2=2 3=3", who(4, 65))
}

func TestEventsUnderThePersonOfATime(t *testing.T) {
	h := newHistory(t)
	b := Moves().NewBlock()
	h.moves(b, merge{loser: 2, winner: 1, members: []int{2}, version: 2, valid: 10, known: 20}, 0)
	h.moves(b, merge{loser: 1, winner: 0, members: []int{1, 2}, version: 4, valid: 30, known: 40}, 0)
	require.NoError(t, h.Insert(t.Context(), b, token("x"), time.Now))
	for i, minutes := range []float64{5, 15, 35} {
		h.event(2, minutes, fmt.Sprint("two", i))
		h.event(7, minutes, fmt.Sprint("seven", i))
	}
	insertOne(h.shop, Identities(), Identity{Origin: h.origin(), Loser: id(2), Winner: id(1), Time: h.at(10), ReceivedAt: h.at(10), Type: "email", Value: "ann@example.org", Node: id(2)})
	insertOne(h.shop, Identities(), Identity{Origin: h.origin(), Loser: id(2), Winner: id(1), Time: h.at(10), ReceivedAt: h.at(10), N: 1, Type: "user_id", Value: "Ann", Node: id(0)})
	list := func(view string) string {
		return strings.Join(h.lines("SELECT concat(name, '=', right(toString(person_id), 1)) FROM ${database}."+view+" ORDER BY name"), " ")
	}
	at := func(at, known int) string {
		return list(fmt.Sprintf("events_by_person_at(at = '%s', known = '%s')", h.text(at), h.text(known)))
	}
	require.Equal(t, "seven0=7 seven1=7 seven2=7 two0=1 two1=1 two2=1", at(29, 50))
	require.Equal(t, "seven0=7 seven1=7 seven2=7 two0=2 two1=2 two2=2", at(29, 19))
	require.Equal(t, "seven0=7 seven1=7 seven2=7 two0=0 two1=0 two2=0", at(30, 40))
	require.Equal(t, "seven0=7 seven1=7 seven2=7 two0=2 two1=1 two2=0", list("events_by_person_then(known = '')"))
	require.Equal(t, "seven0=7 seven1=7 seven2=7 two0=2 two1=1 two2=1", list(fmt.Sprintf("events_by_person_then(known = '%s')", h.text(25))))
	of := func(typ, value string, at int) string {
		return strings.Join(h.lines(fmt.Sprintf("SELECT right(toString(person_id), 1) FROM ${database}.person_of(type = '%s', value = '%s', at = '%s', known = '')", typ, value, h.text(at))), " ")
	}
	require.Equal(t, "2", of("email", "ANN@example.org", 9))
	require.Equal(t, "1", of("email", "ann@example.org", 29))
	require.Equal(t, "0", of("email", "ann@example.org", 30))
	require.Equal(t, "0", of("user_id", "Ann", 9), "who never moved is himself")
	require.Empty(t, of("user_id", "ann", 9), "letter case counts")
	_, err := h.Query(t.Context(), "SELECT * FROM ${database}.identity_at(at = 'tomorrow', known = '')")
	require.Error(t, err)
}

// costBlock is the moves of n identifiers that are united two random ones at a time until they are one person. Which of
// two people wins is random, too, as ids are keyed hashes.
func costBlock(r *rand.Rand, n int) (b *Block[Move], last int) {
	ids := make([]uuid.UUID, n)
	for i := range ids {
		ids[i] = uuid.UUID{0: byte(r.Uint32()), 1: byte(r.Uint32())}
		for j := range ids[i] {
			ids[i][j] = byte(r.Uint32())
		}
	}
	slices.SortFunc(ids, func(a, b uuid.UUID) int { return strings.Compare(a.String(), b.String()) })
	b = Moves().NewBlock()
	at := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	for i, m := range randomMerges(r, n, 1, false) {
		for _, node := range m.members {
			b.Add(&Move{Origin: Origin{Topic: "weft.events.identified", Partition: uint32(i % 12), Offset: uint64(i)}, //nolint:gosec // small
				Node: ids[node], Person: ids[m.winner], Version: m.version, ValidFrom: at.Add(time.Duration(i) * time.Second), KnownFrom: at.Add(time.Duration(i)*time.Second + 80*time.Millisecond)})
		}
		last = len(m.members)
	}
	return b, last
}

// A history grows with the logarithm of the person, not with the square: whoever loses is drawn by a keyed hash, so that
// an identifier's person changes about ln(n) times at most, whatever the order of merges (ADR 0013).
func TestWhatAHistoryCosts(t *testing.T) {
	c := newDatabase(t)
	for seed, n := range []int{2, 10, 100, 1000, 10_000} {
		b, last := costBlock(rand.New(rand.NewPCG(11, uint64(seed))), n) //nolint:gosec // a test
		require.LessOrEqual(t, b.Rows(), 4*n*len(fmt.Sprint(n)), "rows of a person of %d", n)
		began := time.Now()
		require.NoError(t, c.Insert(t.Context(), b, token(fmt.Sprint(n)), time.Now))
		took := time.Since(began)
		size := scalar[uint64](t, c, "SELECT sum(data_compressed_bytes) FROM system.parts WHERE database = '${database}' AND table = 'identity_moves' AND active AND name LIKE ?", fmt.Sprintf("all_%d_%%", seed+1))
		t.Logf("%6d identifiers: %d merges, %d moves, %.1f per merge, the last merge %d; %d bytes, %.0f per move; one insert of all in %s",
			n, n-1, b.Rows(), float64(b.Rows())/float64(n-1), last, size, float64(size)/float64(b.Rows()), took.Round(time.Millisecond))
	}
	began := time.Now()
	people := scalar[uint64](t, c, "SELECT uniqExact(person_id) FROM ${database}.identity_at(at = '2026-03-01 00:30:00', known = '')")
	t.Logf("everybody at a time: %d people in %s", people, time.Since(began).Round(time.Millisecond))
	// One merge that moves 10,000 identifiers.
	b := Moves().NewBlock()
	for i := range 10_000 {
		b.Add(&Move{Origin: Origin{Topic: "t", Offset: 1 << 40}, Node: id(i), Person: id(1 << 20), Version: 10_001, ValidFrom: time.Unix(1e9, 0), KnownFrom: time.Unix(1e9, 0)})
	}
	began = time.Now()
	require.NoError(t, c.Insert(t.Context(), b, token("one"), time.Now))
	t.Logf("one merge of 10,000 identifiers: %s", time.Since(began).Round(time.Millisecond))
}
