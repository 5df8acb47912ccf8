package event

import (
	"bytes"
	"fmt"
	"time"
)

// MaxBatchContextBytes bounds a batch-level context, and batch-level integrations. They are copied into every item of
// the batch, so their size counts up to 2,500 times; SDKs write less than 2 KB.
const MaxBatchContextBytes = 64 << 10

// usualItemBytes is what to expect of an item at least: memory for the places of items is a sixteenth of the body.
const usualItemBytes = 256

// Request is the body of one call, split. Slices alias it.
type Request struct {
	WriteKey string    // "writeKey" at the top, "" if none
	SentAt   time.Time // "sentAt" at the top, zero if none
	Batch    bool      // it has an array "batch"
	Items    [][]byte  // the raw items of the batch, in order, or the one event itself
	// Context and Integrations are the batch-level ones, raw objects; nil if none, and nil for a single event.
	Context, Integrations []byte
}

// Split reads a request body: a batch, or a single event. It finds the items without judging them (each is for
// Compose and Decode), but the body as a whole must be JSON. Batch-level timestamp, messageId and
// sequence are those of the sending, not of any event, and stay behind (field facts 5.9). A batch of more than maxItems
// is refused before memory for its items is taken; with 0 the body is one event, whatever is in it. The error is an *Error; WriteKey is set beside it if it could be
// read.
func Split(body []byte, maxItems int) (Request, error) {
	body = bytes.TrimPrefix(body, []byte("\uFEFF")) // some senders on Windows write a byte order mark
	var room [24]member
	s := scanner{b: body, maxItems: maxItems}
	var items []span
	if maxItems > 0 {
		items = make([]span, 0, min(len(body)/usualItemBytes+1, maxItems))
		s.batch = &items
	}
	list, _, err := s.whole(room[:0])
	if err != nil {
		return Request{}, asError(err)
	}
	r := Request{WriteKey: stringOrNumber(find(body, list, "writeKey"))}
	r.SentAt, _ = ParseTime(textOf(find(body, list, "sentAt")))
	at := findMember(body, list, "batch")
	if at == nil || body[at.from] != '[' || maxItems == 0 {
		r.Items = [][]byte{body}
		return r, nil
	}
	r.Batch = true
	if r.Context, err = object("context", find(body, list, "context")); err != nil {
		return r, fmt.Errorf("read the batch: %w", err)
	}
	if r.Integrations, err = object("integrations", find(body, list, "integrations")); err != nil {
		r.Integrations = nil // nobody reads them, so they are no reason to refuse events
	}
	if n := max(len(r.Context), len(r.Integrations)); n > MaxBatchContextBytes {
		return r, &Error{Reason: TooLarge, Path: "context", Detail: fmt.Sprintf("a batch-level context, or integrations, of %d bytes, at most %d", n, MaxBatchContextBytes)}
	}
	if s.batchAt != at.from { // its name is written with escapes
		s = scanner{b: body, maxItems: maxItems}
		items = items[:0]
		if _, err = s.array(at.from, &items); err != nil {
			return r, asError(err)
		}
	}
	if s.more {
		return r, &Error{Reason: TooManyEvents, Path: "batch", Detail: fmt.Sprintf("has more than %d events", maxItems)}
	}
	r.Items = make([][]byte, len(items))
	for i, at := range items {
		r.Items[i] = body[at.from:at.to:at.to]
	}
	return r, nil
}
