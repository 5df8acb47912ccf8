package activator

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest"

	"github.com/weft-cdp/weft/pkg/journey"
	"github.com/weft-cdp/weft/pkg/keyed"
	"github.com/weft-cdp/weft/pkg/topic"
)

// rebuildDelivery rebuilds the deliver stage.
func (e *env) rebuildDelivery() {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), waitAtMost)
	defer cancel()
	sc, st := e.connect()
	ends, err := sc.EndOffsets(ctx, e.topics.ActivationsRequested())
	require.NoError(e.t, err)
	_, err = RebuildDelivery(ctx, e.cfg, Deps{Stream: sc, Store: st, Log: zaptest.NewLogger(e.t, zaptest.Level(zapcore.FatalLevel)), Now: e.now},
		keyed.RebuildOptions{Past: &keyed.LogPast{Stream: sc, End: sc.EndOffsets}, From: e.topics, Ends: ends})
	require.NoError(e.t, err)
}

// mailsTo is how many mails each of these people got.
func (e *env) mailsTo(people []string) map[string]int {
	each := map[string]int{}
	for _, m := range e.mail.mails() {
		for _, p := range people {
			if bytes.Contains(m, []byte("<"+p+"@example.com>")) || bytes.Contains(m, []byte("To: "+p+"@example.com")) {
				each[p]++
			}
		}
	}
	return each
}

// people are n names of each partition.
func (e *env) people(prefix string, n int) (names []string) {
	left := map[int]int{}
	for i := 0; len(names) < n*testPartitions; i++ {
		name := fmt.Sprint(prefix, i)
		if p := topic.Partition([]byte(name), testPartitions); left[p] < n {
			left[p]++
			names = append(names, name)
		}
	}
	return names
}

// abandon has people leave a cart each, until their messages are decided.
func (e *env) abandon(people []string) {
	e.t.Helper()
	before := len(e.read(e.topics.ActivationsRequested()))
	for _, p := range people {
		e.reachable(p)
		e.shops(p, "c-"+p)
	}
	e.decided()
	e.pass(time.Hour + time.Minute)
	require.Eventually(e.t, func() bool { return len(e.read(e.topics.ActivationsRequested())) == before+len(people) }, waitAtMost, look)
}

// TestRebuildOfDelivery loses what the deliver stage knew while a batch of it is sent and not told: what has its
// receipt stays as it is, the batch ends as unknown, what is behind it goes out, and nobody gets two mails.
func TestRebuildOfDelivery(t *testing.T) {
	e := newEnv(t)
	const batch = 2
	e.cfg.Activator.BatchRecords = batch
	_, stop := e.start()
	done := e.people("done", 2)
	e.abandon(done)
	before := e.receipts(len(done))

	heal := e.cut(e.topics.ActivationsSettled())
	rest := e.people("rest", batch+2)
	e.abandon(rest)
	require.Eventually(t, func() bool { // each partition has sent a batch, and can not say so
		for p := range testPartitions {
			if told, err := e.redis.List(keyed.SlotTag(e.topics, topic.StageDeliver, p) + "outbox"); err != nil || len(told) == 0 {
				return false
			}
		}
		return true
	}, waitAtMost, look)
	stop()
	heal()
	sent := e.mailsTo(rest)
	require.NotEmpty(t, sent)
	require.Len(t, e.receipts(len(done)), len(done), "none of the rest has its receipt")
	lost := 0
	for _, k := range e.redis.Keys() {
		if strings.HasPrefix(k, "{"+e.topics.Prefix+topic.StageDeliver+":") {
			e.redis.Del(k)
			lost++
		}
	}
	require.NotZero(t, lost)

	e.rebuildDelivery()
	_, stop = e.start()
	after := e.receipts(len(done) + len(rest))
	stop()
	for id, r := range before {
		require.Equal(t, r, after[id])
	}
	mails := e.mailsTo(append(done, rest...))
	unknown := map[int]int{}
	for _, r := range after {
		require.LessOrEqual(t, mails[r.Profile], 1, r.Profile)
		if how(r) == journey.Unknown+"/"+journey.ReasonCrash {
			unknown[topic.Partition([]byte(r.Profile), testPartitions)]++
			require.Equal(t, sent[r.Profile], mails[r.Profile], "not sent after the loss")
			continue
		}
		require.Equal(t, journey.Delivered+"/"+journey.ReasonSent, how(r))
		require.Equal(t, 1, mails[r.Profile], r.Profile)
		require.Zero(t, sent[r.Profile], "%s was sent before the loss, so it can not be told", r.Profile)
	}
	for p := range testPartitions {
		require.Equal(t, batch, unknown[p], "as many as may have been under way in partition %d", p)
	}
}

// cut has Kafka cut the connection of whoever writes to a topic, until heal.
func (e *env) cut(topicName string) (heal func()) {
	e.silent.Store(true)
	e.kafka.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
		e.kafka.KeepControl()
		for _, to := range req.(*kmsg.ProduceRequest).Topics {
			if to.Topic == topicName && e.silent.Load() {
				return nil, errors.New("cut off"), true
			}
		}
		return nil, nil, false
	})
	return func() { e.silent.Store(false) }
}
