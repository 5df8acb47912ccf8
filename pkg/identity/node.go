package identity

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
)

// Node is an identifier's place in the graph, and the id of the profile that it is the first node of: a
// UUIDv8 whose first byte is the rank of the identifier's type and whose other free bits are a keyed hash.
// Comparing the bytes, or the text, is the fixed order of nodes.
type Node [16]byte

// Types of nodes that no event can name.
const (
	// TypeEvent is the type of a profile known by nothing but one event: its source and message id.
	TypeEvent = "event"
	// TypeDeviceSlice is the type of a profile known by nothing but a device that several people use, and a time on it.
	TypeDeviceSlice = "device_slice"
	// TypePart is the type of a part that a split has made of a person. It comes before all others, so that it is the id of
	// the part's person, and no id that was in use before comes alive again.
	TypePart = "part"
)

// reservedTypes are names that no type of a rules file, and no identifier of an event, may have: those above, and what
// the profile API calls a profile id.
func reservedTypes() []string { return []string{TypeEvent, TypeDeviceSlice, TypePart, "profile"} }

func reserved(typ string) bool { return slices.Contains(reservedTypes(), typ) }

// Ranks: the first byte of a node. A rules file gives each type its own, up to maxRank; these are not for it to give. The
// order is fixed for a deployment's life, so they must never change.
const (
	rankPart        = 0x00 // before all: see TypePart
	rankOther       = 0x40 // all types that the rules do not list
	maxRank         = 0xef
	rankEvent       = 0xf0
	rankDeviceSlice = 0xf1
)

// otherPrefix is how many bytes of the name of a type that the rules do not list stand behind the rank, so
// that such types are ordered alphabetically by them without a list that could change. 90 bits of hash
// remain: at a thousand million identifiers of one type two are alike with a chance below 10^-9.
const otherPrefix = 3

// brandBytes is how many bytes of a hash of the brand stand behind the rank of a type whose scope is the brand, so that
// limits can be counted for each brand from nodes alone. Of a hundred brands two have the same with a chance of 1 in 13:
// these share their limits then, but no nodes, since all of the brand is hashed into these.
const brandBytes = 2

// String is the UUID text, lower case.
func (n Node) String() string {
	var b [36]byte
	hex.Encode(b[:8], n[:4])
	b[8] = '-'
	hex.Encode(b[9:13], n[4:6])
	b[13] = '-'
	hex.Encode(b[14:18], n[6:8])
	b[18] = '-'
	hex.Encode(b[19:23], n[8:10])
	b[23] = '-'
	hex.Encode(b[24:], n[10:])
	return string(b[:])
}

// Before says whether n stands before o in the fixed order.
func (n Node) Before(o Node) bool { return bytes.Compare(n[:], o[:]) < 0 }

// Compare is negative if n stands before o, positive if after, 0 if they are the same.
func (n Node) Compare(o Node) int { return bytes.Compare(n[:], o[:]) }

// IsZero says whether n is no node at all.
func (n Node) IsZero() bool { return n == Node{} }

// ParseNode reads what String wrote; anything else, upper case included, is an error, so that one node has
// one text.
func ParseNode(s string) (Node, error) {
	var n Node
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return Node{}, fmt.Errorf("%q is not a node: want a UUID", s)
	}
	d := make([]byte, 0, 32)
	for i := range len(s) {
		switch c := s[i]; {
		case i == 8 || i == 13 || i == 18 || i == 23:
		case c >= '0' && c <= '9', c >= 'a' && c <= 'f':
			d = append(d, c)
		default:
			return Node{}, fmt.Errorf("%q is not a node: want lower-case hexadecimal digits", s)
		}
	}
	if _, err := hex.Decode(n[:], d); err != nil {
		return Node{}, fmt.Errorf("%q is not a node: %w", s, err)
	}
	if !n.valid() {
		return Node{}, fmt.Errorf("%q is not a node: want UUID version 8", s)
	}
	return n, nil
}

// IsPart says whether the node is a part that a split has made.
func (n Node) IsPart() bool { return !n.IsZero() && n[0] == rankPart }

// afresh is the bit of a part's fifth byte that says that nothing was before it: an erasure has made it.
const afresh = 0x01

// Waits says of a profile id that it is a part's of a split: all that was before it will be told again. To those that an
// erasure has made nothing is.
func Waits(id string) bool {
	n, err := ParseNode(id)
	return err == nil && n.IsPart() && n[4]&afresh == 0
}

// ParseNodes reads several; an error names all that are none.
func ParseNodes(texts []string) ([]Node, error) {
	out := make([]Node, len(texts))
	var errs []error
	for i, t := range texts {
		var err error
		out[i], err = ParseNode(t)
		errs = append(errs, err)
	}
	return out, errors.Join(errs...)
}

// valid says whether the version and variant bits are those of a UUIDv8 (RFC 9562).
func (n Node) valid() bool { return n[6]>>4 == 8 && n[8]>>6 == 2 }
