//go:build integration

package writer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/event"
	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
	"github.com/weft-cdp/weft/pkg/warehouse"
	"github.com/weft-cdp/weft/schemas/clickhouse"
)

// patience is how long a test waits for a condition.
const patience = 2 * time.Minute

// setup is a Kafka in the process and a real ClickHouse with a database of the test's own.
type setup struct {
	t         testing.TB
	cluster   *kfake.Cluster
	cfg       config.Config
	stream    *stream.Client
	warehouse *warehouse.Client
	seq       map[int]int64 // next source position per partition
	wait      func() error  // waits until the writer started last ends by itself
}

func newSetup(t testing.TB) *setup {
	addr := os.Getenv("WEFT_TEST_CLICKHOUSE")
	require.NotEmpty(t, addr, "WEFT_TEST_CLICKHOUSE must name host:port of a ClickHouse (make test sets it)")
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.BrokerConfigs(map[string]string{"group.initial.rebalance.delay.ms": "0"}))
	require.NoError(t, err)
	t.Cleanup(cluster.Close)
	cfg := config.Defaults()
	cfg.Kafka.Brokers = cluster.ListenAddrs()
	cfg.Kafka.SessionTimeout, cfg.Kafka.RebalanceTime = time.Minute, time.Minute // no test is about losing a session
	cfg.Topics.Partitions = 3
	cfg.Writer.FlushInterval = 50 * time.Millisecond
	cfg.ClickHouse = config.ClickHouse{
		Addresses: []string{addr}, Username: "default", Database: "weft_test_" + strings.ReplaceAll(uuid.NewString(), "-", ""),
	}
	s := &setup{t: t, cluster: cluster, cfg: cfg, seq: map[int]int64{}}
	s.stream, s.warehouse = s.connect()
	require.NoError(t, s.stream.EnsureTopics(t.Context(), cfg.Topics.Set().Specs(), cfg.Topics))
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		w, err := warehouse.Open(cfg.ClickHouse)
		require.NoError(t, err)
		require.NoError(t, w.Exec(ctx, "DROP DATABASE IF EXISTS ${database} SYNC"))
		require.NoError(t, w.Close())
	})
	return s
}

func (s *setup) connect() (*stream.Client, *warehouse.Client) {
	c, err := stream.New(s.cfg.Kafka, zaptest.NewLogger(s.t, zaptest.Level(zap.DPanicLevel)))
	require.NoError(s.t, err)
	s.t.Cleanup(c.Close)
	w, err := warehouse.Open(s.cfg.ClickHouse)
	require.NoError(s.t, err)
	s.t.Cleanup(func() { require.NoError(s.t, w.Close()) })
	return c, w
}

// start runs a writer with clients of its own; stop ends it and gives Run's error.
func (s *setup) start() (svc *Service, stop func() error) {
	c, w := s.connect()
	svc, err := New(s.cfg, Deps{Stream: c, Warehouse: w, Log: zaptest.NewLogger(s.t, zaptest.Level(zap.DPanicLevel)), Metrics: prometheus.NewRegistry()})
	require.NoError(s.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- svc.Run(ctx) }()
	s.wait = sync.OnceValue(func() error { return <-done })
	wait := s.wait
	stop = func() error { cancel(); return wait() }
	s.t.Cleanup(func() { _ = stop() })
	return svc, stop
}

// events publishes n events of people to events.identified, as the stitcher would, every fifth twice.
func (s *setup) events(n int) (distinct int) {
	set := s.cfg.Topics.Set()
	batches := map[int][]stream.Record{}
	for i := range n {
		key := uuid.NewSHA1(uuid.Nil, fmt.Append(nil, i%50)).String()
		p := topic.Partition([]byte(key), set.Partitions)
		m := event.Meta{Source: "web", Brand: "main", MessageID: fmt.Sprintf("m-%d-%d", s.seq[0], i), ReceivedAt: time.Now().UTC().Truncate(time.Millisecond)}
		pos := topic.Position{Stage: topic.StageStitcher, Partition: p, Seq: s.seq[p]}
		s.seq[p]++
		r := stream.Record{Key: []byte(key), Value: fmt.Appendf(nil, `{"type":"track","event":"Product Viewed","properties":{"n":%d,"price":"1.50"}}`, i),
			Headers: append(topic.MetaHeaders(m), topic.Header{Key: topic.HeaderPosition, Value: []byte(pos.String())})}
		batches[p] = append(batches[p], r)
		if i%5 == 0 {
			batches[p] = append(batches[p], r)
		}
	}
	for p, recs := range batches {
		require.NoError(s.t, s.stream.Produce(s.t.Context(), set.EventsIdentified(), p, recs))
	}
	return n
}

func (s *setup) count(sql string) int {
	s.t.Helper()
	res, err := s.warehouse.Query(s.t.Context(), sql)
	if errors.Is(err, warehouse.ErrPermanent) { // no such table yet
		return -1
	}
	require.NoError(s.t, err)
	n := 0
	_, err = fmt.Sscan(res.Rows[0][0], &n)
	require.NoError(s.t, err)
	return n
}

func (s *setup) await(sql string, want int) {
	s.t.Helper()
	require.Eventually(s.t, func() bool { return s.count(sql) >= want }, patience, 20*time.Millisecond, sql)
	require.Equal(s.t, want, s.count(sql), sql)
}

func TestEveryTopicReachesItsTable(t *testing.T) {
	s := newSetup(t)
	svc, stop := s.start()
	n := s.events(100)
	set := s.cfg.Topics.Set()
	put := func(name, key, value string, hs ...topic.Header) {
		r := stream.Record{Key: []byte(key), Headers: hs}
		if value != "" {
			r.Value = []byte(value)
		}
		require.NoError(t, s.stream.Produce(t.Context(), name, topic.Partition([]byte(key), set.Partitions), []stream.Record{r}))
	}
	const a, b = "00000000-0000-8000-8000-000000000001", "30000000-0000-8000-8000-000000000002"
	header := func(k, v string) topic.Header { return topic.Header{Key: k, Value: []byte(v)} }
	put(set.EventsIdentified(), b, `{"type":"page"}`, header(topic.HeaderReceivedAt, "1767225600000"))
	put(set.EventsIdentified(), b, fmt.Sprintf(`{"loser":%q,"winner":%q,"members":[%q],"version":2,"cause":{"source":"x","messageId":"m","rule":"alias","time":"2026-01-01T00:00:00.000Z"},"evidence":[]}`, b, a, b),
		header(topic.HeaderKind, "merge"))
	put(set.EventsIdentified(), a, `{"type":`)
	put(set.EventsRejected(), "x", "\x00garbage", header(topic.HeaderReason, "invalid_json"), header(topic.HeaderService, "collector"))
	put(set.ProfilesChanged(), a, `{"id":"`+a+`","orders":1,"revenue":{"EUR":"1.0000"}}`, header(topic.HeaderPosition, "profile-builder:0:1"))
	put(set.ProfilesChanged(), b, "", header(topic.HeaderPosition, "profile-builder:1:1"))
	put(set.AudiencesChanged(), a, `{"audience":"vip","change":"entered","at":"2026-01-01T00:00:00.000Z"}`)
	put(set.ActivationsRequested(), a, `{"id":"m","receipt":"r","channel":"email","decidedAt":1767225600000}`)
	put(set.ActivationsSettled(), a, `{"receipt":"r","outcome":"delivered","reason":"sent","brand":"main","settledAt":1767225600000}`)
	// The event of b was of another person, part c, as a split says: it is told again, and no row more.
	const c = "00000000-0000-8000-8000-000000000003"
	put(set.EventsIdentified(), b, fmt.Sprintf(`{"command":"c1","node":%q,"into":%q,"person":%q,"generation":1,"time":"2026-01-02T00:00:00Z","actor":"ann","reason":"twins"}`, b, c, a), header(topic.HeaderKind, "split"))
	var offset warehouse.Result
	require.Eventually(t, func() bool {
		var err error
		offset, err = s.warehouse.Query(t.Context(), "SELECT concat(topic, ':', toString(partition), ':', toString(offset)) FROM ${database}.events WHERE profile_id = '"+b+"'")
		return err == nil && len(offset.Rows) == 1
	}, patience, 20*time.Millisecond)
	put(set.EventsIdentified(), c, `{"type":"page"}`, header(topic.HeaderReceivedAt, "1767225600000"), header(topic.HeaderRefold, "c1"), header(topic.HeaderOrigin, offset.Rows[0][0]))
	put(set.EventsIdentified(), c, `{"command":"c1","node":"`+c+`","generation":1,"cuts":[]}`, header(topic.HeaderRefold, "c1"), header(topic.HeaderKind, "refolded"))
	put(set.IdentitiesLinked(), "c1", `{"id":"c1","kind":"release","split":"c0","actor":"ann","reason":"r","at":"2026-01-01T00:00:00Z","outcome":"done"}`, header(topic.HeaderKind, "command"))
	s.await("SELECT count() FROM ${database}.events", n+1)
	s.await("SELECT count() FROM ${database}.events_rejected", 2)
	s.await("SELECT count() FROM ${database}.identities", 2)
	s.await("SELECT count() FROM ${database}.event_parts", 1)
	s.await("SELECT count() FROM ${database}.identity_commands", 1)
	s.await("SELECT count() FROM ${database}.splits WHERE part = '"+c+"'", 1)
	s.await("SELECT count() FROM ${database}.profile_redirects FINAL", 1)
	s.await("SELECT count() FROM ${database}.identity_moves WHERE incarnation = 0 AND valid_from = '2026-01-01' AND known_from > now() - 3600", 1)
	s.await("SELECT count() FROM ${database}.profiles", 2)
	s.await("SELECT count() FROM ${database}.people", 1)
	s.await("SELECT count() FROM ${database}.audience_members", 1)
	s.await("SELECT count() FROM ${database}.messages_requested", 1)
	s.await("SELECT count() FROM ${database}.messages", 1)
	// The merge, and the split, are seen at query time, without anybody reloading anything by hand.
	s.await("SELECT count() FROM ${database}.events_by_person WHERE profile_id = '"+b+"' AND person_id = '"+c+"'", 1)
	s.await("SELECT count() FROM ${database}.person_timeline(person = '"+a+"')", 3)
	s.await("SELECT count() FROM ${database}.person_timeline(person = '"+b+"')", 3)
	require.Eventually(t, func() bool { return svc.Ready() == nil }, patience, 10*time.Millisecond)
	require.NoError(t, stop())
	require.Error(t, svc.Ready())
	doubles, err := s.warehouse.Doubles(t.Context(), 10)
	require.NoError(t, err)
	require.Empty(t, doubles)
	// All is acknowledged: a new writer has nothing to do.
	for _, in := range svc.inputs {
		ends, err := s.stream.EndOffsets(t.Context(), in.topic)
		require.NoError(t, err)
		done, err := s.stream.Committed(t.Context(), set.Group(topic.StageWriter, in.topic), in.topic)
		require.NoError(t, err)
		for p := range ends {
			require.Equal(t, ends[p], done[p].Offset, "%s/%d", in.topic, p)
		}
	}
}

// Writers come and go in the middle of their work, and the outcome of commits is unknown: nothing is missing
// and nothing is twice.
func TestWritersComeAndGoUnderFaults(t *testing.T) {
	s := newSetup(t)
	s.cfg.Writer.BatchRows = 40
	var commits atomic.Int64
	// Every seventh commit is answered with an error that says nothing about its outcome.
	s.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetCommit}, Err: kerr.RequestTimedOut, Count: -1,
		When: func(kmsg.Request) bool { return commits.Add(1)%7 == 0 }})
	total := 0
	_, stop := s.start()
	for round := range 6 {
		total += s.events(150)
		_, next := s.start()
		if round%2 == 0 {
			require.NoError(t, stop()) // in the middle of its work
			stop = next
		} else {
			require.NoError(t, next())
		}
	}
	s.await("SELECT count() FROM ${database}.events", total)
	s.await("SELECT uniqExact(message_id) FROM ${database}.events", total)
	require.NoError(t, stop())
	doubles, err := s.warehouse.Doubles(t.Context(), 10)
	require.NoError(t, err)
	require.Empty(t, doubles)
}

func TestExpiredOffsetsResumeBehindWhatIsStored(t *testing.T) {
	s := newSetup(t)
	_, stop := s.start()
	n := s.events(60)
	s.await("SELECT count() FROM ${database}.events", n)
	require.NoError(t, stop())
	set := s.cfg.Topics.Set()
	req := kmsg.NewPtrDeleteGroupsRequest()
	req.Groups = []string{set.Group(topic.StageWriter, set.EventsIdentified())}
	s.admin(req)
	n += s.events(40)
	_, stop = s.start()
	s.await("SELECT count() FROM ${database}.events", n)
	require.NoError(t, stop())
	doubles, err := s.warehouse.Doubles(t.Context(), 10)
	require.NoError(t, err)
	require.Empty(t, doubles)

	// Records that are gone from the log before they were stored stop the writer, loudly.
	del := kmsg.NewPtrDeleteGroupsRequest()
	del.Groups = req.Groups
	s.admin(del)
	s.events(60)
	ends, err := s.stream.EndOffsets(t.Context(), set.EventsIdentified())
	require.NoError(t, err)
	cut := kmsg.NewPtrDeleteRecordsRequest()
	top := kmsg.NewDeleteRecordsRequestTopic()
	top.Topic = set.EventsIdentified()
	for p, end := range ends {
		part := kmsg.NewDeleteRecordsRequestTopicPartition()
		part.Partition, part.Offset = int32(p), end
		top.Partitions = append(top.Partitions, part)
	}
	cut.Topics = append(cut.Topics, top)
	s.admin(cut)
	_, stop = s.start()
	ended := make(chan error, 1)
	go func() { ended <- s.wait() }()
	select {
	case err := <-ended:
		require.ErrorIs(t, err, stream.ErrStop)
		require.ErrorContains(t, err, "ClickHouse ends at offset")
	case <-time.After(patience):
		t.Fatal("the writer goes on although records are missing")
	}
	require.Error(t, stop())
}

// onlyFirst is a ClickHouse that is lost after one insert.
type onlyFirst struct {
	inserter
	done bool
}

// Insert is inserter's.
func (o *onlyFirst) Insert(ctx context.Context, rows warehouse.Rows, t warehouse.Token, now func() time.Time) error {
	if o.done {
		return errors.New("connection refused")
	}
	o.done = true
	return o.inserter.Insert(ctx, rows, t, now)
}

// A writer died when it had stored the events of a range and not yet its merges, and then the group's
// offsets were lost: each table is completed, and nothing is twice.
func TestLostOffsetsBetweenTwoTablesLoseNoRows(t *testing.T) {
	s := newSetup(t)
	require.NoError(t, s.warehouse.Migrate(t.Context(), clickhouse.Files, zap.NewNop()))
	const winner, loser = "00000000-0000-8000-8000-000000000001", "30000000-0000-8000-8000-000000000002"
	merge := fmt.Sprintf(`{"loser":%q,"winner":%q,"members":[%q],"version":2,"cause":{"source":"x","messageId":"m","rule":"alias","time":"2026-01-01T00:00:00.000Z"},"evidence":[]}`, loser, winner, loser)
	name := s.cfg.Topics.Set().EventsIdentified()
	recs := []stream.Record{
		*record(person, `{"type":"page"}`), *record(loser, merge, topic.Header{Key: topic.HeaderKind, Value: []byte(topic.KindMerge)}),
		*record(person, `{"type":`), *record(person, `{"type":"page"}`),
	}
	require.NoError(t, s.stream.Produce(t.Context(), name, 0, recs))
	died := newRows(kindEvents, name, &onlyFirst{inserter: s.warehouse}, time.Now, func(table) {}, func() {})
	for i := range recs {
		recs[i].Topic, recs[i].Partition, recs[i].Offset = name, 0, int64(i)
		require.NoError(t, died.add(&recs[i]))
	}
	require.ErrorContains(t, died.store(t.Context(), warehouse.Token{Text: "forgotten", Limit: time.Minute}), "connection refused")
	require.Equal(t, []int{2, 0, 0, 0, 0}, s.rowsOf(0))
	_, stop := s.start()
	s.await("SELECT count() FROM ${database}.events_rejected", 1) // the last of the tables
	require.Equal(t, []int{2, 1, 1, 1, 1}, s.rowsOf(0))
	require.NoError(t, stop())
	_, stop = s.start()
	n := s.events(30)
	s.await("SELECT count() FROM ${database}.events", 2+n)
	require.NoError(t, stop())
	doubles, err := s.warehouse.Doubles(t.Context(), 10)
	require.NoError(t, err)
	require.Empty(t, doubles)
}

// rowsOf counts what the tables of events.identified have of a partition, in the order of storing.
func (s *setup) rowsOf(partition int) []int {
	var out []int
	for _, name := range []string{warehouse.TableEvents, warehouse.TableIdentities, warehouse.TableMoves, warehouse.TableRedirects, warehouse.TableRejected} {
		out = append(out, s.count(fmt.Sprintf("SELECT count() FROM ${database}.%s WHERE partition = %d", name, partition)))
	}
	return out
}

// admin sends one request of the protocol.
func (s *setup) admin(req kmsg.Request) {
	s.t.Helper()
	k, err := kgo.NewClient(kgo.SeedBrokers(s.cluster.ListenAddrs()...))
	require.NoError(s.t, err)
	defer k.Close()
	_, err = k.Request(s.t.Context(), req)
	require.NoError(s.t, err)
}

// listSource is a log in memory.
type listSource []stream.Record

// Fetch is source's.
func (l listSource) Fetch(ctx context.Context, _ time.Duration) (stream.Batch, error) {
	return stream.Batch{Records: l, Next: int64(len(l)), HighWatermark: int64(len(l))}, ctx.Err()
}

// Close is source's.
func (listSource) Close() {}

// claimFunc is a claim.
type claimFunc func(offset int64) error

// Commit is claim's.
func (f claimFunc) Commit(_ context.Context, offset int64, _ string) error { return f(offset) }

// A range was announced an hour ago and half of it stored; its token is forgotten since.
func TestLateAnnouncementIsReadBack(t *testing.T) {
	s := newSetup(t)
	require.NoError(t, s.warehouse.Migrate(t.Context(), clickhouse.Files, zap.NewNop()))
	const n = 40
	var recs listSource
	for i := range n {
		r := *record(person, `{"type":"page"}`)
		r.Topic, r.Partition, r.Offset = "t", 0, int64(i)
		recs = append(recs, r)
	}
	rowsOf := func() *tableRows {
		return newRows(kindEvents, "t", s.warehouse, time.Now, func(table) {}, func() {})
	}
	before := rowsOf()
	for i := range recs[:n/2] {
		require.NoError(t, before.add(&recs[i]))
	}
	require.NoError(t, before.store(t.Context(), warehouse.Token{Text: "forgotten", Limit: time.Minute}))
	hourAgo := time.Now().Add(-time.Hour).Truncate(time.Millisecond)
	ann := announcement{Start: 0, End: n, At: hourAgo, First: hourAgo, Positions: positions{}}
	metadata, err := ann.encode()
	require.NoError(t, err)

	m, err := newMetrics(nil)
	require.NoError(t, err)
	l, err := newLimits(s.cfg.Writer, 1)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var commits []int64
	o := &owner{
		topic: "t", claim: claimFunc(func(offset int64) error {
			if commits = append(commits, offset); offset == n {
				cancel()
			}
			return nil
		}),
		open: func(from int64) source { return recs[from:] }, rows: rowsOf(), memory: &openBytes{}, limits: l,
		now: time.Now, pause: sleep, log: zap.NewNop(), metrics: m.partition("t", 0, time.Now),
	}
	require.NoError(t, o.run(ctx, 0, metadata))
	require.Equal(t, []int64{0, n}, commits, "announced anew, then acknowledged")
	s.await("SELECT count() FROM ${database}.events", n)
	s.await("SELECT uniqExact(offset) FROM ${database}.events", n)
}
