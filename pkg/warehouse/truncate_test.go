package warehouse

import (
	"fmt"
	"testing"
	"time"

	"github.com/ClickHouse/ch-go/proto"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
)

// A row that is cut off behind any of its columns leaves nothing in the block: what is sent is the same as if it
// had never been begun.
func TestTruncateTakesBackAPartOfARow(t *testing.T) {
	at := time.Unix(1e9, 0).UTC()
	event := func(i int) *Event {
		return &Event{
			Origin: Origin{Topic: "t", Offset: uint64(i)}, Name: fmt.Sprint("name ", i/2), UserID: fmt.Sprint("u", i), Profile: uuid.New(), //nolint:gosec // small
			ReceivedAt: at, SentAt: at, Price: Amount{Units: int64(i), Some: i%2 == 0}, Faults: []string{fmt.Sprint("f", i), "x"}[:i%3], Trusted: true,
			Properties: []byte(`{"n":1}`),
		}
	}
	profile := func(i int) *Profile {
		return &Profile{
			Origin: Origin{Topic: "t", Offset: uint64(i)}, ID: uuid.New(), Version: uint64(i), //nolint:gosec // small
			Revenue: []Money{{"EUR", Amount{Units: 1, Some: true}}, {fmt.Sprint("X", i), Amount{Units: 2, Some: true}}}[:i%3], Audiences: []string{fmt.Sprint("a", i)},
		}
	}
	for _, before := range []int{0, 1, 4} {
		truncates(t, Events(), event, before)
		truncates(t, Profiles(), profile, before)
	}
}

func truncates[R any](t *testing.T, table Table[R], row func(i int) *R, before int) {
	t.Helper()
	var rows []*R
	for i := range before + 3 {
		rows = append(rows, row(i))
	}
	whole, poison := rows[:before], rows[before:]
	for cut := range len(table.Columns) + 1 {
		clean, b := table.NewBlock(), table.NewBlock()
		for _, r := range whole {
			clean.Add(r)
			b.Add(r)
		}
		b.Add(poison[0]) // rows that were added for the same record go, too
		for _, c := range b.cols[:cut] {
			c.add(poison[1])
		}
		b.Truncate(before)
		require.Equal(t, encoded(clean), encoded(b), "cut behind column %d of %s", cut, table.Name)
		for _, r := range []*R{poison[2], poison[1]} {
			clean.Add(r)
			b.Add(r)
		}
		require.Equal(t, encoded(clean), encoded(b), "cut behind column %d of %s", cut, table.Name)
		require.Equal(t, clean.Values(), b.Values())
		require.Equal(t, clean.Size(), b.Size())
	}
}

// encoded is the block's columns as they are sent.
func encoded(b Rows) []string {
	var out []string
	for _, c := range b.columns() {
		var buf proto.Buffer
		c.Data.EncodeColumn(&buf)
		out = append(out, fmt.Sprintf("%s %d %x", c.Name, c.Data.Rows(), buf.Buf))
	}
	return out
}
