package suppression

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func hashOf(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hashPrefix + hex.EncodeToString(sum[:])
}

func TestEntriesAreComparedFolded(t *testing.T) {
	e, err := Parse(strings.NewReader("\ufeffAnna@Example.org # asked on 1 May\n\n# all of it a comment\n u-17\r\n" +
		strings.ToUpper(hashOf("bob@example.org")) + "\n" + hashOf("u-18")))
	require.NoError(t, err)
	require.Equal(t, 4, e.Len())
	for _, on := range []string{"anna@example.org", " ANNA@example.org ", "U-17", "Bob@Example.org", "u-18"} {
		require.True(t, e.Has(on), on)
	}
	for _, off := range []string{"", " ", "u-1", "carl@example.org", hashOf("u-18")} {
		require.False(t, e.Has(off), off)
	}
	var none *Entries
	require.False(t, none.Has("u-17"))
}

func TestFaultyLinesAreNamed(t *testing.T) {
	for text, want := range map[string]string{
		"a\nsha256:12":                                      "line 2: want sha256:",
		"sha256:" + strings.Repeat("zz", 32):                "line 1: want sha256:",
		"a\n" + strings.Repeat("x", bufio.MaxScanTokenSize): "line 2: ",
	} {
		_, err := Parse(strings.NewReader(text))
		require.ErrorContains(t, err, want)
	}
}

func TestAListIsReadAgainWhenItChanges(t *testing.T) {
	path := filepath.Join(t.TempDir(), "list")
	at := time.Now().Add(-time.Hour)
	write := func(text string) {
		t.Helper()
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		at = at.Add(time.Second) // a file system's clock may be too coarse to tell two writes apart
		require.NoError(t, os.Chtimes(path, at, at))
	}
	_, err := Open(path)
	require.ErrorIs(t, err, os.ErrNotExist)

	write("u-1")
	l, err := Open(path)
	require.NoError(t, err)
	require.True(t, l.Entries().Has("u-1"))
	changed, err := l.Refresh()
	require.NoError(t, err)
	require.False(t, changed)

	write("u-2")
	changed, err = l.Refresh()
	require.NoError(t, err)
	require.True(t, changed)
	require.False(t, l.Entries().Has("u-1"))

	write("sha256:half of it")
	_, err = l.Refresh()
	require.ErrorContains(t, err, "line 1")
	require.True(t, l.Entries().Has("u-2"), "the list that was whole stands")
	require.NoError(t, os.Remove(path))
	_, err = l.Refresh()
	require.ErrorIs(t, err, os.ErrNotExist)
	require.True(t, l.Entries().Has("u-2"))

	none, err := Open("")
	require.NoError(t, err)
	require.Zero(t, none.Entries().Len())
}
