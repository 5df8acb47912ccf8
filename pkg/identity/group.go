package identity

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"sort"
	"time"
)

// group is the members of a component, and what is known of each: the day on which it was first linked, and its degree.
type group struct {
	members []byte // packed nodes, ascending
	days    []byte // two bytes each, see day; nil: all 0
	degrees []byte // one byte each; nil: all 0. How many links beyond its first name the identifier, up to maxDegree
}

const (
	dayBytes  = 2
	maxDegree = math.MaxUint8
)

// dayZero is the day before day 1. Day 0 of a member of several is: before days were kept. Day 0 of a node on its own
// is: never linked.
var dayZero = time.Date(2019, 12, 31, 0, 0, 0, 0, time.UTC)

// day is the day of a time, in UTC, as it stands in values and merges; two bytes last until the year 2199. Times before
// and behind are taken for the first and the last.
func day(t time.Time) uint16 {
	d := t.Sub(dayZero) / (24 * time.Hour)
	return uint16(min(max(d, 1), math.MaxUint16))
}

func (g *group) size() int { return len(g.members) / nodeBytes }

func (g *group) member(i int) Node { return Node(g.members[i*nodeBytes : (i+1)*nodeBytes]) }

// day is the day on which member i was first linked.
func (g *group) day(i int) uint16 {
	if len(g.days) == 0 {
		return 0
	}
	return binary.BigEndian.Uint16(g.days[i*dayBytes:])
}

// degree is how many links name member i.
func (g *group) degree(i int) int {
	switch {
	case g.size() == 1:
		return 0
	case len(g.degrees) == 0:
		return 1
	}
	return 1 + int(g.degrees[i])
}

// people is how many of the members are identifiers: parts that splits have made stand before all others, and count nowhere.
func (g *group) people() int {
	n := g.size()
	for i := 0; i < len(g.members) && g.members[i] == rankPart; i += nodeBytes {
		n--
	}
	return n
}

// fresh is where the only identifier stands that is a member, if it was never linked, or is forgotten.
func (g *group) fresh() (int, bool) {
	i := g.size() - 1
	return i, g.people() == 1 && g.day(i) == 0
}

// find is where n stands, or would.
func (g *group) find(n Node) (int, bool) {
	i := sort.Search(g.size(), func(i int) bool { return bytes.Compare(g.members[i*nodeBytes:(i+1)*nodeBytes], n[:]) >= 0 })
	return i, i < g.size() && g.member(i) == n
}

// has says whether n is listed as a member.
func (g *group) has(n Node) bool {
	_, ok := g.find(n)
	return ok
}

// lists says whether all of o are listed as members.
func (g *group) lists(o *group) bool {
	for i := range o.size() {
		if !g.has(o.member(i)) {
			return false
		}
	}
	return true
}

// ordered checks that the members are nodes, ascending.
func (g *group) ordered() error {
	for i := range g.size() {
		if m := g.member(i); !m.valid() || i > 0 && !g.member(i-1).Before(m) {
			return fmt.Errorf("%w: member %d", ErrCorrupt, i)
		}
	}
	return nil
}

// oneDay says whether all members have one day, and which.
func (g *group) oneDay() (uint16, bool) {
	if len(g.days) == 0 {
		return 0, true
	}
	first := g.day(0)
	for i := 1; i < g.size(); i++ {
		if g.day(i) != first {
			return 0, false
		}
	}
	return first, true
}

func sameDays(d uint16, n int) []byte {
	if d == 0 {
		return nil
	}
	b := make([]byte, 0, n*dayBytes)
	for range n {
		b = binary.BigEndian.AppendUint16(b, d)
	}
	return b
}

// since is g as it counts in a join on a day: a node that was never linked is linked on that day for the first time.
func (g *group) since(d uint16) group {
	i, ok := g.fresh()
	if !ok || d == 0 {
		return *g
	}
	out := *g
	out.days = make([]byte, len(g.members)/nodeBytes*dayBytes)
	copy(out.days, g.days)
	binary.BigEndian.PutUint16(out.days[i*dayBytes:], d)
	return out
}

// union merges two groups. Who stands in both keeps what a says, but for a degree, of which the higher one counts.
func union(a, b group) group {
	out := group{members: make([]byte, 0, len(a.members)+len(b.members))}
	var days, degrees []byte
	dayed, many := false, false
	for i, j := 0, 0; i < a.size() || j < b.size(); {
		var c int
		switch {
		case i == a.size():
			c = 1
		case j == b.size():
			c = -1
		default:
			c = bytes.Compare(a.members[i*nodeBytes:(i+1)*nodeBytes], b.members[j*nodeBytes:(j+1)*nodeBytes])
		}
		from, at := &a, i
		if c > 0 {
			from, at = &b, j
		}
		d, degree := from.day(at), byte(0)
		if len(from.degrees) > 0 {
			degree = from.degrees[at]
		}
		if c == 0 && len(b.degrees) > 0 {
			degree = max(degree, b.degrees[j])
		}
		out.members = append(out.members, from.members[at*nodeBytes:(at+1)*nodeBytes]...)
		days = binary.BigEndian.AppendUint16(days, d)
		degrees = append(degrees, degree)
		dayed, many = dayed || d != 0, many || degree != 0
		if c <= 0 {
			i++
		}
		if c >= 0 {
			j++
		}
	}
	if dayed {
		out.days = days
	}
	if many {
		out.degrees = degrees
	}
	return out
}

// count counts one more link that names n, a member of several.
func (g *group) count(n Node) {
	i, ok := g.find(n)
	if !ok {
		return
	}
	if len(g.degrees) == 0 {
		g.degrees = make([]byte, g.size())
	} else {
		g.degrees = bytes.Clone(g.degrees)
	}
	g.degrees[i] = byte(min(int(g.degrees[i])+1, maxDegree))
}
