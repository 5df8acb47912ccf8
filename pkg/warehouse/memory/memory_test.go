package memory

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/weft-cdp/weft/pkg/warehouse"
	"github.com/weft-cdp/weft/pkg/warehouse/conformance"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConformance(t *testing.T) {
	conformance.Run(t, func(*testing.T) conformance.Subject {
		s := NewServer(Options{Window: 20})
		sorted := func(table string) []Row {
			rows := s.Rows(table)
			slices.SortFunc(rows, func(a, b Row) int { return int(a.Offset) - int(b.Offset) }) //nolint:gosec // small
			return rows
		}
		return conformance.Subject{
			Warehouse: s.Client(nil), Window: 20,
			Offsets: func(_ *testing.T, table string) (out []uint64) {
				for _, r := range sorted(table) {
					out = append(out, r.Offset)
				}
				return out
			},
			Values: func(_ *testing.T, table, column string) (out []string) {
				for _, r := range sorted(table) {
					out = append(out, r.Values[column])
				}
				return out
			},
			LoseMonth: func(_ *testing.T, table string, month time.Time) {
				of := month.Format("2006-01")
				t := s.tables[table]
				t.rows = slices.DeleteFunc(t.rows, func(r Row) bool { return strings.HasPrefix(r.Values["received_at"], of) })
				t.tokens = slices.DeleteFunc(t.tokens, func(token string) bool { return strings.HasPrefix(token, of) })
			},
			Others: func(_ *testing.T, table string, n int) { s.Forget(table, n) },
		}
	})
}

func oneEvent(offset uint64, months ...int) *warehouse.Block[warehouse.Event] {
	b := warehouse.Events().NewBlock()
	for i, m := range append([]int{0}, months...) {
		at := time.Date(2026, 1, 15, 0, 0, 0, 0, time.UTC).AddDate(0, m, 0)
		b.Add(&warehouse.Event{Origin: warehouse.Origin{Topic: "t", Offset: offset + uint64(i)}, Time: at, ReceivedAt: at}) //nolint:gosec // small
	}
	return b
}

func token(text string) warehouse.Token { return warehouse.Token{Text: text, Limit: time.Minute} }

// A fault decides whether a call takes effect, when, and what its caller learns of it.
func TestFaultsDecideWhatBecomesOfACall(t *testing.T) {
	s := NewServer(Options{})
	require.NoError(t, s.Client(nil).Migrate(t.Context(), nil, zap.NewNop()))
	refused := errors.New("connection refused")
	var late func() error
	offsets := func() (out []uint64) {
		for _, r := range s.Rows(warehouse.TableEvents) {
			out = append(out, r.Offset)
		}
		return out
	}
	insert := func(b warehouse.Rows, tok string, f Fault) error {
		return s.Client(f).Insert(t.Context(), b, token(tok), time.Now)
	}
	require.ErrorIs(t, insert(oneEvent(0), "a", func(context.Context, *Call) error { return refused }), refused)
	require.Empty(t, offsets())
	require.ErrorIs(t, insert(oneEvent(0), "a", func(_ context.Context, c *Call) error {
		late = c.Do
		return ErrLost
	}), ErrLost)
	require.Empty(t, offsets())
	require.ErrorIs(t, insert(oneEvent(0), "a", func(_ context.Context, c *Call) error {
		require.NoError(t, c.Do())
		return ErrLost
	}), ErrLost)
	require.NoError(t, late(), "it comes after its retry")
	require.Equal(t, []uint64{0}, offsets())
	half := func(_ context.Context, c *Call) error { return c.DoHalf(1) }
	require.ErrorIs(t, insert(oneEvent(5, 1), "b", half), ErrLost)
	require.Equal(t, []uint64{0, 5}, offsets())
	require.NoError(t, insert(oneEvent(5, 1), "b", nil))
	require.Equal(t, []uint64{0, 5, 6}, offsets())
}

// An insert that reaches the server after its limit is refused.
func TestAnInsertAfterItsLimitIsRefused(t *testing.T) {
	now := time.Unix(1e9, 0)
	s := NewServer(Options{Now: func() time.Time { return now }})
	require.NoError(t, s.Client(nil).Migrate(t.Context(), nil, zap.NewNop()))
	err := s.Client(func(_ context.Context, c *Call) error {
		now = now.Add(time.Minute + 1)
		return c.Do()
	}).Insert(t.Context(), oneEvent(0), token("a"), time.Now)
	require.ErrorIs(t, err, errLimit)
	require.Empty(t, s.Rows(warehouse.TableEvents))
}
