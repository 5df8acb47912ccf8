//go:build integration

package embedded

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
)

func query(ctx context.Context, address, user, sql string) (string, error) {
	target := "http://" + address + "/?" + url.Values{"user": {user}}.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target, strings.NewReader(sql))
	if err != nil {
		return "", err
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close() //nolint:errcheck // read to its end
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = errors.New(string(text))
	}
	return strings.TrimSpace(string(text)), err
}

func ask(t *testing.T, p *Parts, sql string) string {
	t.Helper()
	text, err := query(t.Context(), p.ClickHouseHTTPAddr, "default", sql)
	require.NoError(t, err, sql)
	return text
}

func TestStateSurvivesARestart(t *testing.T) {
	opt := testOptions(t, filepath.Join(t.TempDir(), "data"))
	opt.Kafka, opt.Redis, opt.ClickHouse, opt.NeedRedis = true, true, true, true
	p, err := Start(t.Context(), opt)
	require.NoError(t, err)
	require.True(t, p.Durable)

	ask(t, p, "CREATE DATABASE weft")
	ask(t, p, "CREATE TABLE weft.t (a UInt64) ENGINE = MergeTree ORDER BY a")
	ask(t, p, "INSERT INTO weft.t SELECT number FROM numbers(1000)")
	answer, err := exchange(t.Context(), p.RedisAddr, "SET a b\r\n")
	require.NoError(t, err)
	require.Equal(t, "+OK\r\n", answer)
	answer, err = exchange(t.Context(), p.RedisAddr, "CONFIG GET appendfsync\r\n")
	require.NoError(t, err)
	require.Equal(t, "*2\r\n", answer)
	kafkaWrite(t, p.KafkaAddr, "t", "v")
	before := p
	require.NoError(t, p.Close(t.Context()))
	require.NoError(t, p.Close(t.Context()), "closing again")
	requireGone(t, before.RedisAddr, before.ClickHouseAddr, before.ClickHouseHTTPAddr, before.KafkaAddr)

	p = start(t, opt)
	require.Equal(t, []string{before.KafkaAddr, before.RedisAddr, before.ClickHouseAddr, before.ClickHouseHTTPAddr},
		[]string{p.KafkaAddr, p.RedisAddr, p.ClickHouseAddr, p.ClickHouseHTTPAddr}, "addresses stay")
	require.Equal(t, "1000", ask(t, p, "SELECT count() FROM weft.t"))
	answer, err = exchange(t.Context(), p.RedisAddr, "EXISTS a\r\n")
	require.NoError(t, err)
	require.Equal(t, ":1\r\n", answer)
	require.Equal(t, "v", kafkaRead(t, p.KafkaAddr, "t"))
}

func kafkaRead(t *testing.T, address, topic string) string {
	t.Helper()
	cl := kafkaClient(t, address, kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	fetches := cl.PollRecords(ctx, 1)
	require.NoError(t, fetches.Err())
	return string(fetches.Records()[0].Value)
}

func requireGone(t *testing.T, addresses ...string) {
	t.Helper()
	for _, a := range addresses {
		require.Eventually(t, func() bool { return dials(t.Context(), a) != nil }, soon, 10*time.Millisecond, a)
	}
}

func TestClickHouseOutlivesWrongLogInsAndGarbage(t *testing.T) {
	opt := testOptions(t, t.TempDir())
	opt.ClickHouse = true
	opt.ClickHouseUsers = map[string][]byte{"reader.xml": []byte(`<clickhouse><users><reader><password></password>
		<networks><ip>127.0.0.1</ip></networks><profile>readonly</profile><quota>default</quota>
		<grants><query>GRANT SELECT ON system.one</query></grants></reader></users></clickhouse>`)}
	p := start(t, opt)
	_, err := query(t.Context(), p.ClickHouseHTTPAddr, "nobody", "SELECT 1")
	require.ErrorContains(t, err, "Authentication failed")
	_, _ = exchange(t.Context(), p.ClickHouseAddr, "garbage on the native port\r\n\r\n")
	_, _ = exchange(t.Context(), p.ClickHouseHTTPAddr, "garbage\x00\r\n\r\n")
	require.Equal(t, "0", ask(t, p, "SELECT dummy FROM system.one"))
	_, err = query(t.Context(), p.ClickHouseHTTPAddr, "reader", "SELECT * FROM system.one")
	require.NoError(t, err)
	_, err = query(t.Context(), p.ClickHouseHTTPAddr, "reader", "CREATE TABLE default.x (a UInt8) ENGINE = Memory")
	require.Error(t, err)
}

func TestAPartsEndIsReported(t *testing.T) {
	opt := testOptions(t, t.TempDir())
	opt.Redis, opt.NeedRedis = true, true
	p := start(t, opt)
	_, err := exchange(t.Context(), p.RedisAddr, "SHUTDOWN NOSAVE\r\n")
	require.ErrorIs(t, err, io.EOF)
	err = p.Run(t.Context())
	require.ErrorContains(t, err, "redis-server ended by itself: exit status 0; the end of ")
	require.ErrorContains(t, err, "ready to exit, bye bye")
}

func TestATakenPortIsNotFatal(t *testing.T) {
	opt := testOptions(t, t.TempDir())
	opt.Redis, opt.NeedRedis = true, true
	p, err := Start(t.Context(), opt)
	require.NoError(t, err)
	first := p.RedisAddr
	require.NoError(t, p.Close(t.Context()))

	other := testOptions(t, t.TempDir())
	other.Redis, other.NeedRedis = true, true
	port := strings.TrimPrefix(first, "127.0.0.1:")
	require.NoError(t, os.WriteFile(filepath.Join(other.DataDir, "ports.json"), []byte(`{"redis":`+port+`}`), 0o600))
	require.Equal(t, first, start(t, other).RedisAddr)
	require.NotEqual(t, first, start(t, opt).RedisAddr)
}

func TestApacheKafka(t *testing.T) {
	if _, err := exec.LookPath("java"); err != nil {
		t.Fatal("Java is needed: ", err)
	}
	out, err := exec.Command("../../scripts/fetch-kafka").CombinedOutput()
	require.NoError(t, err, string(out))
	opt := testOptions(t, t.TempDir())
	opt.Kafka, opt.RealKafka = true, true
	p, err := Start(t.Context(), opt)
	require.NoError(t, err)
	kafkaWrite(t, p.KafkaAddr, "t", "v")
	require.NoError(t, p.Close(t.Context()))
	p = start(t, opt)
	require.Equal(t, "v", kafkaRead(t, p.KafkaAddr, "t"))
}
