package spool

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
)

// value is that of a metric without labels.
func value(t testing.TB, reg *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := reg.Gather()
	require.NoError(t, err)
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

// The metric tells of damage as long as it lies there: while it is drained, when it is set aside, to the next process,
// and to the one that takes another directory.
func TestDamageIsToldUntilSomebodyRemovesIt(t *testing.T) {
	const name = "weft_spool_damaged_segments"
	fleet := newFleet(t, 2)
	again := func(e *env) *prometheus.Registry {
		reg := prometheus.NewRegistry() // of a process
		e.opt.Metrics = reg
		e.start()
		return reg
	}
	e := fleet[0]
	reg := again(e)
	require.Zero(t, value(t, reg, name))
	e.kafka.set(true)
	for i := range 3 {
		require.NoError(t, e.send(0, "k", fmt.Sprintf("value %d", i)))
	}
	dir := e.Spool.opt.Dir
	e.stop()
	path := segmentsIn(t, dir)[0]
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	b[strings.Index(string(b), "value 1")] ^= 1
	require.NoError(t, os.WriteFile(path, b, 0o600))
	reg = again(e)
	require.Equal(t, 1., value(t, reg, name), "while it waits for Kafka")
	e.kafka.set(false)
	e.eventually("set aside", func() bool { _, err := os.Stat(path + damagedSuffix); return err == nil })
	require.Equal(t, 1., value(t, reg, name))
	e.stop()
	reg = again(e)
	require.Equal(t, 1., value(t, reg, name), "after a restart")
	other := again(fleet[1])
	require.NotEqual(t, dir, fleet[1].Spool.opt.Dir)
	require.Equal(t, 1., value(t, other, name), "beside it")
	require.NoError(t, os.Remove(path+damagedSuffix))
	require.Zero(t, value(t, reg, name))
	require.Zero(t, value(t, other, name))
}
