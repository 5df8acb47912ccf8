package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/connector"
	"github.com/weft-cdp/weft/pkg/journey"
	"github.com/weft-cdp/weft/pkg/spool/registry"
	"github.com/weft-cdp/weft/pkg/store"
	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/services/activator"
	"github.com/weft-cdp/weft/services/collector"
	stitcher "github.com/weft-cdp/weft/services/identity-stitcher"
)

// long is how long these tests wait for a condition: three services on a busy machine.
const long = 2 * time.Minute

const reminder = `name: abandoned-cart
arms: cart
delay: 1h
channel: email
purpose: marketing
from: Shop <shop@example.com>
subject: Your cart
text: |
  {{range .Lines}}{{.Name}}
  {{end}}{{.UnsubscribeURL}}
`

// sent is a channel that remembers.
type sent struct {
	mu sync.Mutex
	to []string
}

func (s *sent) Send(_ context.Context, m connector.Message) (connector.Result, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.to = append(s.to, m.To)
	return connector.Result{}, nil
}

func (s *sent) Idempotent() bool { return true }

func (s *sent) all() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string{}, s.to...)
}

// shop is the way from the door to the reminder: collector, stitcher, activator.
type shop struct {
	t      *testing.T
	cfg    config.Config
	file   string
	kafka  *kfake.Cluster
	stream *stream.Client
	reg    *registry.Registry
	seen   *prometheus.Registry
	mails  *sent
	door   string

	mu   sync.Mutex
	skip time.Duration // how far the clock was moved
}

func (s *shop) now() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Now().Add(s.skip)
}

func (s *shop) pass(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.skip += d
}

func openShop(t *testing.T) *shop {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.BrokerConfigs(map[string]string{"group.initial.rebalance.delay.ms": "0"}))
	require.NoError(t, err)
	t.Cleanup(cluster.Close)
	redis := miniredis.RunT(t)
	dir := t.TempDir()
	s := &shop{t: t, kafka: cluster, seen: prometheus.NewRegistry(), mails: &sent{}, file: filepath.Join(dir, "weft.yaml")}
	journeys := filepath.Join(dir, "journeys")
	require.NoError(t, os.Mkdir(journeys, 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(journeys, "cart.yaml"), []byte(reminder), 0o600))
	text := fmt.Sprintf("kafka: {brokers: [%q], session_timeout: 30s}\nredis: {addresses: [%q], allow_non_durable: true}\ntopics: {partitions: 2}\n"+
		"activator: {journeys: %q}\ncollector:\n  listen: 127.0.0.1:0\n  drain_delay: 0s\n  spool_after: 100ms\n  sources: [{name: web, write_key: wk}]\ndata_dir: %q\n",
		cluster.ListenAddrs()[0], redis.Addr(), journeys, dir)
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
	who, err := stitcher.New(s.cfg, stitcher.Deps{Stream: s.stream, Store: st, Log: zap.NewNop(), Metrics: prometheus.NewRegistry(), Now: s.now})
	require.NoError(t, err)
	decide, err := activator.New(s.cfg, activator.Deps{Stream: s.stream, Store: st, Log: zap.NewNop(), Metrics: s.seen, Now: s.now,
		Senders: map[string]connector.Sender{"email": s.mails}})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	for _, r := range []readier{door, who, decide} {
		running.Go(func() {
			if err := r.Run(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(func() { cancel(); running.Wait() })
	for _, r := range []readier{door, who, decide} {
		require.Eventually(t, func() bool { return r.Ready() == nil }, long, 10*time.Millisecond)
	}
	return s
}

func (s *shop) context() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 2*long)
	s.t.Cleanup(cancel)
	return ctx
}

func (s *shop) send(body string) {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.context(), http.MethodPost, s.door+"/v1/batch", strings.NewReader(body))
	require.NoError(s.t, err)
	req.SetBasicAuth("wk", "")
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	require.NoError(s.t, err)
	require.NoError(s.t, resp.Body.Close())
	require.Equal(s.t, 200, resp.StatusCode)
}

// fills has somebody who may be written to fill a cart, and waits until the reminder waits.
func (s *shop) fills(user string) {
	s.t.Helper()
	armed := s.value("weft_activator_armed_total")
	s.send(fmt.Sprintf(`{"batch":[{"type":"identify","userId":%[1]q,"traits":{"email":"%[1]s@example.com","consent":{"email":{"marketing":true}}}},
		{"type":"track","event":"Product Added","userId":%[1]q,"properties":{"cart_id":"c-%[1]s","product_id":"tea","name":"Tea","price":12.9,"currency":"EUR"}}]}`, user))
	require.Eventually(s.t, func() bool { return s.value("weft_activator_armed_total") > armed }, long, 10*time.Millisecond)
}

func (s *shop) value(name string) float64 {
	families, err := s.seen.Gather()
	require.NoError(s.t, err)
	sum := 0.0
	for _, f := range families {
		if f.GetName() == name {
			for _, m := range f.GetMetric() {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return sum
}

// silence has Kafka refuse events at the door, until it is removed.
func (s *shop) silence() *kfake.FaultHandle {
	return s.kafka.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: s.cfg.Topics.Set().EventsCollected(), Err: kerr.NotEnoughReplicas, Count: -1})
}

func (s *shop) receipts(n int) []journey.Receipt {
	s.t.Helper()
	name := s.cfg.Topics.Set().ActivationsSettled()
	var all []journey.Receipt
	require.Eventually(s.t, func() bool {
		ends, err := s.stream.EndOffsets(s.context(), name)
		require.NoError(s.t, err)
		all = nil
		for p, end := range ends {
			f := s.stream.NewFetcher(name, p, 0, stream.FetchOptions{})
			for next := int64(0); next < end; {
				b, err := f.Fetch(s.context(), time.Second)
				require.NoError(s.t, err)
				for _, r := range b.Records {
					var x journey.Receipt
					require.NoError(s.t, json.Unmarshal(r.Value, &x))
					all = append(all, x)
				}
				next = b.Next
			}
			f.Close()
		}
		return len(all) >= n
	}, long, 50*time.Millisecond)
	require.Len(s.t, all, n)
	return all
}

// An order that was acknowledged and waits in a spool stops the reminder: the timer is long due, and waits.
func TestOrderInASpoolStopsTheReminder(t *testing.T) {
	s := openShop(t)
	s.fills("ada")
	away := s.silence()
	s.send(`{"batch":[{"type":"track","event":"Order Completed","userId":"ada","properties":{"order_id":"o1","cart_id":"c-ada","total":12.9,"currency":"EUR","products":[{"product_id":"tea"}]}}]}`)
	entries, err := s.reg.List(s.context())
	require.NoError(t, err)
	require.Len(t, entries, 1)
	s.pass(2 * time.Hour)
	require.Eventually(t, func() bool { return s.value("weft_activator_fence_wait_seconds") > 1 }, long, 10*time.Millisecond)
	require.Empty(t, s.mails.all())

	code, out, stderr := weft(t, "spool show --config "+s.file)
	require.Zero(t, code, stderr)
	require.Contains(t, out, "weft.events.collected 1 ")
	require.Contains(t, out, "wait for it")

	away.Remove()
	r := s.receipts(1)[0]
	require.Equal(t, journey.Suppressed+"/"+journey.ReasonPurchased, r.Outcome+"/"+r.Reason)
	require.False(t, r.Unfenced)
	require.Empty(t, s.mails.all())
	require.Eventually(t, func() bool {
		code, out, stderr := weft(t, "spool show --config "+s.file)
		return code == 0 && stderr == "" && strings.Contains(out, "no spool is registered")
	}, long, 50*time.Millisecond)
}

// An operator may have timers fire nevertheless, and the receipts say so.
func TestOverriddenSpoolIsToldInReceipts(t *testing.T) {
	s := openShop(t)
	s.fills("bob")
	away := s.silence()
	s.send(`{"batch":[{"type":"page","userId":"carol"}]}`)
	s.pass(2 * time.Hour)
	require.Eventually(t, func() bool { return s.value("weft_activator_fence_wait_seconds") > 1 }, long, 10*time.Millisecond)
	require.Empty(t, s.mails.all())
	code, _, stderr := weft(t, "spool override --config "+s.file)
	require.Equal(t, exitUsage, code)
	require.Contains(t, stderr, "--reason")
	code, out, stderr := weft(t, "spool override --reason tested --config "+s.file)
	require.Zero(t, code, stderr)
	require.Contains(t, out, "override: ")
	r := s.receipts(1)[0]
	require.Equal(t, journey.Delivered, r.Outcome)
	require.True(t, r.Unfenced)
	require.Contains(t, r.Detail, "an operator had overridden")
	require.Equal(t, []string{"bob@example.com"}, s.mails.all())

	code, out, stderr = weft(t, "spool drain --config "+s.file)
	require.Zero(t, code, stderr)
	require.Contains(t, out, "in use, its collector drains it")
	away.Remove()
}
