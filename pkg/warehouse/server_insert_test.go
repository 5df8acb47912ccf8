//go:build integration

package warehouse

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/shopspring/decimal"
	"github.com/stretchr/testify/require"
)

// someEvents is n events from offset, over several months.
func someEvents(n int, offset uint64) *Block[Event] {
	b := Events().NewBlock()
	for i := range n {
		amount := Amount{Units: int64(i) * 1234, Some: true}
		b.Add(&Event{
			Origin: Origin{Topic: "t", Partition: 3, Offset: offset + uint64(i)}, Brand: "main", Source: "web", Type: "track",
			Name: "Product_Added", Profile: id(i % 7), MessageID: fmt.Sprint("m", i),
			Time:       time.Date(1997, 1, 1, 0, 0, i, 0, time.UTC),
			ReceivedAt: time.Date(2026, time.Month(1+i%3), 1, 0, 0, 0, 5e6, time.UTC),
			Price:      amount, Faults: []string{"total"}, Properties: []byte(`{"a":1,"a":123456789012345678901234567890}`),
		})
	}
	return b
}

func TestInsertWithTheSameTokenStoresOnce(t *testing.T) {
	c := newDatabase(t)
	for range 3 {
		require.NoError(t, c.Insert(t.Context(), someEvents(1000, 0), token("t:3:0-1000:events"), time.Now))
	}
	require.EqualValues(t, 1000, scalar[uint64](t, c, "SELECT count() FROM ${database}.events"))
	// The same rows with another token are other rows: it is the token that counts, not the content.
	require.NoError(t, c.Insert(t.Context(), someEvents(1000, 0), token("t:3:1000-2000:events"), time.Now))
	require.EqualValues(t, 2000, scalar[uint64](t, c, "SELECT count() FROM ${database}.events"))
	doubles, err := c.Doubles(t.Context(), 5)
	require.NoError(t, err)
	require.Len(t, doubles, 5)
	require.Equal(t, Double{Table: TableEvents, Topic: "t", Partition: 3, Offset: 0, Rows: 2}, doubles[0])
}

// A batch is one part per month of receipt: a token stands for each, so a retry completes a half-done insert.
func TestInsertIsOneBlockPerMonth(t *testing.T) {
	c := newDatabase(t)
	require.NoError(t, c.Exec(t.Context(), "SYSTEM STOP MERGES ${database}.events"))
	require.NoError(t, c.Insert(t.Context(), someEvents(6_000, 0), token("a"), time.Now))
	require.EqualValues(t, 3, scalar[uint64](t, c, "SELECT uniqExact(_part) FROM ${database}.events"))
	// As if one month had not been stored.
	require.NoError(t, c.Exec(t.Context(), "ALTER TABLE ${database}.events DROP PARTITION 202602"))
	require.EqualValues(t, 4_000, scalar[uint64](t, c, "SELECT count() FROM ${database}.events"))
	require.NoError(t, c.Insert(t.Context(), someEvents(6_000, 0), token("a"), time.Now))
	require.EqualValues(t, 6_000, scalar[uint64](t, c, "SELECT count() FROM ${database}.events"))
	require.EqualValues(t, 6_000, scalar[uint64](t, c, "SELECT uniqExact(topic, partition, offset) FROM ${database}.events"))
}

func TestConcurrentInsertsWithTheSameTokenStoreOnce(t *testing.T) {
	c := newDatabase(t)
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			if err := c.Insert(t.Context(), someEvents(5000, 0), token("same"), time.Now); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	require.EqualValues(t, 5000, scalar[uint64](t, c, "SELECT count() FROM ${database}.events"))
}

func TestInsertPastItsDeadlineIsNotSent(t *testing.T) {
	c := newDatabase(t)
	tok := token("late")
	tok.Deadline = time.Now()
	late := func() time.Time { return tok.Deadline.Add(time.Millisecond) }
	require.ErrorIs(t, c.Insert(t.Context(), someEvents(10, 0), tok, late), ErrDeadline)
	require.EqualValues(t, 0, scalar[uint64](t, c, "SELECT count() FROM ${database}.events"))
	require.NoError(t, c.Insert(t.Context(), someEvents(10, 0), tok, func() time.Time { return tok.Deadline }))
	require.EqualValues(t, 10, scalar[uint64](t, c, "SELECT count() FROM ${database}.events"))
}

func TestInsertErrorsHaveAClass(t *testing.T) {
	c := newClient(t)
	err := c.Insert(t.Context(), someEvents(1, 0), token("x"), time.Now)
	require.ErrorIs(t, err, ErrPermanent)
	require.ErrorContains(t, err, "insert 1 rows into events")
	gone := *c
	require.NoError(t, gone.Ping(t.Context()))
	dead, err := Open(configAt("127.0.0.1:1"))
	require.NoError(t, err)
	defer func() { require.NoError(t, dead.Close()) }()
	err = dead.Insert(t.Context(), someEvents(1, 0), token("x"), time.Now)
	require.Error(t, err)
	require.False(t, errors.Is(err, ErrPermanent), err)
}

// Every column of every table takes what its row type can hold, and empty rows.
func TestEveryTableTakesItsRows(t *testing.T) {
	c := newDatabase(t)
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	one := Amount{Units: 10001, Some: true}
	o := Origin{Topic: "weft.x", Partition: 1, Offset: 1<<62 + 1}
	ev, rej, ide, red := Events().NewBlock(), RejectedEvents().NewBlock(), Identities().NewBlock(), Redirects().NewBlock()
	mov := Moves().NewBlock()
	pro, aud, msg, rec := Profiles().NewBlock(), AudienceChanges().NewBlock(), Messages().NewBlock(), Receipts().NewBlock()
	ev.Add(&Event{Origin: o})
	rej.Add(&Rejected{Origin: o})
	rej.Add(&Rejected{Origin: o, Key: []byte{0xff, 0}, Body: []byte{0, 1, 2, 0xfe}, ReceivedAt: now})
	ide.Add(&Identity{Origin: o, Loser: id(1), Winner: id(2), Version: 1 << 63, Time: now, ReceivedAt: now, Node: id(3)})
	red.Add(&Redirect{Origin: o, Profile: id(1), Current: id(2), Version: 2})
	mov.Add(&Move{Origin: o, Node: id(1), Person: id(2), Version: 2, ValidFrom: now, KnownFrom: now})
	pro.Add(&Profile{Origin: o, ID: id(1), Revenue: []Money{{"EUR", one}}, Audiences: []string{"a"}, FirstSeen: now})
	pro.Add(&Profile{Origin: o, ID: id(2), Tombstone: true})
	aud.Add(&AudienceChange{Origin: o, Profile: id(1), Time: now, ReceivedAt: now})
	msg.Add(&Message{Origin: o, CartValue: one, DecidedAt: now})
	rec.Add(&Receipt{Origin: o, CartValue: one, SettledAt: now, ArmedAt: now})
	for _, b := range []Rows{ev, rej, ide, red, mov, pro, aud, msg, rec} {
		require.NoError(t, c.Insert(t.Context(), b, token(b.Table()), time.Now), b.Table())
		require.EqualValues(t, b.Rows(), scalar[uint64](t, c, "SELECT count() FROM ${database}."+b.Table()), b.Table())
	}
	require.Equal(t, "1.0001", scalar[decimal.Decimal](t, c, "SELECT revenue['EUR'] FROM ${database}.profiles WHERE profile_id = ?", id(1)).String())
	require.Equal(t, string([]byte{0, 1, 2, 0xfe}), scalar[string](t, c, "SELECT body FROM ${database}.events_rejected WHERE key != ''"))
	high, ok, err := c.HighestOffset(t.Context(), "weft.x", 1)
	require.NoError(t, err)
	require.True(t, ok)
	require.EqualValues(t, int64(1<<62+1), high)
	_, ok, err = c.HighestOffset(t.Context(), "weft.x", 2)
	require.NoError(t, err)
	require.False(t, ok)
}
