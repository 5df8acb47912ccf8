package keyed

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
)

// limit sets the largest batch that the broker takes for a topic.
func (e *env) limit(name string, bytes int) {
	e.t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(e.kafka.ListenAddrs()...))
	require.NoError(e.t, err)
	defer cl.Close()
	req := kmsg.NewIncrementalAlterConfigsRequest()
	resource := kmsg.NewIncrementalAlterConfigsRequestResource()
	resource.ResourceType, resource.ResourceName = kmsg.ConfigResourceTypeTopic, name
	config := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
	config.Name, config.Op, config.Value = "max.message.bytes", kmsg.IncrementalAlterConfigOpSet, kmsg.StringPtr(fmt.Sprint(bytes))
	resource.Configs = append(resource.Configs, config)
	req.Resources = append(req.Resources, resource)
	resp, err := req.RequestWith(context.Background(), cl)
	require.NoError(e.t, err)
	require.NoError(e.t, kerr.ErrorForCode(resp.Resources[0].ErrorCode))
}

// noise is text that can not be compressed below half of it.
func noise(n int) string {
	b := make([]byte, n/2)
	_, _ = rand.Read(b) // crypto/rand.Read never fails
	return hex.EncodeToString(b)
}

// once reads a topic as a reader by rule 1 does, which must find no position that is not above those before it.
func (e *env) once(name string) []Record {
	e.t.Helper()
	var got []Record
	ends, err := e.stream.EndOffsets(context.Background(), name)
	require.NoError(e.t, err)
	for p, end := range ends {
		high := map[string]int64{}
		f := e.stream.NewFetcher(name, p, 0, stream.FetchOptions{})
		for next := int64(0); next < end; {
			b, err := f.Fetch(context.Background(), time.Second)
			require.NoError(e.t, err)
			next = b.Next
			for _, sr := range stream.Clone(b.Records) {
				r, err := parseRecord(sr)
				require.NoError(e.t, err)
				require.False(e.t, repeated(high, r.Position), "%s is dropped by a reader", r.Position)
				got = append(got, r)
			}
		}
		f.Close()
	}
	return got
}

// TestOutputThatKafkaRefusesIsRejectedAlone: the partition goes on, what is left of the output is on events.rejected
// once, at its place among what else is rejected there, and all others are where they belong.
func TestOutputThatKafkaRefusesIsRejectedAlone(t *testing.T) {
	e := newEnv(t)
	e.limit(e.topics.ProfilesChanged(), 4000)
	large := map[string]bool{}
	var small, boom int
	for i := range 60 { // in few batches, of one key: in one partition
		switch i % 5 {
		case 1:
			v := noise(20_000)
			large[v] = true
			e.send("a", topic.KindEvent, v)
		case 3:
			boom++
			e.send("a", topic.KindEvent, fmt.Sprint("boom", i))
		default:
			small++
			e.send("a", topic.KindEvent, fmt.Sprint("v", i))
		}
	}
	f := e.touchy(touchyFold{}, nil, e.deps())
	f.opt.MaxState = 10_000_000
	stop := run(t, f.Run)
	defer stop()
	e.settled()
	require.Eventually(t, func() bool { return f.Ready() == nil }, patience, 5*time.Millisecond)
	require.Len(t, e.once(e.topics.ProfilesChanged()), small)
	reasons := map[string]int{}
	for _, r := range e.once(e.topics.EventsRejected()) {
		reason, _ := topic.Get(r.Headers, topic.HeaderReason)
		reasons[reason]++
		origin, _ := topic.Get(r.Headers, topic.HeaderOrigin)
		require.NotEmpty(t, origin)
		if reason != ReasonOutputTooLarge {
			continue
		}
		require.Equal(t, r.Position.String(), origin)
		require.True(t, large[string(r.Value)], "within the bound it is whole")
		delete(large, string(r.Value))
		text, _ := topic.Get(r.Headers, topic.HeaderError)
		require.Contains(t, text, e.topics.ProfilesChanged())
	}
	require.Equal(t, map[string]int{ReasonOutputTooLarge: 12, ReasonFoldPanic: boom}, reasons)
	require.Empty(t, large)
	require.InDelta(t, 12, value(t, f.metrics.poison.WithLabelValues(ReasonOutputTooLarge)), 0)
}

// TestRejectedRecordThatKafkaRefusesIsShortened: twice, where its limit is very low.
func TestRejectedRecordThatKafkaRefusesIsShortened(t *testing.T) {
	e := newEnv(t)
	e.limit(e.topics.EventsRejected(), 3000)
	e.send("a", topic.KindEvent, "boom1")
	e.send("a", topic.KindEvent, "boom"+noise(20_000))
	e.send("a", topic.KindEvent, "boom"+noise(20_000))
	e.send("a", topic.KindEvent, "boom2")
	f := e.touchy(touchyFold{}, nil, e.deps())
	stop := run(t, f.Run)
	defer stop()
	e.settled()
	var got []string
	for _, r := range e.once(e.topics.EventsRejected()) {
		reason, _ := topic.Get(r.Headers, topic.HeaderReason)
		require.Equal(t, ReasonFoldPanic, reason)
		got = append(got, string(r.Value))
	}
	require.Equal(t, []string{"boom1", "", "", "boom2"}, got)
}

func TestRejectStaysBelowWhatKafkaTakes(t *testing.T) {
	r := Record{Record: stream.Record{Topic: "t", Key: []byte("k"), Value: []byte(noise(maxReject)), Headers: []topic.Header{{Key: "x", Value: []byte("y")}}}}
	o := Reject(r, topic.StageBuilder, ReasonFoldPanic, errors.New(strings.Repeat("ü", maxErrorText)+"!"), topic.Set{})
	text, _ := topic.Get(o.Headers, topic.HeaderError)
	require.Equal(t, strings.Repeat("ü", maxErrorText/2), text)
	size := len(o.Key) + len(o.Value)
	for _, h := range o.Headers {
		size += len(h.Key) + len(h.Value)
	}
	require.Equal(t, maxReject, size)
	r.Value = []byte("small")
	o = Reject(r, topic.StageBuilder, ReasonFoldPanic, errors.New(strings.Repeat("x", maxErrorText-1)+"ü"), topic.Set{})
	text, _ = topic.Get(o.Headers, topic.HeaderError)
	require.Equal(t, strings.Repeat("x", maxErrorText-1), text, "no half of a letter")
	require.Equal(t, "small", string(o.Value))
}
