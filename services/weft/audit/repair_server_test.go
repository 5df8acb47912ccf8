//go:build integration

package audit

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/warehouse"
	"github.com/weft-cdp/weft/schemas/clickhouse"
)

func newWarehouse(t *testing.T) *warehouse.Client {
	addr := os.Getenv("WEFT_TEST_CLICKHOUSE")
	require.NotEmpty(t, addr, "WEFT_TEST_CLICKHOUSE must name host:port of a ClickHouse (make test sets it)")
	c, err := warehouse.Open(config.ClickHouse{
		Addresses: []string{addr}, Username: "default", Database: "weft_test_" + strings.ReplaceAll(uuid.NewString(), "-", ""),
	})
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		require.NoError(t, c.Exec(ctx, "DROP DATABASE IF EXISTS ${database} SYNC"))
		require.NoError(t, c.Close())
	})
	require.NoError(t, c.Migrate(t.Context(), clickhouse.Files, zap.NewNop()))
	return c
}

func node(n int) uuid.UUID { return uuid.MustParse(fmt.Sprintf("00000000-0000-8000-8000-%012d", n)) }

// blocks is a few records in every table, over two months.
func blocks() []warehouse.Rows {
	ev, rej, ide, red := warehouse.Events().NewBlock(), warehouse.RejectedEvents().NewBlock(), warehouse.Identities().NewBlock(), warehouse.Redirects().NewBlock()
	mov := warehouse.Moves().NewBlock()
	pro, aud, msg, rec := warehouse.Profiles().NewBlock(), warehouse.AudienceChanges().NewBlock(), warehouse.Messages().NewBlock(), warehouse.Receipts().NewBlock()
	for i := range 6 {
		o := warehouse.Origin{Topic: "t", Partition: 2, Offset: uint64(i)} //nolint:gosec // small
		at := noon.AddDate(0, i%2, 0)
		ev.Add(&warehouse.Event{Origin: o, Brand: "main", Source: "web", Type: "track", Name: "A", Profile: node(i), Time: at, ReceivedAt: at})
		rej.Add(&warehouse.Rejected{Origin: o, Brand: "main", ReceivedAt: at})
		for n := range uint16(2) { // two pieces of evidence and two members of one record are no doubles
			ide.Add(&warehouse.Identity{Origin: o, Loser: node(i), Winner: node(9), Version: 7, Time: at, ReceivedAt: at, N: n})
			red.Add(&warehouse.Redirect{Origin: o, Profile: node(10*i + int(n)), Current: node(999), Version: 7})
			mov.Add(&warehouse.Move{Origin: o, Node: node(10*i + int(n)), Person: node(999), Version: 7, ValidFrom: at, KnownFrom: at})
		}
		pro.Add(&warehouse.Profile{Origin: o, ID: node(i), Version: uint64(i)}) //nolint:gosec // small
		aud.Add(&warehouse.AudienceChange{Origin: o, Audience: "vip", Change: "entered", Profile: node(i), Time: at, ReceivedAt: at})
		msg.Add(&warehouse.Message{Origin: o, ID: "m", DecidedAt: at})
		rec.Add(&warehouse.Receipt{Origin: o, ID: "r", Outcome: "delivered", Reason: "sent", SettledAt: at})
	}
	return []warehouse.Rows{ev, rej, ide, red, mov, pro, aud, msg, rec}
}

func TestRepairOnRealClickHouse(t *testing.T) {
	c := newWarehouse(t)
	put := func(b warehouse.Rows, token string) {
		t.Helper()
		require.NoError(t, c.Insert(t.Context(), b, warehouse.Token{Text: token, Limit: time.Minute}, time.Now))
	}
	contents := func() (out []string) {
		t.Helper()
		for _, b := range blocks() {
			first := ", min(inserted_at)"
			if t := b.Table(); t == "profiles" || t == "profile_redirects" {
				first = "" // of rows with one version ClickHouse itself may keep another one before the repair sees them
			}
			res, err := c.Query(t.Context(), "SELECT count(), uniqExact(topic, partition, offset)"+first+" FROM ${database}."+b.Table())
			require.NoError(t, err)
			out = append(out, b.Table()+" "+strings.Join(res.Rows[0], " "))
		}
		for _, view := range []string{"events_by_person", "people", "merges", "audience_members", "messages", "messages_by_outcome"} {
			res, err := c.Query(t.Context(), "SELECT count(), sum(cityHash64(*)) FROM (SELECT * FROM ${database}."+view+")")
			require.NoError(t, err)
			out = append(out, view+" "+strings.Join(res.Rows[0], " "))
		}
		return out
	}
	for _, b := range blocks() {
		// ReplacingMergeTree would make one of two in its own time; here it must not, for the test's sake.
		require.NoError(t, c.Exec(t.Context(), "SYSTEM STOP MERGES ${database}."+b.Table()))
		put(b, "first")
	}
	require.NoError(t, c.ReloadPersons(t.Context()))
	want := contents()
	for round := range 3 { // each copied thrice, as if the tokens had been forgotten
		for _, b := range blocks() {
			put(b, fmt.Sprint("again", round))
		}
	}
	doubles, err := c.Doubles(t.Context(), 1000)
	require.NoError(t, err)
	require.Len(t, doubles, 6*12, "per table; a record's two pieces of evidence, two redirects and two moves each")
	require.EqualValues(t, 4, doubles[0].Rows)

	var out strings.Builder
	n, err := Repair(t.Context(), c, true, &out)
	require.NoError(t, err)
	require.Equal(t, 3*6*12, n)
	require.Equal(t, n, strings.Count(out.String(), "would remove from "))
	require.NotEqual(t, want, contents(), "a dry run removes nothing")

	for _, b := range blocks() { // mutations need them
		require.NoError(t, c.Exec(t.Context(), "SYSTEM START MERGES ${database}."+b.Table()))
	}
	_, err = Repair(t.Context(), c, false, &out)
	require.NoError(t, err)
	doubles, err = c.Doubles(t.Context(), 1000)
	require.NoError(t, err)
	require.Empty(t, doubles)
	require.Equal(t, want, contents(), "what is left is what was inserted first, and the views say the same")

	// The tokens of what is left are still known, and new rows come in.
	for _, b := range blocks() {
		put(b, "first")
	}
	require.Equal(t, want, contents())
	n, err = Repair(t.Context(), c, false, &out)
	require.NoError(t, err)
	require.Zero(t, n)
}

// A repair while rows come in, and parts are merged, removes rows too many and no other.
func TestRepairWhileRowsComeIn(t *testing.T) {
	c := newWarehouse(t)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan int)
	event := func(i int) *warehouse.Block[warehouse.Event] {
		b := warehouse.Events().NewBlock()
		b.Add(&warehouse.Event{Origin: warehouse.Origin{Topic: "t", Offset: uint64(i)}, Time: noon, ReceivedAt: noon.AddDate(0, i%3, 0)}) //nolint:gosec // small
		return b
	}
	insert := func(i int, token string) error {
		return c.Insert(t.Context(), event(i), warehouse.Token{Text: token, Limit: time.Minute}, time.Now)
	}
	go func() {
		n := 0
		for ; ctx.Err() == nil; n++ {
			if err := insert(n, fmt.Sprint("t", n)); err != nil {
				t.Error(err)
				break
			}
			if n%3 == 0 && n < 60 { // every third is doubled, at first: a repair ends when it finds none
				if err := insert(n, fmt.Sprint("forgotten", n)); err != nil {
					t.Error(err)
					break
				}
			}
		}
		done <- n
	}()
	removed := 0
	for removed < 10 {
		n, err := Repair(t.Context(), c, false, &strings.Builder{})
		require.NoError(t, err)
		removed += n
	}
	stop()
	n := <-done
	_, err := Repair(t.Context(), c, false, &strings.Builder{})
	require.NoError(t, err)
	res, err := c.Query(t.Context(), "SELECT count(), uniqExact(offset) FROM ${database}.events")
	require.NoError(t, err)
	require.Equal(t, []string{fmt.Sprint(n), fmt.Sprint(n)}, res.Rows[0])
}
