package identity

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/nyaruka/phonenumbers"

	"github.com/weft-cdp/weft/pkg/event"
)

// MaxValueBytes is the longest value, normalised, that counts as an identifier: what an event may carry.
const MaxValueBytes = event.MaxIDBytes

// maxTypeBytes is the longest name of a type; Segment's longest is android.push_token.
const maxTypeBytes = 64

// scope is what identifiers are unique within. One deployment is one company with one scope; it is hashed
// into every node, so that a second one could be added without meeting the first.
const scope = "customer"

// Identifier is a normalised identifier and its node.
type Identifier struct {
	Type  string
	Value string
	Node  Node
}

// Ignored says why an identifier of an event does not count; empty: it counts. The texts are a closed set,
// fit for a metric's label.
type Ignored string

// Why identifiers are ignored. The record they came with is never lost: see Rules.EventIdentifier.
const (
	IgnoredBlank   Ignored = "blank"    // nothing but white space
	IgnoredBlocked Ignored = "blocked"  // a value that names nobody: see DefaultBlocked
	IgnoredTooLong Ignored = "too_long" // more than MaxValueBytes
	IgnoredType    Ignored = "type"     // the type's name is not lower-case letters, digits and _ . : -, or it is reserved
)

// Options are the parts of the rules that a deployment may choose. Changing them changes the nodes of the
// identifiers they touch; those seen before then are other nodes.
type Options struct {
	// DefaultRegion is the ISO country, such as PL, of phone numbers without +country. Empty: such numbers are
	// taken as they stand.
	DefaultRegion string
	// Blocked are values to ignore beside DefaultBlocked, in any letter case, whatever the type.
	Blocked []string
}

// Rules turn identifiers of events into nodes. Safe for concurrent use.
type Rules struct {
	region  string
	blocked map[string]struct{}
	macs    sync.Pool
	byRank  [256]*Type // by the first byte of a node; none is nil
}

// NewRules makes rules whose nodes are hashed with key, KeyBytes long. It fails if the key has another
// length or the region is unknown.
func NewRules(key []byte, opt Options) (*Rules, error) {
	if len(key) != KeyBytes {
		return nil, fmt.Errorf("identity key has %d bytes, want %d", len(key), KeyBytes)
	}
	region := strings.ToUpper(strings.TrimSpace(opt.DefaultRegion))
	if region != "" && !phonenumbers.GetSupportedRegions()[region] {
		return nil, fmt.Errorf("identity default region %q is not an ISO country code with phone numbers", opt.DefaultRegion)
	}
	own := append([]byte(nil), key...)
	r := &Rules{region: region, blocked: make(map[string]struct{})}
	r.macs.New = func() any { return hmac.New(sha256.New, own) }
	for _, v := range DefaultBlocked() {
		r.blocked[v] = struct{}{}
	}
	for _, v := range opt.Blocked {
		r.blocked[strings.ToLower(strings.TrimSpace(v))] = struct{}{}
	}
	r.setTypes(shippedTypes())
	return r, nil
}

// Node is the node of an identifier as it stands in an event; false if it is ignored.
func (r *Rules) Node(id event.Identifier) (Node, bool) {
	n, why := r.Identify(id)
	return n.Node, why == ""
}

// Identify normalises an identifier and gives it its node, or says why it is ignored.
func (r *Rules) Identify(id event.Identifier) (Identifier, Ignored) {
	typ := strings.ToLower(strings.TrimSpace(id.Type))
	if !validType(typ) || typ == TypeEvent {
		return Identifier{}, IgnoredType
	}
	if len(id.Value) > 4*MaxValueBytes { // far too long whatever normalising would do: not worth reading
		return Identifier{}, IgnoredTooLong
	}
	value := r.normalise(typ, id.Value)
	switch {
	case value == "":
		return Identifier{}, IgnoredBlank
	case len(value) > MaxValueBytes:
		return Identifier{}, IgnoredTooLong
	case r.isBlocked(value):
		return Identifier{}, IgnoredBlocked
	}
	return Identifier{Type: typ, Value: value, Node: r.node(typ, value)}, ""
}

// EventIdentifier is the identifier of a record that names nobody: a profile of its own, known by source
// and message id only, so that the record is kept, and the same record is the same profile.
func (r *Rules) EventIdentifier(source, messageID string) Identifier {
	value := strings.ToValidUTF8(source+"/"+messageID, "\uFFFD")
	return Identifier{Type: TypeEvent, Value: value, Node: r.node(TypeEvent, value)}
}

// validType says whether a type's name can be an identifier type: it stands in topics, in ClickHouse and in
// the profile API's paths.
func validType(t string) bool {
	if t == "" || len(t) > maxTypeBytes {
		return false
	}
	for i := range len(t) {
		c := t[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && !strings.ContainsRune("_.:-", rune(c)) {
			return false
		}
	}
	return true
}

// normalise makes the ways of writing one value one: e-mail in lower case, phones in E.164, all trimmed.
// Bytes that are not UTF-8 are replaced, since evidence is JSON.
func (r *Rules) normalise(typ, value string) string {
	if !utf8.ValidString(value) {
		value = strings.ToValidUTF8(value, "\uFFFD")
	}
	value = strings.TrimSpace(value)
	switch typ {
	case event.Email:
		return strings.ToLower(value)
	case event.Phone:
		return r.phone(value)
	}
	return value
}

// phone writes a number in E.164. What cannot be a number of its country by its length, and what has no
// country while there is no default region, stays as it is. Length, unlike validity, is not a matter of the
// number plan's edition, so that an update of the library does not move numbers to other nodes. An extension
// is kept: the people behind one switchboard are not one person.
func (r *Rules) phone(value string) string {
	if value == "" || len(value) > MaxValueBytes || r.isBlocked(value) {
		return value
	}
	num, err := phonenumbers.Parse(value, r.region)
	if err != nil || !phonenumbers.IsPossibleNumber(num) {
		return value
	}
	text := phonenumbers.Format(num, phonenumbers.E164)
	if ext := num.GetExtension(); ext != "" {
		text += ";ext=" + ext
	}
	return text
}

// node hashes scope, type and value, each with its length before it, behind the rank of the type.
func (r *Rules) node(typ, value string) Node {
	m := r.macs.Get().(hash.Hash) //nolint:errcheck // the pool holds nothing else
	m.Reset()
	buf := make([]byte, 0, 128)
	for _, s := range [...]string{scope, typ, value} {
		buf = binary.BigEndian.AppendUint32(buf, uint32(len(s))) //nolint:gosec // values are below MaxValueBytes, message ids below a record
		buf = append(buf, s...)
	}
	m.Write(buf)
	sum := m.Sum(buf[:0])
	r.macs.Put(m)
	var n Node
	copy(n[1:], sum)
	n[0] = rankOf(typ)
	if n[0] == rankOther {
		var name [otherPrefix]byte
		copy(name[:], typ)
		copy(n[1:], name[:])
	}
	n[6] = n[6]&0x0f | 0x80
	n[8] = n[8]&0x3f | 0x80
	return n
}

// rankOf is the place of a type in the fixed order.
func rankOf(typ string) byte {
	switch typ {
	case event.UserID:
		return rankUserID
	case event.Email:
		return rankEmail
	case event.Phone:
		return rankPhone
	case event.AnonymousID:
		return rankAnonymousID
	case TypeEvent:
		return rankEvent
	}
	return rankOther
}
