package rejected_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
	"github.com/weft-cdp/weft/services/weft/rejected"
)

// deliver sends a webhook.
func (s *shop) deliver(body string, headers ...string) {
	s.t.Helper()
	h := hmac.New(sha256.New, []byte("hush"))
	_, err := h.Write([]byte(body))
	require.NoError(s.t, err)
	s.post("/v1/hooks/page", body, http.StatusOK, append(headers, "X-Sig", hex.EncodeToString(h.Sum(nil)))...)
}

// What a webhook brought is read by its provider's reader again, and is what it would have been the first time: its
// provider's repetition of it is a duplicate. What the reader had read goes back as the event it was.
func TestARejectedWebhookIsReadAgain(t *testing.T) {
	s := newShop(t)
	s.deliver(`[{"kind":"Paid","who":"u-1","total":"x"},{"kind":"Paid","who":"u-1","total":"y"},{"kind":"Paid","total":9.90}]`, "X-Id", "d-1")
	require.Len(t, s.list(rejected.Filter{}), 3)
	report, said := s.replay(rejected.Filter{}, rejected.RepairOptions{})
	require.Equal(t, rejected.Report{Faulty: 3}, report, said)
	require.Contains(t, said, "cannot add a text and a number")

	report, said = s.replay(rejected.Filter{Reasons: []string{"expression_failed"}}, rejected.RepairOptions{Set: []string{`total=12.50`}})
	require.Equal(t, rejected.Report{Sent: 2}, report, said)
	require.Contains(t, s.settled("d-1:0", 0)[0], `"properties":{"total":12.5`)
	require.Contains(t, s.settled("d-1:1", 0)[0], `"event":"Paid"`, "two of one delivery are two")
	report, said = s.replay(rejected.Filter{Reasons: []string{"no_user_anon_id"}}, rejected.RepairOptions{Set: []string{`userId="u-1"`}})
	require.Equal(t, rejected.Report{Sent: 1}, report, said)
	require.Contains(t, s.settled("d-1:2", 0)[0], `"total":9.9`)
	require.Empty(t, s.list(rejected.Filter{}), "none is rejected again")

	s.deliver(`[{"kind":"Paid","who":"u-1","total":1},{"kind":"Paid","who":"u-1","total":2},{"kind":"Paid","who":"u-1","total":9.90}]`, "X-Id", "d-1")
	for _, id := range []string{"d-1:0", "d-1:1", "d-1:2"} {
		require.Len(t, s.settled(id, 1), 1, "the provider comes too late")
	}
}

// A payload of which its reader can make nothing may be repaired into an event.
func TestARejectedWebhookMayBeRepairedIntoAnEvent(t *testing.T) {
	s := newShop(t)
	s.deliver(`{"kind":"Paid","who":"u-1","total":"x"}`, "X-Id", "d-2")
	report, said := s.replay(rejected.Filter{}, rejected.RepairOptions{
		Set: []string{`type="track"`, `event=event.kind`, `userId=event.who`, `messageId="m-9"`}, Remove: []string{"kind", "who"},
	})
	require.Equal(t, rejected.Report{Sent: 1}, report, said)
	require.Contains(t, s.settled("m-9", 0)[0], `"event":"Paid"`)
	require.Empty(t, s.list(rejected.Filter{}))
}

// collected puts a record on events.collected as of a source, past the door.
func (s *shop) collected(source, messageID, body string) {
	s.t.Helper()
	key := []byte("u-9")
	require.NoError(s.t, s.client.Produce(s.context(), s.set.EventsCollected(), topic.Partition(key, s.set.Partitions), []stream.Record{{
		Key: key, Value: []byte(body), Headers: []topic.Header{
			{Key: topic.HeaderSource, Value: []byte(source)}, {Key: topic.HeaderBrand, Value: []byte("shop")}, {Key: topic.HeaderMessageID, Value: []byte(messageID)},
		},
	}}))
}

// What identity-stitcher has rejected goes back as the door had made it: neither its source's transformations nor its
// mapping are done a second time. However often it is replayed, it is taken once.
func TestWhatTheStitcherRejectedIsNotTransformedTwice(t *testing.T) {
	s := newShop(t)
	s.collected("web", "s-1", `{"type":"trak","event":"Paid","userId":"u-9","messageId":"s-1","properties":{"total":119.90,"tax":19.90}}`)
	s.collected("till", "s-2", `{"type":"trak","event":"Paid","userId":"u-9","messageId":"s-2","properties":{"total":2.50}}`)
	s.await("they are rejected", func() bool { return len(s.list(rejected.Filter{Services: []string{topic.StageStitcher}})) == 2 })
	fix := rejected.RepairOptions{Set: []string{`type="track"`}}
	for range 2 {
		report, said := s.replay(rejected.Filter{}, fix, again)
		require.Equal(t, rejected.Report{Sent: 2}, report, said)
	}
	require.Equal(t, []string{`{"type":"track","event":"Paid","userId":"u-9","messageId":"s-1","properties":{"total":119.90,"tax":19.90}}`}, s.settled("s-1", 1))
	require.Equal(t, []string{`{"type":"track","event":"Paid","userId":"u-9","messageId":"s-2","properties":{"total":2.50}}`}, s.settled("s-2", 1))
}

// What can not go back in is refused with the reason and what helps, and nothing is sent.
func TestWhatCanNotGoBackIsToldWhy(t *testing.T) {
	s := newShop(t)
	for i, c := range []struct{ service, reason, body, want string }{
		{topic.StageBuilder, "fold_panic", `{"type":"track","event":"A","userId":"u"}`, "'weft rebuild profile-builder' folds it with the rest of history"},
		{topic.StageDecide, "state_too_large", `{"type":"track","event":"A","userId":"u"}`, "'weft rebuild activator' folds it"},
		{topic.StageDeliver, "fold_panic", `{}`, "it is a message that was decided on, and no event"},
		{topic.StageBuilder, "output_too_large", `{"a":`, "the beginning of what profile-builder made"},
		{topic.StageStitcher, "output_too_large", `{"type":"track","event":"A","userId":"u"}`, "under another message id"},
		{topic.StageStitcher, "duplicate", "", "the trace of a duplicate"},
		{topic.StageCollector, "no_user_anon_id", "", "it has no body"},
		{topic.StageCollector, "too_large", `{"type":"tra`, "the first 12 bytes are kept"},
		{"somebody", "x", "{}", `nobody knows what "somebody" is`},
	} {
		require.NoError(t, s.client.Produce(s.context(), s.set.EventsRejected(), 0, []stream.Record{{Value: []byte(c.body), Headers: []topic.Header{
			{Key: topic.HeaderService, Value: []byte(c.service)}, {Key: topic.HeaderReason, Value: []byte(c.reason)}, {Key: topic.HeaderSource, Value: []byte("web")},
		}}}))
		report, said := s.replay(rejected.Filter{Reasons: []string{c.reason}, Services: []string{c.service}}, rejected.RepairOptions{})
		require.Equal(t, rejected.Report{Faulty: 1}, report, "%d: %s", i, said)
		require.Contains(t, said, c.want)
	}
}
