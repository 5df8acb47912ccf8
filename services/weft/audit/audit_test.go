package audit

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/weft-cdp/weft/pkg/event"
	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
	"github.com/weft-cdp/weft/pkg/warehouse"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	set  = topic.Set{Prefix: "t.", Partitions: 3}
	noon = time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)
)

// memory is a Kafka and a ClickHouse in memory, and a clock that each look moves on.
type memory struct {
	now      time.Time
	start    map[string][]int64
	log      map[string][][]stream.Record
	balances map[Key]*warehouse.Balance
	doubles  []warehouse.Double
	behind   int64
	onLook   func(n int)
	looks    int
}

func newMemory() *memory {
	m := &memory{now: noon, log: map[string][][]stream.Record{}, start: map[string][]int64{}, balances: map[Key]*warehouse.Balance{}}
	for _, n := range []string{set.EventsCollected(), set.EventsRejected()} {
		m.log[n] = make([][]stream.Record, set.Partitions)
		m.start[n] = make([]int64, set.Partitions)
	}
	return m
}

func (m *memory) clock() time.Time { return m.now }

func (m *memory) StartOffsets(_ context.Context, name string) ([]int64, error) {
	return m.start[name], nil
}

func (m *memory) EndOffsets(_ context.Context, name string) ([]int64, error) {
	var ends []int64
	for p, recs := range m.log[name] {
		ends = append(ends, m.start[name][p]+int64(len(recs)))
	}
	return ends, nil
}

func (m *memory) Read(_ context.Context, name string, p int, from, to int64, each func(*stream.Record) error) error {
	if from < m.start[name][p] {
		return stream.ErrOffsetOutOfRange
	}
	for i := from; i < to; i++ {
		r := m.log[name][p][i-m.start[name][p]]
		r.Offset = i
		if err := each(&r); err != nil {
			return err
		}
	}
	return nil
}

func (m *memory) Behind(context.Context, string, string) (int64, error) { return m.behind, nil }

func (m *memory) Balances(_ context.Context, _ topic.Set, from, to time.Time) ([]warehouse.Balance, error) {
	m.looks++
	m.now = m.now.Add(time.Second)
	if m.onLook != nil {
		m.onLook(m.looks)
	}
	var out []warehouse.Balance
	for _, b := range m.balances {
		if !b.Minute.Before(from) && b.Minute.Before(to) {
			out = append(out, *b)
		}
	}
	return out, nil
}

func (m *memory) Doubles(context.Context, int) ([]warehouse.Double, error) { return m.doubles, nil }

// accept puts a record of the collector into Kafka; service "" is events.collected.
func (m *memory) accept(p int, source string, at time.Time, service string, more ...topic.Header) {
	name := set.EventsCollected()
	hs := topic.MetaHeaders(event.Meta{Source: source, Brand: "main", MessageID: "m", ReceivedAt: at})
	if service != "" {
		name = set.EventsRejected()
		hs = append(hs, topic.Header{Key: topic.HeaderService, Value: []byte(service)})
	}
	m.log[name][p] = append(m.log[name][p], stream.Record{Topic: name, Partition: p, Headers: append(hs, more...)})
}

func position(partition int, seq int64) topic.Header {
	pos := topic.Position{Stage: "collector/till.sales", Partition: partition, Seq: seq}
	return topic.Header{Key: topic.HeaderPosition, Value: []byte(pos.String())}
}

func (m *memory) keep(source string, at time.Time) *warehouse.Balance {
	k := Key{"main", source, at.Truncate(time.Minute)}
	if m.balances[k] == nil {
		m.balances[k] = &warehouse.Balance{Brand: k.Brand, Source: source, Minute: k.Minute}
	}
	return m.balances[k]
}

func (m *memory) run(t *testing.T, opt Options) Report {
	t.Helper()
	opt.Topics, opt.Now = set, m.clock
	r, err := Run(t.Context(), opt, m, m)
	require.NoError(t, err)
	return r
}

func TestClosesOverAllFates(t *testing.T) {
	m := newMemory()
	r := rand.New(rand.NewPCG(7, 7))
	accepted := uint64(0)
	for i := range 3000 {
		at := noon.Add(-time.Duration(r.IntN(600)) * time.Second)
		source := []string{"web", "app"}[i%2]
		accepted++
		switch r.IntN(10) {
		case 0:
			m.accept(r.IntN(3), source, at, topic.StageCollector)
			m.keep(source, at).Rejected++
		case 1:
			m.accept(r.IntN(3), source, at, "")
			m.keep(source, at).Duplicate++
			m.accept(r.IntN(3), source, at, topic.StageStitcher) // the trace of a duplicate is no acceptance
		default:
			m.accept(r.IntN(3), source, at, "")
			m.keep(source, at).Stored++
		}
	}
	rep := m.run(t, Options{})
	require.True(t, rep.Closes())
	require.Equal(t, accepted, rep.Total().Accepted)
	require.Len(t, rep.Sources(), 2)
	require.Equal(t, 1, m.looks)

	var out strings.Builder
	require.NoError(t, rep.Print(&out, false))
	require.Contains(t, out.String(), "closes: yes\n")
	require.NotContains(t, out.String(), "2026-05-04 11:")
	out.Reset()
	require.NoError(t, rep.Print(&out, true))
	require.Contains(t, out.String(), "2026-05-04 11:")
}

func TestRepeatsOfAnInletPositionCountOnce(t *testing.T) {
	m := newMemory()
	for _, seq := range []int64{0, 1, 2, 1, 2, 3, 3} { // a crash between produce and commit
		m.accept(1, "till", noon, "", position(5, seq))
	}
	m.accept(1, "till", noon, "", position(6, 0)) // another partition of the inlet
	m.accept(2, "till", noon, topic.StageCollector, position(5, 4))
	m.accept(2, "till", noon, topic.StageCollector, position(5, 4))
	m.keep("till", noon).Stored = 5
	m.keep("till", noon).Rejected = 1
	rep := m.run(t, Options{})
	require.True(t, rep.Closes())
	require.EqualValues(t, 6, rep.Total().Accepted)
}

func TestNamesTheMinuteThatDoesNotBalance(t *testing.T) {
	m := newMemory()
	m.accept(0, "web", noon, "")
	m.accept(0, "web", noon.Add(-time.Minute), "")
	m.accept(0, "web", noon.Add(-time.Minute), "")
	m.keep("web", noon).Stored = 2
	m.keep("web", noon.Add(-time.Minute)).Stored = 1
	rep := m.run(t, Options{Wait: 3 * time.Second})
	require.False(t, rep.Closes(), "one minute's surplus does not make up for another's loss")
	require.Zero(t, rep.Total().Missing())
	require.EqualValues(t, 1, rep.Lines[0].Missing())
	require.EqualValues(t, -1, rep.Lines[1].Missing())
	var out strings.Builder
	require.NoError(t, rep.Print(&out, false))
	require.Contains(t, out.String(), "2026-05-04 11:59")
	require.Contains(t, out.String(), "closes: no\n")
}

func TestWaitsForTheStagesAndCountsWhatComesMeanwhile(t *testing.T) {
	m := newMemory()
	m.accept(0, "web", noon, "")
	m.behind = 1
	m.onLook = func(n int) {
		switch n {
		case 2:
			m.accept(2, "web", noon, "")
			m.keep("web", noon).Stored = 2
		case 3:
			m.behind = 0
		}
	}
	waits := 0
	rep := m.run(t, Options{Wait: time.Minute, OnWait: func(Report) { waits++ }})
	require.True(t, rep.Closes())
	require.EqualValues(t, 2, rep.Total().Accepted)
	require.Equal(t, 3, waits, "a lag seen before the last look at ClickHouse is looked at again")
}

func TestMinutesStillArrivingAreNotJudged(t *testing.T) {
	m := newMemory()
	old := noon.Add(-5 * time.Minute)
	m.accept(0, "web", old, "")
	m.keep("web", old).Stored = 1
	m.accept(0, "web", noon, "")
	m.onLook = func(int) { m.accept(0, "web", m.now, "") }
	rep := m.run(t, Options{Wait: 3 * time.Second})
	require.True(t, rep.Closes())
	require.True(t, rep.Total().Open)
	m.keep("web", old).Stored = 0
	m.now = noon
	rep = m.run(t, Options{Wait: 3 * time.Second})
	require.False(t, rep.Closes(), "an old minute is judged all the same")
}

func TestWhatRetentionCutIsNotJudged(t *testing.T) {
	m := newMemory()
	m.start[set.EventsCollected()][1] = 1000
	cut := noon.Add(-10 * time.Minute)
	m.accept(1, "web", cut, "")
	m.keep("web", cut).Stored = 500
	m.keep("web", cut.Add(-time.Hour)).Stored = 501
	m.accept(1, "web", noon, "")
	m.keep("web", noon).Stored = 1
	rep := m.run(t, Options{})
	require.True(t, rep.Closes())
	require.Equal(t, cut.Add(time.Minute), rep.From)
	require.EqualValues(t, 1, rep.Total().Accepted)
}

func TestSinceAndDoubles(t *testing.T) {
	m := newMemory()
	m.accept(0, "web", noon.Add(-time.Hour), "")
	m.accept(0, "web", noon, "")
	m.keep("web", noon).Stored = 1
	rep := m.run(t, Options{Since: noon.Add(-time.Minute)})
	require.True(t, rep.Closes())
	m.doubles = []warehouse.Double{{Table: "events", Topic: "t", Partition: 1, Offset: 7, Rows: 2}}
	rep = m.run(t, Options{Since: noon.Add(-time.Minute)})
	require.False(t, rep.Closes())
	var out strings.Builder
	require.NoError(t, rep.Print(&out, false))
	require.Contains(t, out.String(), "stored 2 times in events: t partition 1 offset 7")
}

func TestRecordsWithoutStampsCountAsOf1970(t *testing.T) {
	m := newMemory()
	m.log[set.EventsCollected()][0] = []stream.Record{{}}
	m.balances[Key{}] = &warehouse.Balance{Minute: time.Unix(0, 0), Rejected: 1}
	rep := m.run(t, Options{})
	require.True(t, rep.Closes())
	var out strings.Builder
	require.NoError(t, rep.Print(&out, true))
	require.Contains(t, out.String(), "(time unknown)")

	m.log[set.EventsCollected()][0] = []stream.Record{{Headers: []topic.Header{{Key: topic.HeaderSchema, Value: fmt.Append(nil, topic.SchemaVersion+1)}}}}
	_, err := Run(t.Context(), Options{Topics: set, Now: m.clock}, m, m)
	require.ErrorIs(t, err, topic.ErrNewerSchema)
}
