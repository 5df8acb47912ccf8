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
func Split(body []byte, maxItems int) (Request, error) { return new(Reader).Split(body, maxItems) }

// Split is the function of that name. What it returns is valid until the next Split; ComposeItem needs no other scan for the
// items of it.
func (r *Reader) Split(body []byte, maxItems int) (Request, error) {
	body = bytes.TrimPrefix(body, []byte("\uFEFF")) // some senders on Windows write a byte order mark
	r.items.reset()
	r.raw, r.single = r.raw[:0], false
	if maxItems == 0 && r.listed(body) == nil {
		req := requestOf(body, r.list)
		r.single, r.raw = true, append(r.raw, body)
		req.Items = r.raw
		return req, nil
	}
	s := scanner{b: body, maxItems: maxItems} // of one event it says what is wrong with the request, and not with the event
	if r.spans = r.spans[:0]; maxItems > 0 {
		s.batch, s.items = &r.spans, &r.items
	}
	list, _, err := s.whole(r.outer[:0])
	if err != nil {
		return Request{}, asError(err)
	}
	r.outer = list
	req := requestOf(body, list)
	at := findMember(body, list, "batch")
	if at == nil || body[at.from] != '[' || maxItems == 0 {
		r.items.reset()
		r.raw = append(r.raw, body)
		req.Items = r.raw
		return req, nil
	}
	req.Batch = true
	if req.Context, err = object("context", find(body, list, "context")); err != nil {
		return req, fmt.Errorf("read the batch: %w", err)
	}
	if req.Integrations, err = object("integrations", find(body, list, "integrations")); err != nil {
		req.Integrations = nil // nobody reads them, so they are no reason to refuse events
	}
	if n := max(len(req.Context), len(req.Integrations)); n > MaxBatchContextBytes {
		return req, &Error{Reason: TooLarge, Path: "context", Detail: fmt.Sprintf("a batch-level context, or integrations, of %d bytes, at most %d", n, MaxBatchContextBytes)}
	}
	if s.batchAt != at.from { // its name is written with escapes
		r.items.reset()
		s = scanner{b: body, maxItems: maxItems}
		r.spans = r.spans[:0]
		if _, err = s.array(at.from, &r.spans); err != nil {
			return req, asError(err)
		}
	}
	if s.more {
		return req, &Error{Reason: TooManyEvents, Path: "batch", Detail: fmt.Sprintf("has more than %d events", maxItems)}
	}
	for _, at := range r.spans {
		r.raw = append(r.raw, body[at.from:at.to:at.to])
	}
	req.Items = r.raw
	return req, nil
}

// requestOf reads what stands beside the items.
func requestOf(body []byte, list []member) Request {
	r := Request{WriteKey: stringOrNumber(find(body, list, "writeKey"))}
	r.SentAt, _ = ParseTime(textOf(find(body, list, "sentAt")))
	return r
}

// ComposeItem is Compose of item i of the request that was split last.
func (r *Reader) ComposeItem(i int, item []byte, fill Filling) ([]byte, error) {
	ours := i >= 0 && i < len(r.raw) && len(item) == len(r.raw[i]) && len(item) > 0 && &item[0] == &r.raw[i][0]
	if !ours || !r.single && !r.items.take(r, i, item) {
		return r.Compose(item, fill)
	}
	r.single = false
	return r.compose(item, fill)
}
