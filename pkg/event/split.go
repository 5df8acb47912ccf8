package event

import (
	"bytes"
	"fmt"
	"time"
)

// MaxBatchContextBytes bounds a batch-level context, and batch-level integrations. They are copied into every item of
// the batch, so their size counts up to 2,500 times; SDKs write less than 2 KB.
const MaxBatchContextBytes = 64 << 10

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
	list, _, err := scanObject(body, room[:0])
	if err != nil {
		return Request{}, asError(err)
	}
	r := Request{WriteKey: stringOrNumber(find(body, list, "writeKey"))}
	r.SentAt, _ = ParseTime(textOf(find(body, list, "sentAt")))
	batch := find(body, list, "batch")
	if len(batch) == 0 || batch[0] != '[' || maxItems == 0 {
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
	s := scanner{b: batch, maxItems: maxItems}
	items := make([]span, 0, min(bytes.Count(batch, []byte("messageId")), maxItems))
	if _, err = s.array(0, &items); err != nil {
		return r, asError(err)
	}
	r.Items = make([][]byte, len(items))
	for i, at := range items {
		r.Items[i] = batch[at.from:at.to:at.to]
	}
	return r, nil
}
