package main

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
	"go.uber.org/zap"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/event"
	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
)

// toolPatience is how long a test of a tool waits for a condition.
const toolPatience = 2 * time.Minute

// topics is a Kafka in the process with Weft's topics, for tools that look at them.
type topics struct {
	t       *testing.T
	set     topic.Set
	client  *stream.Client
	environ string // for the command line
}

func newTopics(t *testing.T) *topics {
	set := config.Defaults().Topics.Set()
	var names []string
	for _, s := range set.Specs() {
		names = append(names, s.Name)
	}
	k, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(int32(set.Partitions), names...)) //nolint:gosec // twelve
	require.NoError(t, err)
	t.Cleanup(k.Close)
	c, err := stream.New(config.Kafka{Brokers: k.ListenAddrs(), ClientID: "test"}, zap.NewNop())
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return &topics{t: t, set: set, client: c, environ: "WEFT_KAFKA_BROKERS=" + k.ListenAddrs()[0]}
}

func (k *topics) context() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), toolPatience)
	k.t.Cleanup(cancel)
	return ctx
}

// put writes a record to the partition of its key.
func (k *topics) put(name, key string, value string, headers ...topic.Header) {
	k.t.Helper()
	p := topic.Partition([]byte(key), k.set.Partitions)
	require.NoError(k.t, k.client.Produce(k.context(), name, p, []stream.Record{{Key: []byte(key), Value: []byte(value), Headers: headers}}))
}

func (k *topics) collected(source, user, name string) {
	k.t.Helper()
	m := event.Meta{Source: source, MessageID: "m-" + user, ReceivedAt: time.Now()}
	k.put(k.set.EventsCollected(), user, fmt.Sprintf(`{"type":"track","event":%q,"userId":%q,"properties":{"n":1}}`, name, user), topic.MetaHeaders(m)...)
}

func (k *topics) weft(commandLine string) (code int, stdout, stderr string) {
	k.t.Helper()
	return weft(k.t, commandLine, k.environ)
}

func TestTailShowsWhatWasThere(t *testing.T) {
	k := newTopics(t)
	for i := range 20 {
		k.collected("web", fmt.Sprintf("u-%d", i), "A")
	}
	k.collected("app", "u-1", "B")
	code, stdout, stderr := k.weft("tail --since 1h --no-follow --source web")
	require.Zero(t, code, stderr)
	require.Equal(t, 20, strings.Count(stdout, "\n"))
	require.NotContains(t, stdout, "\x1b", "no terminal, no colour")
	_, stdout, _ = k.weft("tail --since 1h --no-follow --person u-1 --json")
	require.Equal(t, 2, strings.Count(stdout, `"topic":"weft.events.collected"`))
	_, stdout, _ = k.weft("tail --since 1h --count 3")
	require.Equal(t, 3, strings.Count(stdout, "\n"))
	_, stdout, _ = k.weft("tail --since 1h --no-follow --identified")
	require.Empty(t, stdout)
	for line, want := range map[string]string{
		"tail --type trak":   `--type: want track, identify, page, screen, group or alias, found "trak"`,
		"tail --no-follow":   "--no-follow: give --since, too",
		"tail --since never": "--since: want a time",
	} {
		code, _, stderr = k.weft(line)
		require.Equal(t, exitUsage, code)
		require.Contains(t, stderr, want)
	}
}

// Without --since it shows what comes from now on, and nothing of before.
func TestTailFollows(t *testing.T) {
	k := newTopics(t)
	k.collected("web", "u-0", "Before")
	done := make(chan string, 1)
	go func() {
		var out, errs bytes.Buffer
		run(k.context(), []string{"tail", "--count", "2"}, []string{k.environ}, &out, &errs)
		done <- out.String() + errs.String()
	}()
	ctx := k.context()
	for i := 1; ; i++ { // nobody says from when on it looks, so events keep coming
		k.collected("web", fmt.Sprintf("u-%d", i), "After")
		select {
		case out := <-done:
			require.Equal(t, 2, strings.Count(out, " After "), out)
			require.NotContains(t, out, "Before")
			return
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			t.Fatal("tail has shown nothing")
		}
	}
}
