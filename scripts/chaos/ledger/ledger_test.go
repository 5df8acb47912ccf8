package ledger

import (
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// What was appended is there again, a line that was cut short by a kill is not, and the next run begins anew.
func TestLedgerSurvivesItsProcess(t *testing.T) {
	dir := t.TempDir()
	l, err := Open(dir, false)
	require.NoError(t, err)
	l.Read(func(b *Book) { require.False(t, b.Under()) })
	require.NoError(t, l.Append(Entry{Kind: Opened, Plan: &Plan{Seed: 7}}))
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			if err := l.Append(Entry{Kind: Struck, Stage: "s", What: "kill"}, Entry{Kind: Acked, Actions: []string{"a"}}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	require.NoError(t, l.Append(Entry{Kind: Did, At: 5, Actions: []string{"a", "b"}}, Entry{Kind: Mailed, Message: "m", To: "x@example.com"}))
	require.NoError(t, l.Close())
	require.Error(t, l.Append(Entry{Kind: Loaded}), "it is closed")

	file := filepath.Join(dir, FileName)
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(file, append(text, `{"k":"struck","stage":"s","wh`...), 0o600))
	l, err = Open(dir, false)
	require.NoError(t, err)
	l.Read(func(b *Book) {
		require.True(t, b.Under())
		require.Equal(t, uint64(7), b.Plan.Seed)
		require.Equal(t, Strikes{"s": {"kill": 20}}, b.Strikes)
		require.Len(t, b.Done, 2)
		require.Len(t, b.Acked, 1)
		require.Equal(t, "m", b.Mails[0].Message)
	})
	require.NoError(t, l.Append(Entry{Kind: Closed}))
	require.NoError(t, l.Close())

	l, err = Open(dir, false)
	require.NoError(t, err)
	l.Read(func(b *Book) { require.False(t, b.Under(), "it was judged") })
	require.NoError(t, l.Close())
	l, err = Open(dir, true)
	require.NoError(t, err)
	l.Read(func(b *Book) { require.Nil(t, b.Plan) })
	require.NoError(t, l.Close())
}

func TestSumsAddUp(t *testing.T) {
	dir := t.TempDir()
	s, err := ReadSums(dir)
	require.NoError(t, err)
	s.Runs = 2
	s.Strikes.AddAll(Strikes{"s": {"kill": 2}, "t": {"stop": 1}})
	s.Strikes.AddAll(Strikes{"s": {"kill": 3}})
	require.NoError(t, s.Write(dir))
	again, err := ReadSums(dir)
	require.NoError(t, err)
	require.Equal(t, s, again)
	require.Equal(t, 5, again.Strikes["s"]["kill"])
}
