package rejected_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/store"
	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
	"github.com/weft-cdp/weft/services/collector"
	stitcher "github.com/weft-cdp/weft/services/identity-stitcher"
	"github.com/weft-cdp/weft/services/weft/feed"
	"github.com/weft-cdp/weft/services/weft/rejected"
)

const (
	// patience is how long a condition is waited for.
	patience = 2 * time.Minute
	look     = 20 * time.Millisecond
	till     = "till.sales"
)

// shop is a collector and an identity-stitcher in this process, over a Kafka and a Redis in it.
type shop struct {
	t      *testing.T
	set    topic.Set
	kafka  *kfake.Cluster
	client *stream.Client
	door   string
	hook   config.Source
}

func newShop(t *testing.T) *shop {
	t.Helper()
	k, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, till),
		kfake.BrokerConfigs(map[string]string{"group.initial.rebalance.delay.ms": "0"}))
	require.NoError(t, err)
	t.Cleanup(k.Close)
	dir, cfg := t.TempDir(), config.Defaults()
	cfg.Kafka.Brokers = k.ListenAddrs()
	cfg.Kafka.SessionTimeout, cfg.Kafka.RebalanceTime = time.Minute, time.Minute // no test is about losing a session
	cfg.Redis = config.Redis{Addresses: []string{miniredis.RunT(t).Addr()}, AllowNonDurable: true}
	cfg.Topics.Prefix, cfg.Topics.Partitions = "r.", 2
	cfg.Identity.KeyFile, cfg.Collector.UnsubscribeSecret = filepath.Join(dir, "identity.key"), filepath.Join(dir, "unsubscribe.key")
	cfg.DataDir, cfg.Collector.Listen, cfg.Collector.DrainDelay = dir, "127.0.0.1:0", 0
	cfg.Collector.Sources = []config.Source{{Name: "web", Kind: config.KindServer, WriteKey: "key", Brand: "shop", Transformations: []config.Transformation{
		{Name: "net", When: "has(event.properties.tax)", Derive: map[string]string{"properties.net": "event.properties.total - event.properties.tax"}},
	}}}
	secret := filepath.Join(dir, "secret")
	require.NoError(t, os.WriteFile(secret, []byte("hush"), 0o600))
	cfg.Collector.Sources = append(cfg.Collector.Sources, config.Source{Name: "page", Kind: config.KindWebhook, Webhook: config.SourceWebhook{
		Provider: config.ProviderGeneric, SecretFile: secret, Header: "X-Sig", IDHeader: "X-Id",
		Mapping: map[string]string{"event": "$.kind", "userId": "$.who", "properties.total": "= record.total + 0"},
	}})
	cfg.Collector.Inlets = []config.Inlet{{Name: "till", Topic: till, Mapping: map[string]string{
		"event": "'Order Completed'", "userId": "$.customer", "messageId": "$.receipt", "properties.total": "$.total",
	}}}
	s := &shop{t: t, set: cfg.Topics.Set(), kafka: k, hook: cfg.Collector.Sources[len(cfg.Collector.Sources)-1]}
	log := zap.NewNop()
	s.client, err = stream.New(cfg.Kafka, log)
	require.NoError(t, err)
	t.Cleanup(s.client.Close)
	st, err := store.New(cfg.Redis, log)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, st.Close()) })
	require.NoError(t, s.client.EnsureTopics(s.context(), s.set.Specs(), cfg.Topics))
	c, err := collector.New(cfg, collector.Deps{Stream: s.client, Log: log, Metrics: prometheus.NewRegistry(), Now: time.Now})
	require.NoError(t, err)
	require.NoError(t, c.Listen())
	s.door = "http://" + c.Addr()
	w, err := stitcher.New(cfg, stitcher.Deps{Stream: s.client, Store: st, Log: log})
	require.NoError(t, err)
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	for _, run := range []func(context.Context) error{c.Run, w.Run} {
		running.Go(func() {
			if err := run(ctx); err != nil && ctx.Err() == nil {
				t.Errorf("a service has stopped: %v", err)
			}
		})
	}
	t.Cleanup(func() { stop(); running.Wait() })
	s.await("the services", func() bool { return c.Ready() == nil && w.Ready() == nil })
	return s
}

func (s *shop) context() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	s.t.Cleanup(cancel)
	return ctx
}

func (s *shop) await(what string, done func() bool) {
	s.t.Helper()
	require.Eventually(s.t, done, patience, look, what)
}

// send posts events; the answer must be 200.
func (s *shop) send(events ...string) {
	s.t.Helper()
	s.post("/v1/batch", `{"batch":[`+strings.Join(events, ",")+`]}`, http.StatusOK)
}

// post makes a call whose answer must have the status.
func (s *shop) post(path, body string, status int, headers ...string) {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.context(), http.MethodPost, s.door+path, strings.NewReader(body))
	require.NoError(s.t, err)
	req.SetBasicAuth("key", "")
	for n := 0; n < len(headers); n += 2 {
		req.Header.Set(headers[n], headers[n+1])
	}
	res, err := http.DefaultClient.Do(req)
	require.NoError(s.t, err)
	require.NoError(s.t, res.Body.Close())
	require.Equal(s.t, status, res.StatusCode)
}

// sell writes a record of the till.
func (s *shop) sell(text string) {
	s.t.Helper()
	require.NoError(s.t, s.client.Produce(s.context(), till, 0, []stream.Record{{Value: []byte(text)}}))
}

// bodies are the events of a message id on a topic, and how many traces of duplicates of it there are.
func (s *shop) bodies(topicName, messageID string) (bodies []string, duplicates int) {
	s.t.Helper()
	require.NoError(s.t, feed.Read(s.context(), s.client, topicName, feed.Options{}, func(r *stream.Record) error {
		id, _ := topic.Get(r.Headers, topic.HeaderMessageID)
		reason, _ := topic.Get(r.Headers, topic.HeaderReason)
		switch {
		case id != messageID:
		case reason == "duplicate":
			duplicates++
		case reason == "":
			bodies = append(bodies, string(r.Value))
		}
		return nil
	}))
	return bodies, duplicates
}

// settled waits until a message id has come so many times more often than once, and says what it has brought forth.
func (s *shop) settled(messageID string, copies int) []string {
	s.t.Helper()
	s.await(fmt.Sprintf("%d copies of %s", copies, messageID), func() bool {
		bodies, _ := s.bodies(s.set.EventsIdentified(), messageID)
		_, duplicates := s.bodies(s.set.EventsRejected(), messageID)
		return len(bodies) >= 1 && len(bodies)+duplicates >= 1+copies
	})
	bodies, _ := s.bodies(s.set.EventsIdentified(), messageID)
	return bodies
}

func (s *shop) list(f rejected.Filter) []rejected.Item {
	s.t.Helper()
	l, err := rejected.Read(s.context(), s.client, s.set, f, 0)
	require.NoError(s.t, err)
	return l.Items
}

// replay replays all that a filter finds.
func (s *shop) replay(f rejected.Filter, o rejected.RepairOptions, change ...func(*rejected.Replay)) (rejected.Report, string) {
	s.t.Helper()
	repair, err := rejected.NewRepair(o)
	require.NoError(s.t, err)
	var out bytes.Buffer
	r := rejected.Replay{Client: s.client, Set: s.set, Repair: repair, Out: &out, Reader: func(string) (rejected.Reader, error) { return collector.NewHookReader(s.hook) }}
	for _, c := range change {
		c(&r)
	}
	f.Replayed = true
	report, err := r.Run(s.context(), s.list(f))
	require.NoError(s.t, err)
	return report, out.String()
}

func again(r *rejected.Replay) { r.Again = true }

var setEvent = rejected.RepairOptions{Set: []string{`event="Order Completed"`}}

// However often a rejected event is replayed, it is taken once.
func TestAReplayedEventIsTakenOnce(t *testing.T) {
	s := newShop(t)
	s.send(`{"type":"track","userId":"u-1","messageId":"m-1","properties":{"total":119.90,"tax":19.90,"big":12345678901234567890}}`,
		`{"type":"track","event":"Good","userId":"u-1","messageId":"m-2"}`)
	items := s.list(rejected.Filter{})
	require.Len(t, items, 1)
	require.Equal(t, "missing_event", items[0].Reason)
	require.Equal(t, "web", items[0].Meta.Source)

	report, said := s.replay(rejected.Filter{}, rejected.RepairOptions{})
	require.Equal(t, rejected.Report{Faulty: 1}, report, "not repaired")
	require.Contains(t, said, "not replayed: missing_event")

	report, said = s.replay(rejected.Filter{}, setEvent, func(r *rejected.Replay) { r.DryRun = true })
	require.Equal(t, rejected.Report{Sent: 1}, report)
	require.Contains(t, said, `would send {"type":"track","userId":"u-1","messageId":"m-1"`)
	require.Len(t, s.list(rejected.Filter{}), 1, "a dry run sends nothing")

	report, _ = s.replay(rejected.Filter{}, setEvent)
	require.Equal(t, rejected.Report{Sent: 1}, report)
	require.Empty(t, s.list(rejected.Filter{}), "it is off the list")
	require.Len(t, s.list(rejected.Filter{Replayed: true}), 1)
	want := []string{`{"type":"track","userId":"u-1","messageId":"m-1","properties":{"total":119.90,"tax":19.90,"big":12345678901234567890,"net":100},"event":"Order Completed"}`}
	require.Equal(t, want, s.settled("m-1", 0), "with its source's transformations, and its digits")

	report, _ = s.replay(rejected.Filter{}, setEvent)
	require.Equal(t, rejected.Report{Before: 1}, report, "left alone the second time")
	for range 2 {
		report, _ = s.replay(rejected.Filter{}, setEvent, again)
		require.Equal(t, rejected.Report{Sent: 1}, report)
	}
	require.Equal(t, want, s.settled("m-1", 2))
	s.send(`{"type":"track","event":"Order Completed","userId":"u-1","messageId":"m-1"}`)
	require.Equal(t, want, s.settled("m-1", 3), "the sender comes too late")

	recs, _ := s.bodies(s.set.EventsCollected(), "m-1")
	require.Len(t, recs, 4)
	var headers []topic.Header
	require.NoError(t, feed.Read(s.context(), s.client, s.set.EventsIdentified(), feed.Options{}, func(r *stream.Record) error {
		if id, _ := topic.Get(r.Headers, topic.HeaderMessageID); id == "m-1" {
			headers = stream.Clone([]stream.Record{*r})[0].Headers
		}
		return nil
	}))
	meta, err := topic.ParseMeta(headers)
	require.NoError(t, err)
	require.Equal(t, "web", meta.Source)
	require.Equal(t, "shop", meta.Brand)
	require.Equal(t, items[0].Meta.ReceivedAt, meta.ReceivedAt, "the receipt of the first time")
	require.False(t, meta.Trusted)
}

// What the sender has repaired and sent again before is not taken beside it, over HTTP and from a topic.
func TestAReplayOfWhatWasRepairedMeanwhileIsHarmless(t *testing.T) {
	s := newShop(t)
	s.send(`{"type":"track","userId":"u-1","messageId":"m-1"}`)
	s.sell(`{"receipt":"r-1","total":1.50}`)
	s.await("both are rejected", func() bool { return len(s.list(rejected.Filter{})) == 2 })
	s.send(`{"type":"track","event":"Repaired","userId":"u-1","messageId":"m-1"}`)
	s.sell(`{"receipt":"r-1","customer":"u-1","total":1.50}`)
	s.settled("m-1", 0)
	s.settled("r-1", 0)

	report, _ := s.replay(rejected.Filter{Sources: []string{"web"}}, setEvent)
	require.Equal(t, rejected.Report{Sent: 1}, report)
	require.Equal(t, []string{`{"type":"track","event":"Repaired","userId":"u-1","messageId":"m-1"}`}, s.settled("m-1", 1))

	report, said := s.replay(rejected.Filter{Sources: []string{"till"}}, rejected.RepairOptions{Set: []string{`customer="u-1"`}})
	require.Equal(t, rejected.Report{Taken: 1}, report, said)
	require.Len(t, s.settled("r-1", 0), 1)
}

// A record of a topic goes back through its source's mapping; a request that could not be read, item by item.
func TestRecordsAndRequestsGoBackAsWhatTheyWere(t *testing.T) {
	s := newShop(t)
	s.sell(`{"receipt":"r-2","total":19.90}`)
	s.await("it is rejected", func() bool { return len(s.list(rejected.Filter{})) == 1 })
	report, said := s.replay(rejected.Filter{}, rejected.RepairOptions{Set: []string{`customer="u-2"`}})
	require.Equal(t, rejected.Report{Sent: 1}, report, said)
	bodies := s.settled("r-2", 0)
	require.Len(t, bodies, 1)
	require.Contains(t, bodies[0], `"total":19.90`)
	require.Contains(t, bodies[0], `"userId":"u-2"`)

	s.post("/v1/batch", `{"batch":[{"type":"track","event":"A","userId":"u","messageId":"b-1","properties":{"n":NaN}},{"type":"page","userId":"u","messageId":"b-2"}],"context":{"ip":"1.2.3.4"}}`, http.StatusBadRequest)
	report, said = s.replay(rejected.Filter{Reasons: []string{"invalid_json"}}, rejected.RepairOptions{Text: `text.replace("NaN", "null")`})
	require.Equal(t, rejected.Report{Sent: 2}, report, said)
	require.Contains(t, s.settled("b-1", 0)[0], `"n":null`)
	require.Contains(t, s.settled("b-2", 0)[0], `"ip":"1.2.3.4"`)
}

// A replay that ends between the items of one request has not replayed the request.
func TestAnInterruptedReplayIsNotDone(t *testing.T) {
	s := newShop(t)
	s.post("/v1/batch", `{"batch":[{"type":"track","event":"A","userId":"u","messageId":"c-1","properties":{"n":NaN}},{"type":"page","userId":"u","messageId":"c-2"}]}`, http.StatusBadRequest)
	fix := rejected.RepairOptions{Text: `text.replace("NaN", "null")`}
	repair, err := rejected.NewRepair(fix)
	require.NoError(t, err)
	ctx, interrupt := context.WithCancel(s.context())
	var sent atomic.Int64
	var over atomic.Bool
	s.kafka.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
		s.kafka.KeepControl()
		if over.Load() || req.(*kmsg.ProduceRequest).Topics[0].Topic != s.set.EventsInbox() || sent.Add(1) == 1 {
			return nil, nil, false
		}
		interrupt()
		return nil, errors.New("cut off"), true
	})
	r := rejected.Replay{Client: s.client, Set: s.set, Repair: repair, Out: io.Discard}
	_, err = r.Run(ctx, s.list(rejected.Filter{}))
	require.ErrorIs(t, err, context.Canceled)
	over.Store(true)
	require.Len(t, s.list(rejected.Filter{}), 1, "it is still on the list")

	report, said := s.replay(rejected.Filter{}, fix)
	require.Equal(t, rejected.Report{Sent: 2}, report, said)
	require.Empty(t, s.list(rejected.Filter{}))
	require.Len(t, s.settled("c-1", 1), 1, "that was sent twice")
	require.Len(t, s.settled("c-2", 0), 1)
	report, _ = s.replay(rejected.Filter{}, fix)
	require.Equal(t, rejected.Report{Before: 1}, report)
}

// A record that could not be read has the message id that its repaired text gives, so that its sender's repetition is
// a duplicate of it.
func TestARepairedRecordHasItsOwnMessageID(t *testing.T) {
	s := newShop(t)
	s.sell(`{"receipt":"r-3","customer":"u-3","total":NaN}`)
	s.await("it is rejected", func() bool { return len(s.list(rejected.Filter{})) == 1 })
	for range 2 {
		report, said := s.replay(rejected.Filter{}, rejected.RepairOptions{Text: `text.replace("NaN", "1.50")`}, again)
		require.Equal(t, rejected.Report{Sent: 1}, report, said)
	}
	require.Len(t, s.settled("r-3", 1), 1)
	s.sell(`{"receipt":"r-3","customer":"u-3","total":1.50}`)
	require.Len(t, s.settled("r-3", 2), 1)
}
