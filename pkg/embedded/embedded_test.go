package embedded

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"
)

func TestMain(m *testing.M) {
	if code, ok := Child(os.Args[1:]); ok {
		os.Exit(code)
	}
	if dir := os.Getenv(envKilled); dir != "" {
		runKilled(dir)
	}
	goleak.VerifyTestMain(m)
}

// soon bounds what must happen; nothing waits for it to pass.
const soon = 60 * time.Second

// envKilled makes the test binary a process with parts that waits to be killed.
const envKilled = "WEFT_TEST_EMBEDDED_KILLED"

// runKilled starts parts in dir, prints their addresses, and waits for ever.
func runKilled(dir string) {
	p, err := Start(context.Background(), Options{DataDir: dir, Log: zap.NewNop(), Kafka: true, Redis: true, ClickHouse: true, NeedRedis: true})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	_ = json.NewEncoder(os.Stdout).Encode(p)
	select {}
}

func testOptions(t *testing.T, dir string) Options {
	t.Helper()
	return Options{DataDir: dir, Log: zaptest.NewLogger(t)}
}

func start(t *testing.T, opt Options) *Parts {
	t.Helper()
	p, err := Start(t.Context(), opt)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, p.Close(context.WithoutCancel(t.Context()))) })
	return p
}

// query asks ClickHouse over HTTP.
func kafkaClient(t *testing.T, address string, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(append(opts, kgo.SeedBrokers(address), kgo.AllowAutoTopicCreation())...)
	require.NoError(t, err)
	t.Cleanup(cl.Close)
	return cl
}

func kafkaWrite(t *testing.T, address, topic, value string) {
	t.Helper()
	cl := kafkaClient(t, address)
	req := newCreateTopic(topic)
	_, err := req.RequestWith(t.Context(), cl)
	require.NoError(t, err)
	require.NoError(t, cl.ProduceSync(t.Context(), &kgo.Record{Topic: topic, Value: []byte(value)}).FirstErr())
}

func newCreateTopic(name string) *kmsg.CreateTopicsRequest {
	req := kmsg.NewPtrCreateTopicsRequest()
	t := kmsg.NewCreateTopicsRequestTopic()
	t.Topic, t.NumPartitions, t.ReplicationFactor = name, 1, 1
	req.Topics = append(req.Topics, t)
	return req
}

func TestADataDirectoryIsForOneProcess(t *testing.T) {
	dir := t.TempDir()
	start(t, testOptions(t, dir))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := Start(ctx, testOptions(t, dir))
	require.ErrorContains(t, err, "in use by another process")
}

func TestAMissingLibraryIsAClearError(t *testing.T) {
	opt := testOptions(t, t.TempDir())
	opt.ClickHouse, opt.Redis = true, true
	t.Setenv("WEFT_LIBCHDB", filepath.Join(t.TempDir(), "libchdb.so"))
	_, err := Start(t.Context(), opt)
	require.ErrorContains(t, err, "run 'make deps'")
}

func TestWithoutRedisEverythingStartsEmpty(t *testing.T) {
	opt := testOptions(t, t.TempDir())
	opt.Kafka, opt.Redis = true, true
	t.Setenv("PATH", t.TempDir())
	for range 2 {
		p, err := Start(t.Context(), opt)
		require.NoError(t, err)
		require.False(t, p.Durable)
		require.NoError(t, pingRedis(t.Context(), p.RedisAddr))
		kafkaWrite(t, p.KafkaAddr, "t", "v") // the topic must not be there the second time
		require.NoError(t, p.Close(t.Context()))
	}
	opt.NeedRedis = true
	_, err := Start(t.Context(), opt)
	require.ErrorContains(t, err, "apt-get install redis-server")
}

func TestVersionsAreThoseOfTheScripts(t *testing.T) {
	for script, version := range map[string]string{"fetch-clickhouse": ClickHouseVersion, "fetch-kafka": KafkaVersion} {
		text, err := os.ReadFile(filepath.Join("../../scripts", script))
		require.NoError(t, err)
		require.Contains(t, string(text), fmt.Sprintf("\nversion=%s ", version))
	}
}
