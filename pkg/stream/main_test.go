package stream

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/topic"
)

func TestMain(m *testing.M) {
	if kind := os.Getenv(brokerEnv); kind != "" {
		serveBroker(kind)
		return
	}
	goleak.VerifyTestMain(m)
}

// patience is how long a test waits for a condition; it is never slept through, so it may be as long as the slowest
// machine needs.
const patience = 2 * time.Minute

const (
	// longSession is that of members which are not meant to lose it: no machine stands still for as long.
	longSession = time.Minute
	// shortSession is the shortest that a broker allows by default, for those that are.
	shortSession = 6 * time.Second
)

// unique makes topics and groups of tests differ, also between runs against one real Kafka.
var unique atomic.Int64 //nolint:gochecknoglobals // names of a test run

func name(what string) string {
	return fmt.Sprintf("weft-test-%s-%d-%d", what, time.Now().UnixNano(), unique.Add(1))
}

func testContext(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	t.Cleanup(cancel)
	return ctx
}

func fake(t testing.TB, opts ...kfake.Opt) *kfake.Cluster {
	t.Helper()
	cluster, err := kfake.NewCluster(append([]kfake.Opt{
		kfake.NumBrokers(1), kfake.BrokerConfigs(map[string]string{"group.initial.rebalance.delay.ms": "0"}),
	}, opts...)...)
	require.NoError(t, err)
	t.Cleanup(cluster.Close)
	return cluster
}

// access is how brokers that want it are reached: secured, by address.
var access sync.Map //nolint:gochecknoglobals // of a test run

type secured struct {
	tls  config.TLS
	sasl config.SASL
	kgo  []kgo.Opt
}

func accessTo(brokers []string) secured {
	s, _ := access.Load(brokers[0])
	a, _ := s.(secured)
	return a
}

func client(t testing.TB, brokers []string, opts ...Option) *Client {
	t.Helper()
	a := accessTo(brokers)
	c, err := New(config.Kafka{
		Brokers: brokers, ClientID: "weft-test", SessionTimeout: longSession, RebalanceTime: longSession, TLS: a.tls, SASL: a.sasl,
	}, zaptest.NewLogger(t, zaptest.Level(zap.DPanicLevel)), opts...)
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c
}

func foreign(t testing.TB, brokers []string, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	k, err := kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(brokers...), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.DisableIdempotentWrite(),
	}, append(opts, accessTo(brokers).kgo...)...)...)
	require.NoError(t, err)
	t.Cleanup(k.Close)
	return k
}

func newTopic(t testing.TB, c *Client, what string, partitions int) string {
	t.Helper()
	n := name(what)
	err := c.EnsureTopics(testContext(t), []topic.Spec{{Name: n, Partitions: partitions}},
		config.Topics{ReplicationFactor: 1, MinInsyncReplicas: 1, Retention: 24 * time.Hour})
	require.NoError(t, err)
	return n
}

// readAll fetches from an offset until Next reaches the end.
func readAll(t testing.TB, c *Client, topicName string, partition int, from, end int64) []Record {
	t.Helper()
	ctx := testContext(t)
	f := c.NewFetcher(topicName, partition, from, FetchOptions{})
	defer f.Close()
	var all []Record
	for next := from; next < end; {
		b, err := f.Fetch(ctx, 200*time.Millisecond)
		require.NoError(t, err)
		require.GreaterOrEqual(t, b.Next, next)
		require.GreaterOrEqual(t, b.HighWatermark, b.Next)
		for _, r := range b.Records {
			require.GreaterOrEqual(t, r.Offset, next)
			require.Less(t, r.Offset, b.Next)
			require.Equal(t, topicName, r.Topic)
			require.Equal(t, partition, r.Partition)
		}
		all = append(all, Clone(b.Records)...)
		next = b.Next
	}
	return all
}

func end(t testing.TB, c *Client, topicName string) int64 {
	t.Helper()
	ends, err := c.EndOffsets(testContext(t), topicName)
	require.NoError(t, err)
	return ends[0]
}

func values(recs []Record) []string {
	out := make([]string, len(recs))
	for i, r := range recs {
		out[i] = string(r.Value)
	}
	return out
}

func text(prefix string, n int) []Record {
	recs := make([]Record, n)
	for i := range recs {
		recs[i] = Record{Key: []byte(prefix), Value: fmt.Appendf(nil, "%s-%d", prefix, i)}
	}
	return recs
}

func filler(n int) []byte { return []byte(strings.Repeat("weft", n/4+1)[:n]) }

// incompressible returns bytes that LZ4 cannot shrink, always the same.
func incompressible(n int) []byte {
	b := make([]byte, n)
	rng := rand.NewChaCha8([32]byte{1})
	_, _ = rng.Read(b) // never fails
	return b
}
