package event

import (
	"bytes"
	"fmt"
	"time"
)

// MaxBatchContextBytes bounds a batch-level context. It is copied into every item of the batch, so its size
// counts up to 2,500 times; SDKs write less than 2 KB.
const MaxBatchContextBytes = 64 << 10

// Request is the body of one call, split. Slices alias it.
type Request struct {
	WriteKey string    // "writeKey" at the top, "" if none
	SentAt   time.Time // "sentAt" at the top, zero if none
	Batch    bool      // it has an array "batch"
	Items    [][]byte  // the raw items of the batch, in order, or the one event itself
	Context  []byte    // batch-level context, a raw object; nil if none, and nil for a single event
}

// Split reads a request body: a batch, or a single event. It finds the items without judging them (each is for
// Compose and Decode), but the body as a whole must be JSON. Batch-level timestamp, messageId and
// sequence are those of the sending, not of any event, and stay behind (field facts 5.9). The error is an
// *Error.
func Split(body []byte) (Request, error) {
	body = bytes.TrimPrefix(body, []byte("\uFEFF")) // some senders on Windows write a byte order mark
	var room [24]member
	list, _, err := scanObject(body, room[:0])
	if err != nil {
		return Request{}, asError(err)
	}
	r := Request{WriteKey: stringOrNumber(find(body, list, "writeKey"))}
	r.SentAt, _ = ParseTime(textOf(find(body, list, "sentAt")))
	batch := find(body, list, "batch")
	if len(batch) == 0 || batch[0] != '[' {
		r.Items = [][]byte{body}
		return r, nil
	}
	r.Batch = true
	if r.Context, err = object("context", find(body, list, "context")); err != nil {
		return Request{}, fmt.Errorf("read the batch: %w", err)
	}
	if len(r.Context) > MaxBatchContextBytes {
		return Request{}, &Error{Reason: TooLarge, Path: "context", Detail: fmt.Sprintf("a batch-level context has %d bytes, at most %d", len(r.Context), MaxBatchContextBytes)}
	}
	s := scanner{b: batch}
	items := make([]span, 0, bytes.Count(batch, []byte("messageId")))
	if _, err = s.array(0, &items); err != nil {
		return Request{}, asError(err)
	}
	r.Items = make([][]byte, len(items))
	for i, at := range items {
		r.Items[i] = batch[at.from:at.to:at.to]
	}
	return r, nil
}
