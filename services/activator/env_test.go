package activator

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	gosmtp "github.com/emersion/go-smtp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/event"
	"github.com/weft-cdp/weft/pkg/identity"
	"github.com/weft-cdp/weft/pkg/journey"
	"github.com/weft-cdp/weft/pkg/store"
	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	testPartitions = 2
	waitAtMost     = 2 * time.Minute
	look           = 10 * time.Millisecond
)

const journeyFile = `name: abandoned-cart
arms: cart
delay: 1h
channel: email
purpose: marketing
from: Shop <shop@example.com>
subject: Your cart
text: |
  {{range .Lines}}{{.Name}} {{money .Total .Currency}}
  {{end}}{{.UnsubscribeURL}}
`

// env is a Kafka, a Redis, a mail server and a clock of one test.
type env struct {
	t      *testing.T
	cfg    config.Config
	topics topic.Set
	stream *stream.Client
	store  *store.Client
	mail   *mailbox
	redis  *miniredis.Miniredis
	kafka  *kfake.Cluster
	silent atomic.Bool // Kafka cuts connections
	seq    int64

	mu    sync.Mutex
	clock time.Time
}

func newEnv(t *testing.T) *env {
	t.Helper()
	topics := topic.Set{Prefix: "test.", Partitions: testPartitions}
	var names []string
	for _, s := range topics.Specs() {
		names = append(names, s.Name)
	}
	k, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(testPartitions, names...))
	require.NoError(t, err)
	t.Cleanup(k.Close)
	dir := t.TempDir()
	e := &env{t: t, topics: topics, cfg: config.Defaults(), mail: newMailbox(t), redis: miniredis.RunT(t), kafka: k, clock: time.Now().UTC().Truncate(time.Second)}
	e.cfg.Kafka.Brokers = k.ListenAddrs()
	e.cfg.Kafka.SessionTimeout, e.cfg.Kafka.RebalanceTime = time.Minute, time.Minute // no test is about losing a session
	e.cfg.Redis = config.Redis{Addresses: []string{e.redis.Addr()}, AllowNonDurable: true}
	e.cfg.Topics.Prefix, e.cfg.Topics.Partitions = topics.Prefix, topics.Partitions
	e.cfg.Collector.UnsubscribeSecret = filepath.Join(dir, "unsubscribe.key")
	e.cfg.Activator.Journeys = filepath.Join(dir, "journeys")
	e.cfg.Activator.SuppressionFile = filepath.Join(dir, "suppressed")
	e.cfg.Activator.PublicURL = "https://shop.example"
	e.cfg.Activator.FencePoll = 5 * time.Millisecond
	e.cfg.Activator.SMTP = config.SMTP{Address: e.mail.addr, TLS: "none", HELO: "weft.example", Timeout: waitAtMost}
	require.NoError(t, os.Mkdir(e.cfg.Activator.Journeys, 0o700))
	e.write("abandoned-cart.yaml", journeyFile)
	require.NoError(t, os.WriteFile(e.cfg.Activator.SuppressionFile, []byte("# nobody\n"), 0o600))
	e.stream, e.store = e.connect()
	return e
}

func (e *env) write(name, text string) {
	e.t.Helper()
	require.NoError(e.t, os.WriteFile(filepath.Join(e.cfg.Activator.Journeys, name), []byte(text), 0o600))
}

func (e *env) now() time.Time {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.clock
}

func (e *env) pass(d time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.clock = e.clock.Add(d)
}

func (e *env) connect() (*stream.Client, *store.Client) {
	e.t.Helper()
	log := zaptest.NewLogger(e.t, zaptest.Level(zapcore.FatalLevel))
	sc, err := stream.New(e.cfg.Kafka, log)
	require.NoError(e.t, err)
	e.t.Cleanup(sc.Close)
	st, err := store.New(e.cfg.Redis, log, store.WithPatience(waitAtMost))
	require.NoError(e.t, err)
	e.t.Cleanup(func() { require.NoError(e.t, st.Close()) })
	return sc, st
}

// start runs a service, as a process of its own would, until stop, which waits for it.
func (e *env) start() (s *Service, stop func()) {
	e.t.Helper()
	sc, st := e.connect()
	s, err := New(e.cfg, Deps{
		Stream: sc, Store: st, Log: zaptest.NewLogger(e.t, zaptest.Level(zapcore.FatalLevel)), Metrics: prometheus.NewRegistry(), Now: e.now,
	})
	require.NoError(e.t, err)
	require.Error(e.t, s.Ready())
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		require.NoError(e.t, <-done)
	})
	e.t.Cleanup(stop)
	require.Eventually(e.t, func() bool { return s.Ready() == nil }, waitAtMost, look)
	return s, stop
}

// send appends one event of a person to events.identified, as the stitcher does.
func (e *env) send(profile, body string, change ...func(*event.Meta)) {
	e.t.Helper()
	e.seq++
	m := event.Meta{Source: "web", Brand: "main", MessageID: fmt.Sprint("m", e.seq), ReceivedAt: e.now()}
	for _, f := range change {
		f(&m)
	}
	e.record(profile, topic.KindEvent, m, fmt.Sprintf(`{"anonymousId":"a","messageId":%q,"timestamp":%q,%s}`, m.MessageID, e.now().Format(time.RFC3339Nano), body))
}

func (e *env) record(profile string, kind topic.Kind, m event.Meta, body string) {
	e.t.Helper()
	e.produce(e.topics.EventsIdentified(), stream.Record{Key: []byte(profile), Value: []byte(body), Headers: append(topic.MetaHeaders(m),
		topic.Header{Key: topic.HeaderKind, Value: []byte(kind)})})
}

func (e *env) produce(topicName string, r stream.Record) {
	e.t.Helper()
	require.NoError(e.t, e.stream.Produce(context.Background(), topicName, topic.Partition(r.Key, testPartitions), []stream.Record{r}))
}

func (e *env) merge(loser, winner string) {
	e.t.Helper()
	b, err := identity.Merge{
		Loser: loser, Winner: winner, Members: []string{loser}, Version: 2,
		Cause: identity.Cause{Source: "test", MessageID: "m", Rule: identity.RuleSameEvent, Time: e.now()},
	}.Encode()
	require.NoError(e.t, err)
	e.record(loser, topic.KindMerge, event.Meta{MessageID: "m", ReceivedAt: e.now()}, string(b))
}

// reachable makes a person with an address and consent; shops puts something into their cart.
func (e *env) reachable(profile string) {
	e.send(profile, fmt.Sprintf(`"type":"identify","traits":{"email":"%s@example.com","consent":{"email":{"marketing":true}}}`, profile))
}

func (e *env) shops(profile, cart string) {
	e.send(profile, fmt.Sprintf(`"type":"track","event":"Product Added","properties":{"cart_id":%q,"product_id":"tea","name":"Tea","price":12.9,"currency":"EUR"}`, cart))
}

func (e *env) orders(profile string) {
	e.send(profile, `"type":"track","event":"Order Completed","properties":{"order_id":"o1","total":12.9}`)
}

// read returns everything in a topic so far, as a reader by rule 1 does: a process that ends between publishing and
// noting so publishes again when it is back.
func (e *env) read(topicName string) []stream.Record {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), waitAtMost)
	defer cancel()
	ends, err := e.stream.EndOffsets(ctx, topicName)
	require.NoError(e.t, err)
	var recs []stream.Record
	for p, end := range ends {
		high := map[string]int64{}
		f := e.stream.NewFetcher(topicName, p, 0, stream.FetchOptions{})
		for next := int64(0); next < end; {
			b, err := f.Fetch(ctx, 100*time.Millisecond)
			require.NoError(e.t, err)
			next = b.Next
			for _, r := range stream.Clone(b.Records) {
				if text, ok := topic.Get(r.Headers, topic.HeaderPosition); ok {
					pos, err := topic.ParsePosition(text)
					require.NoError(e.t, err)
					if n, seen := high[pos.Source()]; seen && pos.Seq <= n {
						continue
					}
					high[pos.Source()] = pos.Seq
				}
				recs = append(recs, r)
			}
		}
		f.Close()
	}
	return recs
}

// receipts waits for n receipts, by their ids.
func (e *env) receipts(n int) map[string]journey.Receipt {
	e.t.Helper()
	var m map[string]journey.Receipt
	require.Eventually(e.t, func() bool {
		m = map[string]journey.Receipt{}
		for _, r := range e.read(e.topics.ActivationsSettled()) {
			var x journey.Receipt
			require.NoError(e.t, json.Unmarshal(r.Value, &x))
			require.NotContains(e.t, m, x.Receipt, "a receipt twice")
			m[x.Receipt] = x
		}
		return len(m) >= n
	}, waitAtMost, look)
	require.Len(e.t, m, n)
	return m
}

// only waits for the one receipt of a profile.
func (e *env) only(profile string) journey.Receipt {
	e.t.Helper()
	var got []journey.Receipt
	require.Eventually(e.t, func() bool {
		got = nil
		for _, r := range e.read(e.topics.ActivationsSettled()) {
			var x journey.Receipt
			require.NoError(e.t, json.Unmarshal(r.Value, &x))
			if x.Profile == profile {
				got = append(got, x)
			}
		}
		return len(got) > 0
	}, waitAtMost, look)
	require.Len(e.t, got, 1)
	return got[0]
}

// decided waits until the decide stage has folded everything sent so far.
func (e *env) decided() {
	e.t.Helper()
	group := e.topics.Group(topic.StageDecide, e.topics.EventsIdentified())
	require.Eventually(e.t, func() bool {
		ends, err := e.stream.EndOffsets(context.Background(), e.topics.EventsIdentified())
		require.NoError(e.t, err)
		got, err := e.stream.Committed(context.Background(), group, e.topics.EventsIdentified())
		require.NoError(e.t, err)
		for p := range ends {
			if p >= len(got) || got[p].Offset < ends[p] {
				return false
			}
		}
		return true
	}, waitAtMost, look)
}

// mailbox is a mail server in the process.
type mailbox struct {
	addr string
	mu   sync.Mutex
	got  [][]byte
	away bool
	sent int // clients sent away
}

func newMailbox(t *testing.T) *mailbox {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	m := &mailbox{addr: l.Addr().String()}
	srv := gosmtp.NewServer(gosmtp.BackendFunc(m.session))
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(l) }()
	t.Cleanup(func() { _ = l.Close(); _ = srv.Close(); <-done })
	return m
}

func (m *mailbox) session(*gosmtp.Conn) (gosmtp.Session, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.away {
		m.sent++
		return nil, &gosmtp.SMTPError{Code: 421, Message: "closing"}
	}
	return &session{m: m}, nil
}

// goAway is a mail server that shuts down or is back; sentAway is how many met it while it was away.
func (m *mailbox) goAway(away bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.away = away
}

func (m *mailbox) sentAway() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.sent
}

func (m *mailbox) mails() [][]byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([][]byte(nil), m.got...)
}

type session struct{ m *mailbox }

func (s *session) Mail(string, *gosmtp.MailOptions) error { return nil }
func (s *session) Rcpt(string, *gosmtp.RcptOptions) error { return nil }
func (s *session) Reset()                                 {}
func (s *session) Logout() error                          { return nil }

func (s *session) Data(r io.Reader) error {
	b, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	s.m.got = append(s.m.got, b)
	return nil
}

func testLog(t *testing.T) *zap.Logger {
	return zaptest.NewLogger(t, zaptest.Level(zapcore.FatalLevel))
}
