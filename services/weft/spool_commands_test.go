package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
	"go.uber.org/zap"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/spool/registry"
	"github.com/weft-cdp/weft/pkg/store"
	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/services/collector"
)

// left is a collector that has ended with events in its spool.
func left(t *testing.T, events int) *shop {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1))
	require.NoError(t, err)
	t.Cleanup(cluster.Close)
	redis, dir := miniredis.RunT(t), t.TempDir()
	s := &shop{t: t, kafka: cluster, seen: prometheus.NewRegistry(), mails: &sent{}, file: filepath.Join(dir, "weft.yaml")}
	text := fmt.Sprintf("kafka: {brokers: [%q]}\nredis: {addresses: [%q], allow_non_durable: true}\ntopics: {partitions: 2}\n"+
		"collector:\n  listen: 127.0.0.1:0\n  drain_delay: 0s\n  spool_after: 100ms\n  sources: [{name: web, write_key: wk}]\ndata_dir: %q\n",
		cluster.ListenAddrs()[0], redis.Addr(), dir)
	require.NoError(t, os.WriteFile(s.file, []byte(text), 0o600))
	s.cfg, err = config.Load(s.file, nil)
	require.NoError(t, err)
	s.stream, err = stream.New(s.cfg.Kafka, zap.NewNop())
	require.NoError(t, err)
	t.Cleanup(s.stream.Close)
	st, err := store.New(s.cfg.Redis, zap.NewNop())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, st.Close()) })
	set := s.cfg.Topics.Set()
	s.reg = registry.New(st, set)
	require.NoError(t, s.stream.EnsureTopics(s.context(), set.Specs(), s.cfg.Topics))
	door, err := collector.New(s.cfg, collector.Deps{Stream: s.stream, Store: st, Log: zap.NewNop(), Metrics: prometheus.NewRegistry(), Now: s.now})
	require.NoError(t, err)
	require.NoError(t, door.Listen())
	s.door = "http://" + door.Addr()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- door.Run(ctx) }()
	require.Eventually(t, func() bool { return door.Ready() == nil }, long, 10*time.Millisecond)
	away := s.silence()
	for i := range events {
		s.send(fmt.Sprintf(`{"batch":[{"type":"page","userId":"u%d","messageId":"m%d"}]}`, i, i))
	}
	cancel()
	require.NoError(t, <-ended)
	away.Remove()
	return s
}

// collected is the message ids on events.collected.
func (s *shop) collected() map[string]int {
	s.t.Helper()
	name, out := s.cfg.Topics.Set().EventsCollected(), map[string]int{}
	ends, err := s.stream.EndOffsets(s.context(), name)
	require.NoError(s.t, err)
	for p, end := range ends {
		f := s.stream.NewFetcher(name, p, 0, stream.FetchOptions{})
		for next := int64(0); next < end; {
			b, err := f.Fetch(s.context(), time.Second)
			require.NoError(s.t, err)
			for _, r := range b.Records {
				var e struct{ MessageID string }
				require.NoError(s.t, json.Unmarshal(r.Value, &e))
				out[e.MessageID]++
			}
			next = b.Next
		}
		f.Close()
	}
	return out
}

// What a machine has left whose collectors do not run any more is handed on, and no timer waits for it then.
func TestSpoolDrain(t *testing.T) {
	const events = 7
	s := left(t, events)
	before := len(s.collected()) // of a call that Kafka took just before it went silent there is none
	code, out, stderr := weft(t, "spool show --config "+s.file)
	require.Zero(t, code, stderr)
	require.Contains(t, out, fmt.Sprintf("weft.events.collected %d ", events-before))
	require.Contains(t, out, "wait for it")

	code, out, stderr = weft(t, "spool drain --config "+s.file)
	require.Zero(t, code, stderr)
	require.Equal(t, fmt.Sprintf("%s: %d events handed on\n", filepath.Join(s.cfg.Collector.SpoolDir, "0"), events-before), out)
	found := s.collected()
	for i := range events {
		require.Equal(t, 1, found[fmt.Sprint("m", i)], "event %d", i)
	}
	entries, err := s.reg.List(s.context())
	require.NoError(t, err)
	require.Empty(t, entries)

	code, out, stderr = weft(t, "spool drain --config "+s.file)
	require.Zero(t, code, stderr)
	require.Contains(t, out, ": 0 events handed on\n", "there is nothing left")
	require.Len(t, s.collected(), events)
}

// A directory that was brought from another machine is drained from wherever it is.
func TestSpoolDrainOfADiskFromElsewhere(t *testing.T) {
	s := left(t, 3)
	brought := filepath.Join(t.TempDir(), "of-door-3")
	require.NoError(t, os.Rename(s.cfg.Collector.SpoolDir, brought))
	code, out, stderr := weft(t, "spool drain --config "+s.file, "WEFT_COLLECTOR_SPOOL_DIR="+brought)
	require.Zero(t, code, stderr)
	require.Contains(t, out, brought)
	require.Len(t, s.collected(), 3)
	entries, err := s.reg.List(s.context())
	require.NoError(t, err)
	require.Empty(t, entries, "the registration is the spool's, not the place's")
}

// A spool that is gone with its disk is forgotten by its name, with the reason; others stay, and so does the reason.
func TestSpoolForget(t *testing.T) {
	s := left(t, 2)
	require.NoError(t, s.reg.Register(s.context(), registry.Entry{ID: "gone-id", Spool: "gone", Host: "door-3", Dir: "/mnt/spool/0", Since: time.Now()}))
	code, _, stderr := weft(t, "spool forget --config "+s.file)
	require.Equal(t, exitUsage, code)
	require.Contains(t, stderr, "requires at least 1 arg")
	code, _, stderr = weft(t, "spool forget --config "+s.file+" gone-id")
	require.Equal(t, exitUsage, code)
	require.Contains(t, stderr, "--reason")
	code, _, stderr = weft(t, "spool forget --reason burnt --config "+s.file+" nobody")
	require.Equal(t, exitError, code)
	require.Contains(t, stderr, "no spool is registered as nobody")

	code, out, stderr := weft(t, "spool forget --reason burnt --config "+s.file+" gone-id")
	require.Zero(t, code, stderr)
	require.Equal(t, "forget: gone-id of door-3, /mnt/spool/0\n", out)
	entries, err := s.reg.List(s.context())
	require.NoError(t, err)
	require.Len(t, entries, 1, "the one on this machine is not touched")
	code, out, stderr = weft(t, "spool show --config "+s.file)
	require.Zero(t, code, stderr)
	require.Regexp(t, `(?m)^gone-id +door-3 +/mnt/spool/0 +20\S+ +burnt$`, out)

	code, _, stderr = weft(t, "spool forget --reason stolen --config "+s.file+" "+entries[0].ID)
	require.Zero(t, code, stderr)
	code, out, stderr = weft(t, "spool show --config "+s.file)
	require.Zero(t, code, stderr)
	require.Contains(t, out, "no spool is registered: timers fire")
	require.Contains(t, out, "weft.events.collected 2 ", "the events are there: their disk may come back")
	require.False(t, strings.Contains(out, "wait for it"))
}
