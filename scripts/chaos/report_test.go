package main

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weft-cdp/weft/scripts/chaos/ledger"
	"github.com/weft-cdp/weft/scripts/chaos/servers"
	"github.com/weft-cdp/weft/scripts/chaos/strikes"
)

// A run that left out one stage, server or link says which.
func TestWhatWasNotStruckIsNamed(t *testing.T) {
	all := append(servers.Stages(), strikes.Servers()...)
	require.Equal(t, all, unstruck(ledger.Strikes{}))
	s := ledger.Strikes{}
	for _, name := range all {
		s.Add(name, strikes.Kill, 1)
	}
	require.Empty(t, unstruck(s))
	for _, name := range all {
		without := ledger.Strikes{}
		without.AddAll(s)
		delete(without, name)
		require.Equal(t, []string{name}, unstruck(without))
	}
}

// A run that is too short to strike everything is refused before it begins.
func TestARunMustBeLongEnough(t *testing.T) {
	_, err := parse([]string{"--weft", "main.go", "--minutes", "0.5"})
	require.ErrorContains(t, err, "want at least 0.58 --minutes")
	_, err = parse([]string{"--weft", "main.go", "--minutes", "0.6"})
	require.NoError(t, err)
	_, err = parse([]string{"--weft", "main.go", "--minutes", "0.5", "--outage", "10s"})
	require.NoError(t, err)
}
