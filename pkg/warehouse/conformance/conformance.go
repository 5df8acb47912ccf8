// Package conformance is what journey-writer's exactly-once rests on, as tests: a real ClickHouse behind
// *warehouse.Client and pkg/warehouse/memory are both held to them.
//
// It owns the questions and must not know which of the two answers.
package conformance

import (
	"context"
	"fmt"
	"io/fs"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/weft-cdp/weft/pkg/warehouse"
	"github.com/weft-cdp/weft/schemas/clickhouse"
)

// Warehouse is what is tested.
type Warehouse interface {
	Migrate(ctx context.Context, files fs.FS, log *zap.Logger) error
	Insert(ctx context.Context, rows warehouse.Rows, t warehouse.Token, now func() time.Time) error
	StoredOffsets(ctx context.Context, table, topicName string, partition int, from, to int64, since time.Time) (map[uint64]bool, error)
	HighestOffset(ctx context.Context, topicName string, partition int, tables ...string) (int64, bool, error)
	ReloadPersons(ctx context.Context) error
}

// Subject is a warehouse without a schema, of the test's own.
type Subject struct {
	Warehouse
	// Offsets is the offsets of all rows that a table holds, in ascending order.
	Offsets func(t *testing.T, table string) []uint64
	// Values is a column of all rows as text, by offset; NULL is "".
	Values func(t *testing.T, table, column string) []string
	// LoseMonth makes a table as if an insert had died before it stored the rows received in that month:
	// the rows are gone, and so are the tokens of their blocks.
	LoseMonth func(t *testing.T, table string, month time.Time)
	// Window is how many blocks a table remembers, and Others has a table store n blocks of others.
	Window int
	Others func(t *testing.T, table string, n int)
}

// Run holds a warehouse to all of it. open makes a new one for each test.
func Run(t *testing.T, open func(t *testing.T) Subject) {
	for name, test := range map[string]func(*testing.T, Subject){
		"WithoutSchemaAllIsRefused":                 withoutSchema,
		"OneTokenIsStoredOnce":                      oneToken,
		"TheTokenCountsNotTheContent":               tokenNotContent,
		"TokensAreOfOneTable":                       tokensOfTables,
		"ConcurrentInsertsOfOneTokenAreStoredOnce":  concurrent,
		"ARetryCompletesAHalfDoneInsert":            halfDone,
		"BehindTheWindowATokenIsForgotten":          window,
		"PastItsDeadlineNothingIsSent":              deadline,
		"AnEmptyInsertIsNothing":                    empty,
		"OffsetsAreReadBackByTimeOfInsertion":       readBack,
		"TheHighestOffsetIsOfTheTablesThatAreNamed": highest,
		"ValuesAreStoredAsTheyWere":                 values,
	} {
		t.Run(name, func(t *testing.T) { test(t, open(t)) })
	}
}

var start = time.Date(2026, 1, 15, 12, 0, 0, 5e6, time.UTC)

// events is n events from offset, of the given months in turn.
func events(offset, n int, months ...int) *warehouse.Block[warehouse.Event] {
	b := warehouse.Events().NewBlock()
	for i := range n {
		at := start
		if len(months) > 0 {
			at = start.AddDate(0, months[i%len(months)], 0)
		}
		b.Add(&warehouse.Event{
			Origin: warehouse.Origin{Topic: "t", Partition: 3, Offset: uint64(offset + i)}, //nolint:gosec // small
			Brand:  "main", Source: "web", Type: "track", Name: "Product Added", MessageID: fmt.Sprint("m", offset+i), Time: at, ReceivedAt: at,
		})
	}
	return b
}

func token(text string) warehouse.Token { return warehouse.Token{Text: text, Limit: time.Minute} }

func (s Subject) migrate(t *testing.T) {
	t.Helper()
	require.NoError(t, s.Migrate(t.Context(), clickhouse.Files, zap.NewNop()))
}

func (s Subject) insert(t *testing.T, b warehouse.Rows, tok string) {
	t.Helper()
	require.NoError(t, s.Insert(t.Context(), b, token(tok), time.Now))
}

func span(from, to int) (out []uint64) {
	for i := from; i < to; i++ {
		out = append(out, uint64(i)) //nolint:gosec // small
	}
	return out
}

func withoutSchema(t *testing.T, s Subject) {
	require.ErrorIs(t, s.Insert(t.Context(), events(0, 1), token("a"), time.Now), warehouse.ErrPermanent)
	_, err := s.StoredOffsets(t.Context(), warehouse.TableEvents, "t", 3, 0, 9, start)
	require.ErrorIs(t, err, warehouse.ErrPermanent)
	_, _, err = s.HighestOffset(t.Context(), "t", 3)
	require.ErrorIs(t, err, warehouse.ErrPermanent)
	s.migrate(t)
	s.insert(t, events(0, 1), "a")
	s.migrate(t) // again: nothing is lost
	require.Equal(t, span(0, 1), s.Offsets(t, warehouse.TableEvents))
	require.NoError(t, s.ReloadPersons(t.Context()))
}

func oneToken(t *testing.T, s Subject) {
	s.migrate(t)
	for range 3 {
		s.insert(t, events(0, 100), "t:3:0-100:events")
	}
	require.Equal(t, span(0, 100), s.Offsets(t, warehouse.TableEvents))
}

func tokenNotContent(t *testing.T, s Subject) {
	s.migrate(t)
	s.insert(t, events(0, 3), "a")
	s.insert(t, events(3, 3), "a") // other rows, the same token: they are not stored
	require.Equal(t, span(0, 3), s.Offsets(t, warehouse.TableEvents))
	s.insert(t, events(0, 3), "b") // the same rows, another token: they are
	require.Equal(t, []uint64{0, 0, 1, 1, 2, 2}, s.Offsets(t, warehouse.TableEvents))
}

func tokensOfTables(t *testing.T, s Subject) {
	s.migrate(t)
	s.insert(t, events(0, 2), "a")
	b := warehouse.RejectedEvents().NewBlock()
	b.Add(&warehouse.Rejected{Origin: warehouse.Origin{Topic: "t", Partition: 3, Offset: 7}, ReceivedAt: start})
	s.insert(t, b, "a")
	require.Equal(t, span(7, 8), s.Offsets(t, warehouse.TableRejected))
}

func concurrent(t *testing.T, s Subject) {
	s.migrate(t)
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			if err := s.Insert(t.Context(), events(0, 200), token("same"), time.Now); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	require.Equal(t, span(0, 200), s.Offsets(t, warehouse.TableEvents))
}

func halfDone(t *testing.T, s Subject) {
	s.migrate(t)
	s.insert(t, events(0, 30, 0, 1, 2), "a")
	s.LoseMonth(t, warehouse.TableEvents, start.AddDate(0, 1, 0))
	require.Len(t, s.Offsets(t, warehouse.TableEvents), 20)
	s.insert(t, events(0, 30, 0, 1, 2), "a")
	require.Equal(t, span(0, 30), s.Offsets(t, warehouse.TableEvents))
}

func window(t *testing.T, s Subject) {
	s.migrate(t)
	s.insert(t, events(0, 1), "a")
	s.Others(t, warehouse.TableEvents, s.Window-1)
	s.insert(t, events(0, 1), "a")
	count := func() (n int) {
		for _, offset := range s.Offsets(t, warehouse.TableEvents) {
			if offset == 0 {
				n++
			}
		}
		return n
	}
	require.Equal(t, 1, count(), "the last of the window")
	s.Others(t, warehouse.TableEvents, 1)
	s.insert(t, events(0, 1), "a")
	require.Equal(t, 2, count(), "a token that was seen again is not remembered for longer")
}

func deadline(t *testing.T, s Subject) {
	s.migrate(t)
	tok := token("late")
	tok.Deadline = start
	late := func() time.Time { return start.Add(time.Millisecond) }
	require.ErrorIs(t, s.Insert(t.Context(), events(0, 2), tok, late), warehouse.ErrDeadline)
	require.Empty(t, s.Offsets(t, warehouse.TableEvents))
	require.NoError(t, s.Insert(t.Context(), events(0, 2), tok, func() time.Time { return start }))
	require.Equal(t, span(0, 2), s.Offsets(t, warehouse.TableEvents))
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, s.Insert(cancelled, events(2, 2), token("b"), time.Now), context.Canceled)
}

func empty(t *testing.T, s Subject) {
	s.migrate(t)
	s.insert(t, warehouse.Events().NewBlock(), "a")
	s.insert(t, events(0, 1), "a")
	require.Equal(t, span(0, 1), s.Offsets(t, warehouse.TableEvents), "it takes no token")
}

func readBack(t *testing.T, s Subject) {
	s.migrate(t)
	s.insert(t, events(0, 10, 0, 1), "a")
	hour := time.Hour
	got, err := s.StoredOffsets(t.Context(), warehouse.TableEvents, "t", 3, 2, 5, time.Now().Add(-hour))
	require.NoError(t, err)
	require.Equal(t, map[uint64]bool{2: true, 3: true, 4: true}, got)
	for _, none := range []func() (map[uint64]bool, error){
		func() (map[uint64]bool, error) {
			return s.StoredOffsets(t.Context(), warehouse.TableEvents, "t", 3, 0, 10, time.Now().Add(hour))
		},
		func() (map[uint64]bool, error) {
			return s.StoredOffsets(t.Context(), warehouse.TableEvents, "t", 4, 0, 10, time.Now().Add(-hour))
		},
		func() (map[uint64]bool, error) {
			return s.StoredOffsets(t.Context(), warehouse.TableEvents, "u", 3, 0, 10, time.Now().Add(-hour))
		},
		func() (map[uint64]bool, error) {
			return s.StoredOffsets(t.Context(), warehouse.TableRejected, "t", 3, 0, 10, time.Now().Add(-hour))
		},
	} {
		got, err := none()
		require.NoError(t, err)
		require.Empty(t, got)
	}
}

func highest(t *testing.T, s Subject) {
	s.migrate(t)
	_, some, err := s.HighestOffset(t.Context(), "t", 3)
	require.NoError(t, err)
	require.False(t, some)
	s.insert(t, events(0, 10), "a")
	b := warehouse.Redirects().NewBlock()
	b.Add(&warehouse.Redirect{Origin: warehouse.Origin{Topic: "t", Partition: 3, Offset: 1<<62 + 1}, Version: 2})
	s.insert(t, b, "a")
	for _, c := range []struct {
		partition int
		tables    []string
		want      int64
		some      bool
	}{
		{3, nil, 1<<62 + 1, true}, {3, []string{warehouse.TableEvents}, 9, true},
		{3, []string{warehouse.TableEvents, warehouse.TableRedirects}, 1<<62 + 1, true},
		{3, []string{warehouse.TableRejected}, 0, false}, {2, nil, 0, false},
	} {
		got, some, err := s.HighestOffset(t.Context(), "t", c.partition, c.tables...)
		require.NoError(t, err)
		require.Equal(t, c.some, some)
		require.Equal(t, c.want, got)
	}
}

func values(t *testing.T, s Subject) {
	s.migrate(t)
	price := warehouse.Amount{Units: -123401, Some: true}
	odd := "it's \\ \"\n\t\x00 ż"
	b := warehouse.Events().NewBlock()
	b.Add(&warehouse.Event{
		Origin: warehouse.Origin{Topic: "t", Partition: 3, Offset: 0}, Name: odd, Time: start, SentAt: start, ReceivedAt: start,
		Trusted: true, Price: price, Properties: []byte(odd),
	})
	b.Add(&warehouse.Event{Origin: warehouse.Origin{Topic: "t", Partition: 3, Offset: 1}, Time: start, ReceivedAt: start})
	s.insert(t, b, "a")
	for column, want := range map[string][]string{
		"topic": {"t", "t"}, "partition": {"3", "3"}, "name": {odd, ""}, "properties": {odd, ""}, "price": {"-12.3401", ""},
		"time": {"2026-01-15 12:00:00.005", "2026-01-15 12:00:00.005"}, "sent_at": {"2026-01-15 12:00:00.005", ""},
		"trusted": {"true", "false"}, "profile_id": {"00000000-0000-0000-0000-000000000000", "00000000-0000-0000-0000-000000000000"},
		"faults": {"[]", "[]"},
	} {
		require.Equal(t, want, s.Values(t, warehouse.TableEvents, column), column)
	}
}
