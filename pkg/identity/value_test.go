package identity

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// node makes a valid node whose place in the order is i.
func node(i int) Node {
	return Node{0: 0x10, 2: byte(i >> 8), 3: byte(i), 6: 0x80, 8: 0x80} //nolint:gosec // small numbers
}

func pack(is ...int) []byte {
	var b []byte
	for _, i := range is {
		n := node(i)
		b = append(b, n[:]...)
	}
	return b
}

func genValue() *rapid.Generator[*value] {
	return rapid.Custom(func(t *rapid.T) *value {
		v := &value{group: group{members: pack(9)}}
		for _, i := range rapid.SliceOfNDistinct(rapid.IntRange(0, 200), 0, 20, rapid.ID).Draw(t, "members") {
			v.members = union(v.group, group{members: pack(i)}).members
		}
		switch rapid.IntRange(0, 2).Draw(t, "days") {
		case 1:
			v.days = sameDays(rapid.Uint16Min(1).Draw(t, "day"), v.size())
		case 2:
			for range v.size() {
				v.days = binary.BigEndian.AppendUint16(v.days, rapid.Uint16().Draw(t, "day"))
			}
			if d, one := v.oneDay(); one {
				v.days = sameDays(d, v.size())
			}
		}
		if rapid.Bool().Draw(t, "degrees") {
			v.degrees = rapid.SliceOfN(rapid.Byte(), v.size(), v.size()).Draw(t, "degree")
		}
		switch rapid.IntRange(0, 2).Draw(t, "kind") {
		case 1:
			v.joining, v.target, v.trusted = true, node(rapid.IntRange(0, 8).Draw(t, "target")), rapid.Bool().Draw(t, "trusted")
		case 2:
			v.linked, v.confirmed = true, rapid.Bool().Draw(t, "confirmed")
			link := rapid.IntRange(0, 8).Draw(t, "link")
			v.link, v.parent = node(link), node(rapid.IntRange(0, link).Draw(t, "parent"))
		}
		if v.caused() {
			v.cause = Cause{Source: rapid.String().Draw(t, "source"), MessageID: rapid.String().Draw(t, "message"),
				Rule: RuleAlias, Time: genTime().Draw(t, "time")}
			for range rapid.IntRange(0, 2).Draw(t, "evidence") {
				v.evidence = append(v.evidence, Identifier{Type: "email", Value: rapid.String().Draw(t, "value"), Node: node(3)})
			}
		}
		v.merges, v.incarnation = rapid.IntRange(0, 1000).Draw(t, "merges"), rapid.Uint64().Draw(t, "incarnation")
		if rapid.Bool().Draw(t, "shared") {
			v.shared = genDevice().Draw(t, "device")
		}
		for i := range rapid.IntRange(0, 3).Draw(t, "cuts") {
			v.cuts = append(v.cuts, cut{node(9), node(10 + i)})
		}
		return v
	})
}

func genDevice() *rapid.Generator[*sharedDevice] {
	return rapid.Custom(func(t *rapid.T) *sharedDevice {
		at := rapid.Int64Range(0, 1e14)
		return &sharedDevice{
			kind: deviceKind(rapid.IntRange(0, int(deviceKinds)-1).Draw(t, "kind")), told: rapid.Bool().Draw(t, "told"), since: at.Draw(t, "since"),
			round: at.Draw(t, "round"), slice: slice{at.Draw(t, "start"), at.Draw(t, "number")}, before: slice{at.Draw(t, "start before"), at.Draw(t, "number before")},
			seen: at.Draw(t, "seen"), owner: node(3),
		}
	})
}

func genTime() *rapid.Generator[time.Time] {
	return rapid.Map(rapid.Int64Range(-1e12, 1e14), func(ms int64) time.Time { return time.UnixMilli(ms).UTC() })
}

func TestValueRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := genValue().Draw(t, "value")
		require.NoError(t, v.stamp())
		back, err := decode(node(9), v.raw)
		require.NoError(t, err)
		require.Equal(t, v, back)
		for i := range v.raw {
			if _, err := decode(node(9), v.raw[:i]); err == nil {
				t.Fatalf("cut at %d of %d is accepted", i, len(v.raw))
			}
		}
		_, err = decode(node(9), append(slices.Clone(v.raw), 0))
		require.ErrorIs(t, err, ErrCorrupt)
	})
}

func TestValueRefuses(t *testing.T) {
	several := group{members: pack(8, 9)}
	v := &value{group: several}
	require.NoError(t, v.stamp())
	newer := slices.Clone(v.raw)
	newer[0] = valueVersion + 1
	_, err := decode(node(9), newer)
	require.ErrorIs(t, err, ErrNewerVersion)
	for name, broken := range map[string]*value{
		"linked to a later node":     {linked: true, link: node(10), parent: node(10), group: several},
		"linked to itself":           {linked: true, link: node(9), parent: node(9), group: several},
		"parent behind its link":     {linked: true, link: node(3), parent: node(4), group: several},
		"joining a later node":       {joining: true, target: node(10), group: several},
		"not its own member":         {group: group{members: pack(7, 8)}},
		"members out of order":       {group: group{members: append(pack(9), pack(3)...)}},
		"members twice":              {group: group{members: append(pack(9), pack(9)...)}},
		"no members":                 {},
		"linked and joining":         {linked: true, joining: true, link: node(1), parent: node(1), target: node(1), group: several},
		"confirmed but not linked":   {confirmed: true, group: several},
		"trusted without a join":     {trusted: true, group: several},
		"a degree for one of two":    {group: group{members: pack(8, 9), degrees: []byte{1}}},
		"linked under an earlier is": {linked: true, confirmed: true, joining: true, link: node(1), parent: node(1), group: several},
	} {
		_, err := decode(node(9), broken.encode())
		require.ErrorIs(t, err, ErrCorrupt, name)
	}
	for _, raw := range [][]byte{{}, {0, 0}, {valueVersion, flagMore, 0}, {valueVersion, flagMore, moreKnown + 1}, {1, flagMore}} {
		_, err = decode(node(9), raw)
		require.ErrorIs(t, err, ErrCorrupt, "%v", raw)
	}
}

// TestValueVersion1 reads values as the first version of Weft wrote them.
func TestValueVersion1(t *testing.T) {
	old := func(flags byte, parts ...any) []byte {
		b := append([]byte{1, flags}, "revision"...)
		for _, p := range parts {
			switch p := p.(type) {
			case int:
				b = append(b, pack(p)...)
			case string:
				b = appendText(b, p)
			case byte:
				b = append(b, p)
			case []byte:
				b = append(append(b, byte(len(p)/nodeBytes)), p...)
			}
		}
		return b
	}
	cause := Cause{Source: "s", MessageID: "m", Rule: RuleAlias, Time: time.UnixMilli(3).UTC()}
	evidence := []Identifier{{Type: "email", Value: "e", Node: node(3)}}
	for name, c := range map[string]struct {
		raw  []byte
		want value
	}{
		"root":       {old(0, pack(9, 12)), value{group: group{members: pack(9, 12)}}},
		"not linked": {old(0, pack(9)), value{group: group{members: pack(9)}}},
		"joining": {old(flagJoining, 4, "s", "m", "alias", byte(6), byte(1), "email", "e", 3, pack(9)),
			value{joining: true, trusted: true, target: node(4), cause: cause, evidence: evidence, group: group{members: pack(9)}}},
		"linked": {old(flagLinked, 3, 4, "s", "m", "alias", byte(6), byte(1), "email", "e", 3, pack(9)),
			value{linked: true, parent: node(3), link: node(4), cause: cause, evidence: evidence, group: group{members: pack(9)}}},
		"confirmed": {old(flagLinked|flagConfirmed, 3, 4, "s", "m", "alias", byte(6), byte(0), pack(9)),
			value{linked: true, confirmed: true, parent: node(3), link: node(4), group: group{members: pack(9)}}},
	} {
		got, err := decode(node(9), c.raw)
		require.NoError(t, err, name)
		c.want.raw, c.want.revision = c.raw, [8]byte([]byte("revision"))
		require.Equal(t, &c.want, got, name)
		for i := range c.raw {
			_, err := decode(node(9), c.raw[:i])
			require.ErrorIs(t, err, ErrCorrupt, "%s cut at %d", name, i)
		}
		require.NoError(t, got.stamp())
		again, err := decode(node(9), got.raw)
		require.NoError(t, err)
		require.Equal(t, got, again, "written anew as version 2")
	}
}

// TestValueBytes is a gate: what identifiers cost in the store, beside their keys.
func TestValueBytes(t *testing.T) {
	today := sameDays(2500, 1)
	for name, c := range map[string]struct {
		v    value
		want int
	}{
		"a linked identifier": {value{linked: true, confirmed: true, link: node(3), parent: node(3), group: group{members: pack(9)}}, 26},
		"a person of two":     {value{group: group{members: pack(9, 12), days: append(today, today...)}}, 45},
		"a person of three":   {value{group: group{members: pack(9, 12, 13), days: sameDays(2500, 3), degrees: []byte{1, 0, 0}}}, 65},
		"of three days":       {value{group: group{members: pack(9, 12, 13), days: append(today, 0, 1, 0, 2), degrees: []byte{1, 0, 0}}}, 69},
	} {
		require.Len(t, c.v.encode(), c.want, name)
	}
}

func TestUnion(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		set := rapid.SliceOfDistinct(rapid.IntRange(0, 60), rapid.ID)
		a, b := set.Draw(t, "a"), set.Draw(t, "b")
		slices.Sort(a)
		slices.Sort(b)
		want := append(slices.Clone(a), b...)
		slices.Sort(want)
		want = slices.Compact(want)
		ga, gb := group{members: pack(a...), days: sameDays(5, len(a))}, group{members: pack(b...), degrees: bytes.Repeat([]byte{3}, len(b))}
		got := union(ga, gb)
		require.True(t, bytes.Equal(pack(want...), got.members))
		for i := range 61 {
			at, ok := got.find(node(i))
			require.Equal(t, slices.Contains(want, i), ok)
			if !ok {
				continue
			}
			inA, inB := slices.Contains(a, i), slices.Contains(b, i)
			require.Equal(t, inA, got.day(at) == 5)
			if got.size() > 1 {
				require.Equal(t, inB, got.degree(at) == 4)
			}
		}
	})
}

func TestDay(t *testing.T) {
	for text, want := range map[string]uint16{
		"2019-12-31T23:59:59Z": 1, "2020-01-01T00:00:00Z": 1, "2020-01-01T23:59:59Z": 1, "2020-01-02T00:00:00Z": 2,
		"2026-11-22T12:00:00Z": 2518, "2300-01-01T00:00:00Z": 65535, "0001-01-01T00:00:00Z": 1,
	} {
		at, err := time.Parse(time.RFC3339, text)
		require.NoError(t, err)
		require.Equal(t, want, day(at), text)
	}
}

func FuzzDecodeValue(f *testing.F) {
	for i := range 20 {
		v := genValue().Example(i)
		f.Add(v.encode())
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		v, err := decodeValue(node(9), raw)
		if err != nil {
			return
		}
		again, err := decodeValue(node(9), v.encode())
		require.NoError(t, err)
		again.raw = v.raw
		require.Equal(t, v, again)
	})
}
