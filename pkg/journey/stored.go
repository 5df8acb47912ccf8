package journey

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/weft-cdp/weft/pkg/packed"
)

// StateVersion is the version of a stored State, and its first byte. Version 1 was JSON. While a part of a split person is told
// again, its state begins with tellingVersion, which a binary of before refuses.
const (
	StateVersion   = 2
	tellingVersion = 3
)

// AppendBinary appends s as it is stored: the version, and then what is known, times relative to a base.
func (s *State) AppendBinary(b []byte) ([]byte, error) {
	base, version := s.newest(), byte(StateVersion)
	if len(s.again) > 0 {
		version = tellingVersion
	}
	b = packed.AppendInt(append(b, version), base)
	b = s.Email.appendPacked(b, base)
	b = s.FirstName.appendPacked(b, base)
	b = packed.AppendLen(b, len(s.Brands))
	for _, name := range s.brandNames() {
		b = s.Brands[name].appendPacked(packed.AppendString(b, name), base)
	}
	if version == tellingVersion {
		b = packed.AppendLen(b, len(s.again))
		for _, t := range s.again {
			b = t.appendPacked(b, base)
		}
	}
	return b, nil
}

// MarshalBinary is AppendBinary to nothing.
func (s *State) MarshalBinary() ([]byte, error) { return s.AppendBinary(nil) }

// UnmarshalBinary reads what AppendBinary, or version 1, has written. Nothing of b's memory is kept.
func (s *State) UnmarshalBinary(b []byte) error {
	*s = State{}
	switch {
	case len(b) == 0:
		return nil
	case b[0] == '{':
		if err := json.Unmarshal(b, s); err != nil {
			return fmt.Errorf("read journey state of version 1: %w", err)
		}
		s.size = len(b)
		return nil
	case b[0] != StateVersion && b[0] != tellingVersion:
		return fmt.Errorf("%w: journey state of version %d, known %d", packed.ErrNewer, b[0], StateVersion)
	}
	r := packed.ReadShared(b)
	r.Byte()
	base := r.Int()
	s.Email, s.FirstName = readTrait(&r, base), readTrait(&r, base)
	if n := r.Len(leastBrand); n > 0 {
		s.Brands = make(map[string]*Brand, n)
		for range n {
			name := r.String()
			s.Brands[name] = readBrand(&r, base)
		}
	}
	if b[0] == tellingVersion {
		for range r.Len(leastTelling) {
			s.again = append(s.again, readTelling(&r, base))
		}
	}
	if err := r.Err(); err != nil {
		return fmt.Errorf("read journey state: %w", err)
	}
	if r.Left() != 0 {
		return fmt.Errorf("read journey state: %d bytes are left: %w", r.Left(), packed.ErrCorrupt)
	}
	s.size = len(b)
	return nil
}

// MarshalJSON refuses: a state is stored by AppendBinary, and its JSON would lack the carts.
func (s *State) MarshalJSON() ([]byte, error) {
	return nil, errors.New("a journey state is stored by AppendBinary, not as JSON")
}

// newest is the latest activity, from which the other times are not far.
func (s *State) newest() int64 {
	t := max(s.Email.At, s.FirstName.At)
	for _, b := range s.Brands {
		t = max(t, b.Active)
	}
	return t
}

func (t Trait) appendPacked(b []byte, base int64) []byte {
	return packed.AppendInt(packed.AppendString(b, t.Value), base-t.At)
}

func readTrait(r *packed.Reader, base int64) Trait {
	return Trait{Value: r.String(), At: base - r.Int()}
}

func (b *Brand) appendPacked(to []byte, base int64) []byte {
	to = packed.AppendInt(to, base-b.Active)
	to = b.Carts.AppendPacked(to)
	to = appendAnswers(to, b.Consent, base)
	to = appendAnswers(to, b.Receive, base)
	to = packed.AppendLen(to, len(b.Running))
	var last Instance
	for i := range b.Running {
		to = b.Running[i].appendPacked(to, &last, base)
		last = b.Running[i]
	}
	to = packed.AppendLen(to, len(b.Decided))
	journey := ""
	for _, d := range b.Decided {
		to = appendRepeated(to, d.Journey, journey)
		journey = d.Journey
		to = packed.AppendString(to, d.Cart)
		to = packed.AppendInt(to, base-d.At)
		to = append(to, flag(d.Sent, isSent))
		if d.Sent {
			to = packed.AppendHash(to, d.Lines)
		}
	}
	return to
}

// What the shortest of each takes, so that a count can not ask for more room than there are bytes.
const (
	leastBrand    = 8
	leastAnswer   = 3
	leastInstance = 10
	leastDecision = 4
)

func readBrand(r *packed.Reader, base int64) *Brand {
	b := &Brand{Active: base - r.Int()}
	b.Carts.ReadPacked(r)
	b.Consent = readAnswers(r, base)
	b.Receive = readAnswers(r, base)
	if n := r.Len(leastInstance); n > 0 {
		b.Running = make([]Instance, n)
		var last Instance
		for i := range b.Running {
			b.Running[i] = readInstance(r, &last, base)
			last = b.Running[i]
		}
	}
	if n := r.Len(leastDecision); n > 0 {
		b.Decided = make([]Decision, n)
		journey := ""
		for i := range b.Decided {
			d := &b.Decided[i]
			journey = readRepeated(r, journey)
			d.Journey, d.Cart, d.At = journey, r.String(), base-r.Int()
			if d.Sent = r.Byte()&isSent != 0; d.Sent {
				d.Lines = r.Hash()
			}
		}
	}
	return b
}

func appendAnswers(b []byte, m map[string]Yes, base int64) []byte {
	b = packed.AppendLen(b, len(m))
	if len(m) == 0 {
		return b
	}
	for _, key := range slices.Sorted(maps.Keys(m)) {
		b = packed.AppendString(b, key)
		b = packed.AppendInt(b, base-m[key].At)
		b = append(b, flag(m[key].OK, isYes))
	}
	return b
}

func readAnswers(r *packed.Reader, base int64) map[string]Yes {
	n := r.Len(leastAnswer)
	if n == 0 {
		return nil
	}
	m := make(map[string]Yes, n)
	for range n {
		key := r.String()
		m[key] = Yes{At: base - r.Int(), OK: r.Byte()&isYes != 0}
	}
	return m
}

const (
	isYes  = 1
	isSent = 1
)

// What is true of a stored instance, as bits.
const (
	isHistorical = 1 << iota
	isLastOld
	isUUID // its receipt id is: 16 bytes instead of 36
)

func flag(is bool, bit byte) byte {
	if is {
		return bit
	}
	return 0
}

// appendRepeated appends a text that is likely that of the thing before: 0 for the same, else its length + 1.
func appendRepeated(b []byte, s, before string) []byte {
	if s == before {
		return append(b, 0)
	}
	return append(packed.AppendLen(b, len(s)+1), s...)
}

func readRepeated(r *packed.Reader, before string) string {
	n := r.Uint()
	if n == 0 {
		return before
	}
	return r.Text(n - 1)
}

func (in *Instance) appendPacked(b []byte, last *Instance, base int64) []byte {
	b = appendRepeated(b, in.Journey, last.Journey)
	b = appendRepeated(b, in.Version, last.Version)
	b = appendRepeated(b, in.Channel, last.Channel)
	b = packed.AppendString(b, in.Cart)
	id, short := shortID(in.Receipt)
	b = append(b, flag(in.Historical, isHistorical)|flag(in.LastOld, isLastOld)|flag(short, isUUID))
	if short {
		b = append(b, id[:]...)
	} else {
		b = packed.AppendString(b, in.Receipt)
	}
	b = packed.AppendInt(b, int64(in.Delay))
	b = packed.AppendInt(b, base-in.ArmedAt)
	b = packed.AppendInt(b, base-in.LastOp)
	return packed.AppendInt(b, in.NotBefore) // 0 in all but the few that could not read their journey
}

// shortID is a receipt's id in 16 bytes, if it has that form.
func shortID(receipt string) (uuid.UUID, bool) {
	id, err := uuid.Parse(receipt)
	return id, err == nil && id.String() == receipt
}

func readInstance(r *packed.Reader, last *Instance, base int64) Instance {
	in := Instance{Journey: readRepeated(r, last.Journey), Version: readRepeated(r, last.Version), Channel: readRepeated(r, last.Channel), Cart: r.String()}
	is := r.Byte()
	in.Historical, in.LastOld = is&isHistorical != 0, is&isLastOld != 0
	if is&isUUID != 0 {
		var id uuid.UUID
		copy(id[:], r.Text(uint64(len(id))))
		in.Receipt = id.String()
	} else {
		in.Receipt = r.String()
	}
	in.Delay = time.Duration(r.Int())
	in.ArmedAt, in.LastOp, in.NotBefore = base-r.Int(), base-r.Int(), r.Int()
	return in
}
