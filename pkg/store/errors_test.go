package store_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/store"
)

// calls are all doors of a client that reach Redis.
func calls(c *store.Client) map[string]func(context.Context) error {
	script := store.NewScript("return 1")
	return map[string]func(context.Context) error{
		"ping": c.Ping,
		"get":  func(ctx context.Context) error { _, err := c.Get(ctx, "a"); return err },
		"mget": func(ctx context.Context) error { _, err := c.MGet(ctx, "a", "b"); return err },
		"mget groups": func(ctx context.Context) error {
			_, err := c.MGetGroups(ctx, [][]string{{"a", "b"}, {"c"}})
			return err
		},
		"set": func(ctx context.Context) error { return c.Set(ctx, "a", []byte("1"), 0) },
		"setnx": func(ctx context.Context) error {
			_, err := c.SetNX(ctx, "a", []byte("1"), time.Minute)
			return err
		},
		"fact":     func(ctx context.Context) error { _, err := c.Fact(ctx, "a", "f", "1"); return err },
		"run each": func(ctx context.Context) error { _, _, err := cas(ctx, c, "a", "b", "", "1"); return err },
		"script":   func(ctx context.Context) error { _, err := script.Run(ctx, c, []string{"a"}); return err },
		"pipe": func(ctx context.Context) error {
			p := c.Pipe()
			p.Do(ctx, "GET", "a")
			p.Do(ctx, "RPUSH", "b", "1")
			return p.Exec(ctx)
		},
	}
}

func TestErrorsHaveTheirClass(t *testing.T) {
	r := miniredis.RunT(t)
	c := open(t, config.Redis{Addresses: []string{r.Addr()}})
	for _, x := range []struct {
		says, class string
		err         error
	}{
		{"OOM command not allowed when used memory > 'maxmemory'.", store.ClassMemory, store.ErrMemory},
		{"ERR Error running script (call to f_1): @user_script:1: @user_script: 1: -OOM command not allowed when used memory > 'maxmemory'.", store.ClassMemory, store.ErrMemory},
		{"MISCONF Errors writing to the AOF file: No space left on device", store.ClassDisk, store.ErrDisk},
		{"MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.", store.ClassDisk, store.ErrDisk},
		{"READONLY You can't write against a read only replica.", store.ClassReadOnly, store.ErrReadOnly},
		{"NOREPLICAS Not enough good replicas to write.", store.ClassReplicas, store.ErrReplicas},
		{"LOADING Redis is loading the dataset in memory", store.ClassLoading, store.ErrLoading},
		{"CLUSTERDOWN Hash slot not served", store.ClassCluster, store.ErrCluster},
		{"BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.", store.ClassBusy, store.ErrBusy},
		{"NOAUTH Authentication required.", store.ClassAccess, store.ErrAccess},
		{"WRONGTYPE Operation against a key holding the wrong kind of value", store.ClassOther, nil},
	} {
		r.SetError(x.says)
		for name, call := range calls(c) {
			err := call(t.Context())
			require.Error(t, err, name)
			require.Equal(t, x.class, store.Class(err), "%s: %v", name, err)
			if x.err != nil {
				require.ErrorIs(t, err, x.err, name)
			}
			require.ErrorContains(t, err, x.says, "what Redis said is not lost")
		}
	}
	r.SetError("")
	for name, call := range calls(c) {
		require.NoError(t, call(t.Context()), "%s: it is over when Redis says so", name)
		r.FlushAll()
	}
}

func TestARedisThatIsGoneIsUnreachable(t *testing.T) {
	r := miniredis.RunT(t)
	c := open(t, config.Redis{Addresses: []string{r.Addr()}})
	require.NoError(t, c.Ping(t.Context()))
	r.Close()
	all := calls(c)
	for _, name := range []string{"get", "script", "pipe"} { // each is tried again for a second
		err := all[name](t.Context())
		require.ErrorIs(t, err, store.ErrUnreachable, name)
		require.Equal(t, store.ClassUnreachable, store.Class(err), name)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for name, call := range all {
		require.Equal(t, store.ClassCanceled, store.Class(call(ended)), name)
	}
	require.Empty(t, store.Class(nil))
	require.Equal(t, store.ClassOther, store.Class(errors.New("a defect")))
}

func TestMetricsCountTripsCommandsAndErrors(t *testing.T) {
	r := miniredis.RunT(t)
	reg := prometheus.NewRegistry()
	c, err := store.New(config.Redis{Addresses: []string{r.Addr()}}, zap.NewNop(), store.WithMetrics(reg))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	_, err = c.Get(t.Context(), "none")
	require.NoError(t, err)
	_, err = c.MGet(t.Context(), "a", "b", "c")
	require.NoError(t, err)
	_, _, err = cas(t.Context(), c, "a", "n", "", "1") // by its hash, and then in full
	require.NoError(t, err)
	r.SetError("OOM command not allowed when used memory > 'maxmemory'.")
	require.Error(t, c.Set(t.Context(), "a", []byte("1"), 0))
	require.Equal(t, map[string]float64{
		"weft_store_round_trips_total": 5, "weft_store_round_trip_seconds": 5, "weft_store_commands_total": 7, "weft_store_errors_total memory": 1,
	}, gathered(t, reg))
	_, err = store.New(config.Redis{Addresses: []string{r.Addr()}}, zap.NewNop(), store.WithMetrics(reg))
	require.ErrorContains(t, err, "register metrics")
}

// gathered are the counters, and the counts of histograms.
func gathered(t *testing.T, reg *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := reg.Gather()
	require.NoError(t, err)
	got := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := f.GetName()
			for _, l := range m.GetLabel() {
				name += " " + l.GetValue()
			}
			if got[name] = m.GetCounter().GetValue(); m.GetHistogram() != nil {
				got[name] = float64(m.GetHistogram().GetSampleCount())
			}
		}
	}
	return got
}
