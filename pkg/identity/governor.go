package identity

import (
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Suspension is a link that a cap has stopped. It is the value of records of kind suspend on identities.linked, whose key
// is the pair. The record it came with was resolved without it, and the next one with the same pair is judged anew.
type Suspension struct {
	Evidence []Evidence `json:"evidence"` // the two identifiers, in the order of their nodes
	Cap      Cap        `json:"cap"`
	Cause    Cause      `json:"cause"` // the record that would have made the link
}

// Key is the key of the suspension's record: both nodes, with a plus sign between them.
func (s *Suspension) Key() string { return s.Evidence[0].Node + "+" + s.Evidence[1].Node }

// Encode writes the record's value.
func (s Suspension) Encode() ([]byte, error) {
	b, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("encode suspension of %s: %w", s.Key(), err)
	}
	return b, nil
}

// ParseSuspension reads the value of a record of kind suspend. Fields it does not know are left alone.
func ParseSuspension(b []byte) (Suspension, error) {
	var s Suspension
	if err := json.Unmarshal(b, &s); err != nil {
		return Suspension{}, fmt.Errorf("parse suspension: %w", err)
	}
	if len(s.Evidence) != 2 {
		return Suspension{}, fmt.Errorf("parse suspension: evidence has %d identifiers, want 2", len(s.Evidence))
	}
	var nodes [2]Node
	for i, e := range s.Evidence {
		var err error
		if nodes[i], err = ParseNode(e.Node); err != nil {
			return Suspension{}, fmt.Errorf("parse suspension: evidence[%d]: %w", i, err)
		}
	}
	if !nodes[0].Before(nodes[1]) {
		return Suspension{}, errors.New("parse suspension: evidence is not in the order of its nodes")
	}
	return s, nil
}

func (id Identifier) evidence() Evidence {
	return Evidence{Type: id.Type, Value: id.Value, Node: id.Node.String()}
}

// suspendedKept is how many pairs a process remembers as published, at most: about 20 MB. Those beyond are published once
// more, which the tables behind take for the same.
const suspendedKept = 1 << 17

// suspended remembers the pairs whose suspension is known to be published, in two generations, as cache does.
type suspended struct {
	mu         sync.Mutex
	young, old map[string]struct{}
}

func newSuspended() *suspended { return &suspended{young: map[string]struct{}{}} }

func (s *suspended) has(key string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, young := s.young[key]
	_, old := s.old[key]
	return young || old
}

func (s *suspended) add(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.young) >= suspendedKept/2 {
		s.old, s.young = s.young, map[string]struct{}{}
	}
	s.young[key] = struct{}{}
}

// Announced notes that the suspension with this key is in Kafka: it is not handed out again for the same pair, as far as
// this process remembers.
func (r *Resolver) Announced(key string) { r.suspended.add(key) }

// minutesKept is how many minutes a process counts merges of: records that wait for each other in Kafka come mixed, but
// not by more. An older minute counts anew.
const minutesKept = 64

// rates count merges of two people by the minute in which the record behind each was received: so a backlog is judged as
// it would have been in its time. A merge that is refused behind that, or made again, counts.
type rates struct {
	caps    Caps
	mu      sync.Mutex
	minutes map[int64]*minute
	newest  int64
}

type minute struct {
	all     int
	sources map[string]int
}

func newRates(caps Caps) *rates { return &rates{caps: caps, minutes: map[int64]*minute{}} }

// take counts one merge, or says which cap it is over.
func (r *rates) take(source string, at time.Time) refusal {
	if r.caps.PerMinute == 0 && r.caps.PerMinutePerSource == 0 {
		return refusal{}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	k := at.Unix() / 60
	m := r.minutes[k]
	if m == nil {
		r.newest = max(r.newest, k)
		for old := range r.minutes {
			if old <= r.newest-minutesKept {
				delete(r.minutes, old)
			}
		}
		m = &minute{sources: map[string]int{}}
		r.minutes[k] = m
	}
	switch {
	case r.caps.PerMinute > 0 && m.all >= r.caps.PerMinute:
		return refusal{ReasonGovernor, CapPerMinute}
	case r.caps.PerMinutePerSource > 0 && m.sources[source] >= r.caps.PerMinutePerSource:
		return refusal{ReasonGovernor, CapPerMinuteSource}
	}
	m.all++
	m.sources[source]++
	return refusal{}
}
