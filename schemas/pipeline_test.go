package schemas_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/emersion/go-smtp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
	"go.uber.org/zap"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/identity"
	"github.com/weft-cdp/weft/pkg/journey"
	"github.com/weft-cdp/weft/pkg/store"
	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
	"github.com/weft-cdp/weft/schemas"
	"github.com/weft-cdp/weft/services/activator"
	"github.com/weft-cdp/weft/services/collector"
	stitcher "github.com/weft-cdp/weft/services/identity-stitcher"
	builder "github.com/weft-cdp/weft/services/profile-builder"
)

const (
	patience = 2 * time.Minute
	look     = 20 * time.Millisecond
	writeKey = "key"
	till     = "till.sales"
)

const webhookJourney = `name: cart-webhook
arms: cart
delay: 2s
channel: webhook
purpose: marketing
`

// A pipeline is the services in this process, over a Kafka and a Redis in this process.
type pipeline struct {
	t      *testing.T
	set    topic.Set
	stream *stream.Client
	door   string
	posted chan []byte // what the webhook got
}

// mailServer takes every mail and keeps none.
func mailServer(t *testing.T) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return mailSession{}, nil }))
	var serving sync.WaitGroup
	serving.Go(func() { _ = s.Serve(l) }) // it ends with the listener
	t.Cleanup(func() {
		_ = s.Close() // the listener is gone either way
		serving.Wait()
	})
	return l.Addr().String()
}

type mailSession struct{}

func (mailSession) Mail(string, *smtp.MailOptions) error { return nil }
func (mailSession) Rcpt(string, *smtp.RcptOptions) error { return nil }
func (mailSession) Reset()                               {}
func (mailSession) Logout() error                        { return nil }

func (mailSession) Data(r io.Reader) error {
	_, err := io.Copy(io.Discard, r)
	return err
}

type service interface {
	Run(ctx context.Context) error
	Ready() error
}

func newPipeline(t *testing.T) *pipeline {
	t.Helper()
	k, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, till),
		kfake.BrokerConfigs(map[string]string{"group.initial.rebalance.delay.ms": "0"}))
	require.NoError(t, err)
	t.Cleanup(k.Close)
	p := &pipeline{t: t, posted: make(chan []byte, 100)}
	hook := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if b, err := io.ReadAll(r.Body); err == nil {
			p.posted <- b
		}
	}))
	t.Cleanup(hook.Close)
	cfg := settings(t, k.ListenAddrs(), miniredis.RunT(t).Addr(), hook.URL, mailServer(t))
	p.set = cfg.Topics.Set()
	log := zap.NewNop()
	p.stream, err = stream.New(cfg.Kafka, log)
	require.NoError(t, err)
	t.Cleanup(p.stream.Close)
	st, err := store.New(cfg.Redis, log)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, st.Close()) })
	require.NoError(t, p.stream.EnsureTopics(p.context(), p.set.Specs(), cfg.Topics))

	c, err := collector.New(cfg, collector.Deps{Stream: p.stream, Log: log, Metrics: prometheus.NewRegistry(), Now: time.Now})
	require.NoError(t, err)
	require.NoError(t, c.Listen())
	p.door = "http://" + c.Addr()
	s, err := stitcher.New(cfg, stitcher.Deps{Stream: p.stream, Store: st, Log: log})
	require.NoError(t, err)
	b, err := builder.New(cfg, builder.Deps{Stream: p.stream, Store: st, Log: log})
	require.NoError(t, err)
	a, err := activator.New(cfg, activator.Deps{Stream: p.stream, Store: st, Log: log})
	require.NoError(t, err)
	p.start(c, s, b, a)
	return p
}

func settings(t *testing.T, kafka []string, redis, hook, mail string) config.Config {
	t.Helper()
	dir := t.TempDir()
	cfg := config.Defaults()
	cfg.Kafka.Brokers = kafka
	cfg.Kafka.SessionTimeout, cfg.Kafka.RebalanceTime = time.Minute, time.Minute // no test is about losing a session
	cfg.Redis = config.Redis{Addresses: []string{redis}, AllowNonDurable: true}
	cfg.Topics.Prefix, cfg.Topics.Partitions = "s.", 2
	cfg.Identity.KeyFile, cfg.Collector.UnsubscribeSecret = filepath.Join(dir, "identity.key"), filepath.Join(dir, "unsubscribe.key")
	cfg.Collector.Listen, cfg.Builder.Listen = "127.0.0.1:0", "127.0.0.1:0"
	cfg.Collector.ProduceTimeout = patience
	cfg.Collector.Sources = []config.Source{{Name: "web", WriteKey: writeKey, Brand: "main"}}
	cfg.Collector.Inlets = []config.Inlet{{Name: "till", Topic: till, Brand: "main", Trusted: true, Mapping: map[string]string{
		"event": "'Order Completed'", "userId": "$.customer", "properties.order_id": "$.id", "properties.total": "$.total",
	}}}
	cfg.Builder.BrandTraits = []string{"tier"}
	cfg.Activator.Journeys, cfg.Activator.FencePoll = filepath.Join(dir, "journeys"), 5*time.Millisecond
	require.NoError(t, os.Mkdir(cfg.Activator.Journeys, 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(cfg.Activator.Journeys, "webhook.yaml"), []byte(webhookJourney), 0o600))
	shipped, err := os.ReadFile("journeys/abandoned-cart.yaml")
	require.NoError(t, err)
	hurried := strings.Replace(string(shipped), "delay: 1h", "delay: 2s", 1)
	require.NotEqual(t, string(shipped), hurried)
	require.NoError(t, os.WriteFile(filepath.Join(cfg.Activator.Journeys, "mail.yaml"), []byte(hurried), 0o600))
	secret := filepath.Join(dir, "secret")
	require.NoError(t, os.WriteFile(secret, []byte("a secret of enough length"), 0o600))
	cfg.Activator.Webhook = config.Webhook{URL: hook, SecretFile: secret, Timeout: patience, AllowPrivate: true}
	cfg.Activator.SMTP = config.SMTP{Address: mail, TLS: "none", HELO: "localhost", Timeout: patience}
	return cfg
}

func (p *pipeline) start(services ...service) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for _, s := range services {
		wg.Go(func() {
			if err := s.Run(ctx); err != nil {
				p.t.Errorf("%T: %v", s, err)
			}
		})
	}
	p.t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	for _, s := range services {
		require.Eventually(p.t, func() bool { return s.Ready() == nil }, patience, look)
	}
}

func (p *pipeline) context() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	p.t.Cleanup(cancel)
	return ctx
}

func (p *pipeline) post(path, body string) int {
	p.t.Helper()
	r, err := http.NewRequestWithContext(p.context(), http.MethodPost, p.door+path, strings.NewReader(body))
	require.NoError(p.t, err)
	r.SetBasicAuth(writeKey, "")
	answer, err := http.DefaultClient.Do(r)
	require.NoError(p.t, err)
	require.NoError(p.t, answer.Body.Close())
	return answer.StatusCode
}

func (p *pipeline) produce(topicName string, n int, r stream.Record) {
	p.t.Helper()
	require.NoError(p.t, p.stream.Produce(p.context(), topicName, n, []stream.Record{r}))
}

// records is everything in Weft's topics.
func (p *pipeline) records(ctx context.Context) iter.Seq2[schemas.Record, error] {
	return func(yield func(schemas.Record, error) bool) {
		for _, spec := range p.set.Specs() {
			ends, err := p.stream.EndOffsets(ctx, spec.Name)
			if err != nil {
				yield(schemas.Record{}, err)
				return
			}
			for partition, end := range ends {
				if !p.partition(ctx, spec.Name, partition, end, yield) {
					return
				}
			}
		}
	}
}

func (p *pipeline) partition(ctx context.Context, name string, partition int, end int64, yield func(schemas.Record, error) bool) bool {
	f := p.stream.NewFetcher(name, partition, 0, stream.FetchOptions{})
	defer f.Close()
	for next := int64(0); next < end; {
		b, err := f.Fetch(ctx, time.Second)
		if err != nil {
			yield(schemas.Record{}, err)
			return false
		}
		for _, r := range stream.Clone(b.Records) {
			out := schemas.Record{Topic: strings.TrimPrefix(name, p.set.Prefix), Key: r.Key, Value: r.Value, Headers: headers(r.Headers...),
				Place: fmt.Sprintf("%d:%d", r.Partition, r.Offset)}
			if !yield(out, nil) {
				return false
			}
		}
		next = b.Next
	}
	return true
}

// receipts is how many carts ended for which reason.
func (p *pipeline) receipts() map[string]int {
	reasons := map[string]int{}
	for r, err := range p.records(p.context()) {
		require.NoError(p.t, err)
		var receipt journey.Receipt
		if r.Topic == strings.TrimPrefix(p.set.ActivationsSettled(), p.set.Prefix) && json.Unmarshal(r.Value, &receipt) == nil {
			reasons[receipt.Journey+" "+receipt.Reason]++
		}
	}
	return reasons
}

// What the services really publish, all of them and on every topic, is what the schemas promise.
func TestWhatTheServicesPublishFits(t *testing.T) {
	p := newPipeline(t)
	added := func(who, cart string) string {
		return fmt.Sprintf(`{"type":"track","event":"Product Added","anonymousId":%q,"properties":{"cart_id":%q,"product_id":"tea","name":"Tea","price":12.9,"currency":"EUR"}}`, who, cart)
	}
	identify := func(who, user string) string {
		return fmt.Sprintf(`{"anonymousId":%q,"userId":%q,"traits":{"email":"%s@example.com","tier":"gold","consent":{"email":{"marketing":true},"webhook":{"marketing":true}}}}`, who, user, user)
	}
	page := `{"type":"page","anonymousId":%q,"name":"Home"}`
	require.Equal(t, 200, p.post("/v1/batch", fmt.Sprintf(`{"context":{"ip":"1.2.3.4"},"batch":[`+page+`,`+page+`]}`, "a1", "a2")))
	for _, body := range []string{identify("a1", "ada"), identify("a2", "ada"), identify("b1", "bob")} {
		require.Equal(t, 200, p.post("/v1/identify", body)) // a1 and a2 turn out to be one person
	}
	require.Equal(t, 200, p.post("/v1/batch", `{"batch":[`+added("a1", "c1")+`,`+added("b1", "c2")+`]}`))
	p.produce(till, 0, stream.Record{Value: []byte(`{"customer":"bob","id":"o1","total":12.90}`)})
	p.produce(p.set.EventsInbox(), 1, stream.Record{Value: []byte(`{"event":"Tea Drunk","userId":"ada"}`)})
	p.produce(p.set.EventsInbox(), 0, stream.Record{Value: []byte(`no event`)})
	p.produce(p.set.EventsInbox(), 0, stream.Record{Value: []byte(`{"event":"Old","userId":"ada","timestamp":"1997-01-01"}`),
		Headers: []topic.Header{{Key: topic.HeaderReceivedAt, Value: []byte("soon")}}})
	p.produce(p.set.EventsCollected(), 0, stream.Record{Key: []byte("k"), Value: []byte(`{}`), Headers: []topic.Header{{Key: topic.HeaderKind, Value: []byte("stranger")}}})
	said := identity.Command{ID: "c1", Kind: identity.CommandUnblock, Actor: "ada", Reason: "it was hers", At: time.Now().UTC(),
		Identifiers: []identity.Evidence{{Type: "email", Value: "x@example.com", Node: ada}}}
	command, err := said.Encode()
	require.NoError(t, err)
	p.produce(p.set.IdentitiesCommands(), topic.Partition([]byte(identity.CommandsKey), p.set.Partitions), stream.Record{
		Key: []byte(identity.CommandsKey), Value: command, Headers: []topic.Header{{Key: topic.HeaderSchema, Value: []byte("1")}}})
	for range 2 {
		require.Equal(t, 200, p.post("/v1/track", `{"messageId":"twice","event":"Clicked","userId":"ada","sentAt":"2026-01-01T00:00:00Z"}`))
	}
	require.Equal(t, 200, p.post("/v1/alias", `{"userId":"ada","previousId":"ada-old"}`))
	require.Equal(t, 200, p.post("/v1/group", `{"userId":"ada","groupId":"g1","traits":{"name":"G"}}`))
	require.Equal(t, 200, p.post("/v1/track", `{"event":"nobody did this"}`))
	require.Equal(t, 400, p.post("/v1/track", `{`))
	require.Equal(t, 200, p.post("/v1/track", `{"event":"Cart Cleared","userId":"eve","properties":{"cart_id":"c3"}}`))

	require.Eventually(t, func() bool {
		got := p.receipts()
		return got["cart-webhook sent"] > 0 && got["abandoned-cart sent"] > 0
	}, patience, look)
	s := newSet(t)
	r := schemas.Record{Topic: "activations.requested", Key: []byte(ada), Headers: headers(schemaHeader, positionHeader), Value: <-p.posted}
	require.NoError(t, s.Check(r), "a webhook gets the record's value")

	var fit map[string]int
	require.Eventually(t, func() bool {
		records := func(yield func(schemas.Record, error) bool) {
			for r, err := range p.records(p.context()) {
				foreign := r.Topic == "events.inbox" || bytes.Equal(r.Key, []byte("k")) && r.Topic == "events.collected" // what we put in ourselves
				if !foreign && !yield(r, err) {
					return
				}
			}
		}
		var err error
		fit, err = s.CheckAll(records)
		require.NoError(t, err)
		return len(fit) == len(s.Topics())-1 && fit["activations.requested"] >= 2 && fit["events.rejected"] >= 6
	}, patience, look, "every topic of ours has records")
	t.Log(fit)
}
