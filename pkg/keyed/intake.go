package keyed

import (
	"errors"
	"fmt"
	"slices"
	"sort"

	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
)

// none ends a chain of records.
const none = int32(-1)

// work is what a batch holds for one key.
type work struct {
	full    string // the state's key in Redis
	key     string // the end of full
	first   int32  // its records, chained by intake.next in their order; none: only a timer
	last    int32
	records int
	raw     []byte // the state as read
	timer   *firing
}

// intake is a batch on its way: its records, by key. Its memory is used again for the next one.
type intake struct {
	recs    []Record
	next    []int32 // by record: the next of the same key
	works   []work  // in the order of the keys' first records
	index   map[string]int32
	rejects []Output // records whose headers can not be read
}

func (in *intake) reset() {
	clear(in.recs) // what they point to may be overwritten from now on
	clear(in.works)
	in.recs, in.next, in.works, in.rejects = in.recs[:0], in.next[:0], in.works[:0], in.rejects[:0]
	if in.index == nil {
		in.index = map[string]int32{}
	}
	clear(in.index)
}

// add puts a record to its key's work.
func (in *intake) add(r Record, slot *Slot) {
	i := int32(len(in.recs)) //nolint:gosec // a batch is small
	in.recs, in.next = append(in.recs, r), append(in.next, none)
	at, ok := in.index[string(r.Key)]
	if !ok {
		at = in.open(slot, string(r.Key))
	}
	w := &in.works[at]
	if w.first == none {
		w.first = i
	} else {
		in.next[w.last] = i
	}
	w.last = i
	w.records++
}

// open makes a key's work.
func (in *intake) open(slot *Slot, key string) int32 {
	full := slot.stateKey(key)
	at := int32(len(in.works)) //nolint:gosec // a batch is small
	in.works = append(in.works, work{full: full, key: full[len(full)-len(key):], first: none, last: none})
	in.index[in.works[at].key] = at
	return at
}

// fire puts a timer to its key's work.
func (in *intake) fire(f *firing, slot *Slot) {
	at, ok := in.index[f.key]
	if !ok {
		at = in.open(slot, f.key)
	}
	in.works[at].timer = f
}

// at is the record at an offset, nil if there is none.
func (in *intake) at(offset int64) *Record {
	i := sort.Search(len(in.recs), func(i int) bool { return in.recs[i].Offset >= offset })
	if i == len(in.recs) || in.recs[i].Offset != offset {
		return nil
	}
	return &in.recs[i]
}

// sources are the highest source positions seen (rule 1).
type sources struct {
	last    map[string]int64 // as the slot has them
	batch   map[string]int64 // as this batch makes them
	lastKey sourceKey        // the source of the record before, and its name: most records share it
	name    string
}

type sourceKey struct {
	stage     string
	partition int
}

// repeated says whether a position is not above the highest seen, and notes it if it is.
func (s *sources) repeated(p topic.Position) bool {
	if k := (sourceKey{p.Stage, p.Partition}); k != s.lastKey {
		s.lastKey, s.name = k, p.Source()
	}
	last, ok := s.batch[s.name]
	if !ok {
		last, ok = s.last[s.name]
	}
	if ok && p.Seq <= last {
		return true
	}
	s.batch[s.name] = p.Seq
	return false
}

// take reads headers, drops what rule 1 drops, and groups the rest by key. Records whose headers can not be
// read are poison.
func (w *worker) take(recs []stream.Record) error {
	w.in.reset()
	clear(w.sources.batch)
	w.in.recs, w.in.next = slices.Grow(w.in.recs, len(recs)), slices.Grow(w.in.next, len(recs))
	for i := range recs {
		r, err := parseRecord(recs[i])
		if errors.Is(err, topic.ErrNewerSchema) {
			return fmt.Errorf("offset %d: %w", recs[i].Offset, err)
		}
		if err != nil {
			w.s.metrics.poison.WithLabelValues(ReasonInvalidHeader).Inc()
			w.in.rejects = append(w.in.rejects, Reject(Record{Record: recs[i]}, w.s.opt.Stage, ReasonInvalidHeader, err, w.s.opt.Topics))
			continue
		}
		if r.Position.Stage != "" && w.sources.repeated(r.Position) {
			w.s.metrics.repeated.Inc()
			continue
		}
		w.in.add(r, &w.slot)
	}
	return nil
}

func parseRecord(sr stream.Record) (Record, error) {
	r := Record{Record: sr, Kind: topic.KindEvent}
	if k, ok := topic.Get(sr.Headers, topic.HeaderKind); ok {
		r.Kind = topic.Kind(k)
	}
	if p, ok := topic.Get(sr.Headers, topic.HeaderPosition); ok {
		pos, err := topic.ParsePosition(p)
		if err != nil {
			return r, err
		}
		r.Position = pos
	}
	_, r.Refold = topic.View(sr.Headers, topic.HeaderRefold)
	m, err := topic.ParseMeta(sr.Headers)
	r.Meta = m
	return r, err
}
