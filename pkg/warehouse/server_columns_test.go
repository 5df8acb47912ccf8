//go:build integration

package warehouse

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Every column is declared with the type that the table has: the server would convert another, at a price.
func TestColumnsHaveTheTypesOfTheirTables(t *testing.T) {
	c := newDatabase(t)
	for _, b := range []Rows{
		Events().NewBlock(), RejectedEvents().NewBlock(), Identities().NewBlock(), Redirects().NewBlock(), Moves().NewBlock(),
		Profiles().NewBlock(), AudienceChanges().NewBlock(), Messages().NewBlock(), Receipts().NewBlock(),
		EventParts().NewBlock(), MessageParts().NewBlock(), Suspensions().NewBlock(), Commands().NewBlock(),
	} {
		for _, col := range b.columns() {
			want := scalar[string](t, c, "SELECT type FROM system.columns WHERE database = '${database}' AND table = ? AND name = ?", b.Table(), col.Name)
			require.Equal(t, want, string(col.Data.Type()), "%s.%s", b.Table(), col.Name)
		}
	}
}

// The numbers of a dictionary's words get wider as it grows, in one block and in the next.
func TestDictionariesOfAnySize(t *testing.T) {
	c := newDatabase(t)
	b := Events().NewBlock()
	offset := uint64(0)
	for round, distinct := range []int{1, 255, 257, 65_537, 3} {
		b.Reset()
		for i := range distinct + 10 {
			name := fmt.Sprint("name ", i%distinct)
			b.Add(&Event{Origin: Origin{Topic: "t", Offset: offset}, Name: name, Faults: []string{name, "x"}, UserID: name, Time: time.Unix(1e9, 0), ReceivedAt: time.Unix(1e9, 0)})
			offset++
		}
		require.NoError(t, c.Insert(t.Context(), b, token(fmt.Sprint(round)), time.Now))
		require.EqualValues(t, offset, scalar[uint64](t, c, "SELECT countIf(name = user_id AND faults = [user_id, 'x']) FROM ${database}.events"))
	}
	for i, row := range b.Values() {
		require.Equal(t, row["user_id"], row["name"], i)
	}
}
