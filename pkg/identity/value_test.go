package identity

import (
	"bytes"
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
		v := &value{members: pack(9)}
		for _, i := range rapid.SliceOfNDistinct(rapid.IntRange(0, 200), 0, 20, rapid.ID).Draw(t, "members") {
			v.members = unionMembers(v.members, pack(i))
		}
		switch rapid.IntRange(0, 2).Draw(t, "kind") {
		case 1:
			v.joining, v.target = true, node(rapid.IntRange(0, 8).Draw(t, "target"))
		case 2:
			v.linked, v.confirmed = true, rapid.Bool().Draw(t, "confirmed")
			link := rapid.IntRange(0, 8).Draw(t, "link")
			v.link, v.parent = node(link), node(rapid.IntRange(0, link).Draw(t, "parent"))
		}
		if v.joining || v.linked {
			v.cause = Cause{Source: rapid.String().Draw(t, "source"), MessageID: rapid.String().Draw(t, "message"),
				Rule: RuleAlias, Time: time.UnixMilli(rapid.Int64Range(-1e12, 1e14).Draw(t, "time")).UTC()}
			for range rapid.IntRange(0, 2).Draw(t, "evidence") {
				v.evidence = append(v.evidence, Identifier{Type: "email", Value: rapid.String().Draw(t, "value"), Node: node(3)})
			}
		}
		return v
	})
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
	v := &value{members: pack(9)}
	require.NoError(t, v.stamp())
	newer := slices.Clone(v.raw)
	newer[0] = valueVersion + 1
	_, err := decode(node(9), newer)
	require.ErrorIs(t, err, ErrNewerVersion)
	for name, broken := range map[string]*value{
		"linked to a later node":   {linked: true, link: node(10), parent: node(10), members: pack(9)},
		"linked to itself":         {linked: true, link: node(9), parent: node(9), members: pack(9)},
		"parent behind its link":   {linked: true, link: node(3), parent: node(4), members: pack(9)},
		"joining a later node":     {joining: true, target: node(10), members: pack(9)},
		"not its own member":       {members: pack(8)},
		"members out of order":     {members: append(pack(9), pack(3)...)},
		"members twice":            {members: append(pack(9), pack(9)...)},
		"no members":               {},
		"linked and joining":       {linked: true, joining: true, link: node(1), parent: node(1), target: node(1), members: pack(9)},
		"confirmed but not linked": {confirmed: true, members: pack(9)},
	} {
		_, err := decode(node(9), broken.encode())
		require.ErrorIs(t, err, ErrCorrupt, name)
	}
	_, err = decode(node(9), []byte{})
	require.ErrorIs(t, err, ErrCorrupt)
	_, err = decode(node(9), []byte{0, 0})
	require.ErrorIs(t, err, ErrCorrupt)
}

func TestUnionMembers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		set := rapid.SliceOfDistinct(rapid.IntRange(0, 60), rapid.ID)
		a, b := set.Draw(t, "a"), set.Draw(t, "b")
		slices.Sort(a)
		slices.Sort(b)
		want := append(slices.Clone(a), b...)
		slices.Sort(want)
		want = slices.Compact(want)
		got := unionMembers(pack(a...), pack(b...))
		require.True(t, bytes.Equal(pack(want...), got))
		v := &value{members: got}
		for i := range 61 {
			require.Equal(t, slices.Contains(want, i), v.has(node(i)))
		}
	})
}

func FuzzDecodeValue(f *testing.F) {
	for i := range 20 {
		v := genValue().Example(i)
		f.Add(v.encode())
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		v, err := decodeValue(raw)
		if err != nil {
			return
		}
		again, err := decodeValue(v.encode())
		require.NoError(t, err)
		again.raw = v.raw
		require.Equal(t, v, again)
	})
}
