package event

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestFlags(t *testing.T) {
	var m Meta
	require.False(t, m.HasFlag(FlagBot))
	require.False(t, m.HasFlag(""))
	require.Empty(t, m.AppendFlags(nil))
	for _, f := range AllFlags() {
		m.AddFlag(f)
		m.AddFlag(f)
	}
	require.Equal(t, AllFlags(), m.AppendFlags(nil), "each once, in the order they came")
	for _, f := range AllFlags() {
		require.True(t, m.HasFlag(f))
	}
	require.False(t, m.HasFlag("clamped"), "part of a flag is none")
}
