package collector

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/event"
	"github.com/weft-cdp/weft/pkg/spool/registry"
	"github.com/weft-cdp/weft/pkg/store"
	"github.com/weft-cdp/weft/pkg/topic"
)

// newSpoolingBroker has a Redis, so that collectors have a spool. Kafka is given 50 ms.
func newSpoolingBroker(t testing.TB) (*broker, *miniredis.Miniredis, *registry.Registry) {
	b := newBroker(t)
	r := miniredis.RunT(t)
	st, err := store.New(config.Redis{Addresses: []string{r.Addr()}, AllowNonDurable: true}, zap.NewNop())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, st.Close()) })
	b.store = st
	b.cfg.Collector.SpoolDir, b.cfg.Collector.SpoolAfter = t.TempDir(), 50*time.Millisecond
	return b, r, registry.New(st, b.cfg.Topics.Set())
}

// silence makes Kafka refuse to write, until the fault is removed.
func (b *broker) silence() *kfake.FaultHandle {
	return b.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.NotEnoughReplicas, Count: -1})
}

func (b *broker) registered(reg *registry.Registry) []registry.Entry {
	entries, err := reg.List(b.context())
	require.NoError(b.t, err)
	return entries
}

func (b *broker) drained(s *running, reg *registry.Registry) {
	b.t.Helper()
	require.Eventually(b.t, func() bool { return s.spool.Behind() == 0 && len(b.registered(reg)) == 0 }, 2*patience, 10*time.Millisecond)
}

// While Kafka does not write, requests are acknowledged from the disk, valid and rejected events alike; the fence is told
// first. What comes later is in Kafka in the order of each sender, also across a restart.
func TestKafkaAwayIsNotNoticedBySenders(t *testing.T) {
	b, _, reg := newSpoolingBroker(t)
	s := b.ready()
	url := "http://" + s.Addr() + "/v1/batch"
	send := func(round int) {
		var senders sync.WaitGroup
		for sender := range 5 {
			senders.Go(func() {
				body := fmt.Sprintf(`{"batch":[{"type":"track","event":"E","userId":"u%d","messageId":"m-%d-%d"},{"type":"nonsense","userId":"u%d"}]}`, sender, sender, round, sender)
				if status, _, text, err := tryPost(url, basic("wk_demo"), body); err != nil || status != 200 {
					t.Error(status, text, err)
				}
			})
		}
		senders.Wait()
	}
	send(0)
	b.drained(s, reg) // at once, unless the machine is slow
	away := b.silence()
	for round := 1; round < 5; round++ {
		send(round)
	}
	require.Len(t, b.registered(reg), 1)
	require.Equal(t, 2*5*4, s.spool.Behind())
	require.NoError(t, s.stop())

	s = b.start() // Kafka is still away
	url = "http://" + s.Addr() + "/v1/batch"
	require.Equal(t, 2*5*4, s.spool.Behind())
	send(5)
	away.Remove()
	b.drained(s, reg)
	send(6)
	require.NoError(t, s.stop())
	order := map[string][]string{}
	for _, r := range flat(b.read(b.cfg.Topics.Set().EventsCollected())) {
		e, err := event.Decode(r.Value, event.Meta{})
		require.NoError(t, err)
		if ids := order[e.UserID]; len(ids) == 0 || ids[len(ids)-1] != e.MessageID { // a written one whose answer was an error comes again
			order[e.UserID] = append(ids, e.MessageID)
		}
	}
	for sender := range 5 {
		var want []string
		for round := range 7 {
			want = append(want, fmt.Sprintf("m-%d-%d", sender, round))
		}
		require.Equal(t, want, order[fmt.Sprint("u", sender)])
	}
	rejected := map[string]bool{}
	for _, r := range flat(b.read(b.cfg.Topics.Set().EventsRejected())) {
		rejected[header(t, r, topic.HeaderMessageID)] = true
	}
	require.Len(t, rejected, 5*7)
}

// Without Redis the fence cannot be told: nothing is spooled. With Kafka there, nobody notices that Redis is away.
func TestWithoutRedisNothingIsSpooled(t *testing.T) {
	b, r, _ := newSpoolingBroker(t)
	b.cfg.Collector.SpoolAfter = 2 * time.Second
	s := b.ready()
	url := "http://" + s.Addr() + "/v1/page"
	r.Close()
	require.Eventually(t, func() bool {
		status, _, _, err := tryPost(url, basic("wk_demo"), `{"userId":"u"}`)
		return err == nil && status == 200
	}, patience, 10*time.Millisecond)
	away := b.silence()
	status, text := post(t, url, basic("wk_demo"), `{"userId":"u"}`)
	require.Equal(t, 503, status, text)
	require.Zero(t, s.spool.Behind())
	away.Remove()
	require.Eventually(t, func() bool {
		status, _, _, err := tryPost(url, basic("wk_demo"), `{"userId":"u"}`)
		return err == nil && status == 200
	}, patience, 10*time.Millisecond)
}

// A full spool is 503 with Retry-After; what was acknowledged before is all there.
func TestFullSpoolAnswersLater(t *testing.T) {
	b, _, reg := newSpoolingBroker(t)
	b.cfg.Collector.SpoolMaxBytes = 200_000
	s := b.ready()
	away := b.silence()
	filler := strings.Repeat("x", 20_000)
	taken := 0
	for {
		status, headers, text, err := tryPost("http://"+s.Addr()+"/v1/page", basic("wk_demo"), fmt.Sprintf(`{"userId":"u","messageId":"m%d","name":"%s"}`, taken, filler))
		require.NoError(t, err)
		if status == 503 {
			require.NotEmpty(t, headers.Get("Retry-After"))
			break
		}
		require.Equal(t, 200, status, text)
		taken++
		require.Less(t, taken, 20)
	}
	require.Greater(t, taken, 5)
	away.Remove()
	b.drained(s, reg)
	ids := map[string]bool{}
	for _, r := range flat(b.read(b.cfg.Topics.Set().EventsCollected())) {
		ids[header(t, r, "weft-message-id")] = true
	}
	require.Len(t, ids, taken)
}

// A record that the broker refuses for its size when it is drained was acknowledged: its first bytes are on
// events.rejected.
func TestTooLargeForTheBrokerAfterTheSpool(t *testing.T) {
	b, _, reg := newSpoolingBroker(t)
	s := b.ready()
	away := b.silence()
	status, text := post(t, "http://"+s.Addr()+"/v1/page", basic("wk_demo"), fmt.Sprintf(`{"userId":"u","messageId":"m","name":"%s"}`, noise(200_000)))
	require.Equal(t, 200, status, text)
	limit := "100000"
	b.alter(b.cfg.Topics.Set().EventsCollected(), "max.message.bytes", &limit)
	away.Remove()
	b.drained(s, reg)
	rejected := flat(b.read(b.cfg.Topics.Set().EventsRejected()))
	require.Len(t, rejected, 1)
	require.Equal(t, reasonRefused, header(t, rejected[0], "weft-reason"))
	require.Equal(t, "m", header(t, rejected[0], "weft-message-id"))
	require.Len(t, rejected[0].Value, maxKeptBytes)
}

// tryPost is for goroutines of a test.
func tryPost(url, auth, body string) (int, http.Header, string, error) {
	req, err := http.NewRequest(http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		return 0, nil, "", err
	}
	req.Header.Set("Authorization", auth)
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
	resp, err := client.Do(req)
	if err != nil {
		return 0, nil, "", err
	}
	text, err := io.ReadAll(resp.Body)
	return resp.StatusCode, resp.Header, string(text), errors.Join(err, resp.Body.Close())
}

// noise is text that does not shrink.
func noise(n int) string {
	b := make([]byte, n/2)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(b) // never fails
	return hex.EncodeToString(b)
}
