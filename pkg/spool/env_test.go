package spool

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"github.com/weft-cdp/weft/pkg/spool/registry"
	"github.com/weft-cdp/weft/pkg/stream"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for a condition.
const patience = 60 * time.Second

// soon is how long the tests' senders wait for Kafka.
const soon = 20 * time.Millisecond

var errAway = errors.New("away")

const partitions = 3

// kafka is what a spool drains to and a sender sends to, in memory.
type kafka struct {
	mu      sync.Mutex
	away    bool
	stuck   map[int]bool // partitions
	refuses string       // a value
	logs    map[string][]string
	others  []string // what was refused, and put elsewhere
	direct  int      // records that came on the direct way
}

func newKafka() *kafka { return &kafka{logs: map[string][]string{}, stuck: map[int]bool{}} }

func (k *kafka) set(away bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.away = away
}

func (k *kafka) takes(partition int) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return !k.away && !k.stuck[partition]
}

func logName(topic string, partition int) string { return fmt.Sprintf("%s/%d", topic, partition) }

func (k *kafka) log(topic string, partition int) []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return append([]string(nil), k.logs[logName(topic, partition)]...)
}

func (k *kafka) all() map[string]int {
	k.mu.Lock()
	defer k.mu.Unlock()
	n := map[string]int{}
	for _, l := range k.logs {
		for _, v := range l {
			n[v]++
		}
	}
	return n
}

func (k *kafka) ProduceEncoded(_ context.Context, topic string, partition int, e *stream.Encoded, from int) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.away || k.stuck[partition] {
		return errAway
	}
	for i := from; i < e.Len(); i++ {
		r, err := e.Record(i)
		if err != nil {
			return err
		}
		if k.refuses != "" && string(r.Value) == k.refuses {
			return &stream.RecordError{Index: i, Err: errors.New("too large")}
		}
		k.logs[logName(topic, partition)] = append(k.logs[logName(topic, partition)], string(r.Value))
	}
	return nil
}

// way is the direct way of one topic: it waits, as a Batcher does, while a partition is not there.
type way struct {
	*kafka
	topic string
}

func (w way) SendAll(ctx context.Context, recs []stream.Record) error {
	acked := make([]bool, len(recs))
	whole := true
	for i := range recs {
		p := stream.PartitionFor(recs[i].Key, partitions)
		if acked[i] = w.takes(p); !acked[i] {
			whole = false
			continue
		}
		w.mu.Lock()
		w.direct++
		w.logs[logName(w.topic, p)] = append(w.logs[logName(w.topic, p)], string(recs[i].Value))
		w.mu.Unlock()
	}
	if whole {
		return nil
	}
	<-ctx.Done()
	return fmt.Errorf("send: %w", &stream.UnacknowledgedError{Acknowledged: acked, Err: context.Cause(ctx)})
}

// register is where the fence looks, in memory.
type register struct {
	mu      sync.Mutex
	away    bool
	entries map[string]registry.Entry
	written int
}

func (r *register) Register(_ context.Context, e registry.Entry) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.away {
		return errAway
	}
	r.entries[e.ID] = e
	r.written++
	return nil
}

func (r *register) Unregister(_ context.Context, id string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.away {
		return errAway
	}
	delete(r.entries, id)
	return nil
}

func (r *register) List(context.Context) ([]registry.Entry, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.away {
		return nil, errAway
	}
	var list []registry.Entry
	for _, e := range r.entries {
		list = append(list, e)
	}
	return list, nil
}

func (r *register) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.entries)
}

// env is a spool with what it stands on.
type env struct {
	t     testing.TB
	opt   Options
	kafka *kafka
	reg   *register
	*Spool
	senders []*Sender
	stop    func()
	opener  func(Options) (*Spool, error)
}

func newEnv(t testing.TB) *env {
	e := &env{t: t, kafka: newKafka(), reg: &register{entries: map[string]registry.Entry{}}, opener: Open}
	e.opt = Options{
		Dir: t.TempDir(), MaxBytes: 64 << 20, Topics: []string{"a", "b"}, Partitions: partitions, Registry: e.reg, Producer: e.kafka,
		Log: zaptest.NewLogger(t, zaptest.Level(zap.DPanicLevel)),
		Refused: func(_ context.Context, _ string, _ int, r stream.Record, _ *stream.RecordError) error {
			e.kafka.mu.Lock()
			defer e.kafka.mu.Unlock()
			e.kafka.others = append(e.kafka.others, string(r.Value))
			return nil
		},
	}
	return e
}

// open takes the directory without running anything.
func (e *env) open() {
	s, err := e.opener(e.opt)
	require.NoError(e.t, err)
	e.Spool = s
	e.senders = nil
	for i, name := range e.opt.Topics {
		e.senders = append(e.senders, s.Sender(i, way{e.kafka, name}, soon))
	}
	e.t.Cleanup(func() { _ = s.Close() })
}

// start is open and run.
func (e *env) start() *env {
	e.open()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	s := e.Spool
	go func() { defer close(done); _ = s.Run(ctx) }()
	e.stop = sync.OnceFunc(func() { cancel(); <-done; require.NoError(e.t, s.Close()) })
	e.t.Cleanup(e.stop)
	return e
}

func (e *env) context() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	e.t.Cleanup(cancel)
	return ctx
}

func (e *env) send(topic int, key string, values ...string) error {
	var recs []stream.Record
	for _, v := range values {
		recs = append(recs, stream.Record{Key: []byte(key), Value: []byte(v)})
	}
	return e.senders[topic].SendAll(e.context(), recs)
}

func (e *env) eventually(what string, ok func() bool) {
	e.t.Helper()
	require.Eventually(e.t, ok, patience, 2*time.Millisecond, what)
}

func (e *env) drained() {
	e.t.Helper()
	e.eventually("all is drained and unregistered", func() bool { return e.Behind() == 0 && e.reg.count() == 0 })
}

// keyFor is a key of a partition.
func keyFor(partition int) string {
	for i := 0; ; i++ {
		if k := fmt.Sprint("key", i); stream.PartitionFor([]byte(k), partitions) == partition {
			return k
		}
	}
}

func partitionOf(key string) int { return stream.PartitionFor([]byte(key), partitions) }

func recordsOf(keys ...string) []stream.Record {
	var recs []stream.Record
	for _, k := range keys {
		recs = append(recs, stream.Record{Key: []byte(k), Value: []byte("of " + k)})
	}
	return recs
}

// assertNoError is for goroutines of a test.
func assertNoError(t testing.TB, err error) bool {
	if err != nil {
		t.Error(err)
	}
	return err == nil
}
