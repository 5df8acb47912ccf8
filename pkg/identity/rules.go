package identity

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"hash/fnv"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"github.com/nyaruka/phonenumbers"

	"github.com/weft-cdp/weft/pkg/event"
	"github.com/weft-cdp/weft/pkg/expr"
	shipped "github.com/weft-cdp/weft/schemas/identity"
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
	IgnoredBlank      Ignored = "blank"      // nothing but white space, or nothing that the steps of normalising leave
	IgnoredBlocked    Ignored = "blocked"    // a value that names nobody: see blocked and block in the rules file
	IgnoredTooLong    Ignored = "too_long"   // more than MaxValueBytes
	IgnoredType       Ignored = "type"       // the type's name is not lower-case letters, digits and _ . : -, or it is reserved
	IgnoredFormat     Ignored = "format"     // not what the type says it is: an e-mail without @
	IgnoredUntrusted  Ignored = "untrusted"  // of a type that counts from trusted sources only
	IgnoredBrand      Ignored = "brand"      // of a type whose values belong to a brand, and there is none
	IgnoredCollection Ignored = "collection" // an external id of an account, which is no person
	IgnoredEncoding   Ignored = "encoding"   // an external id in an encoding that is not "none"
	IgnoredExpression Ignored = "expression" // its expression ended in an error
	IgnoredTooMany    Ignored = "too_many"   // its expression gave more than maxPerExpression
)

// Options are the parts of the rules that a deployment may choose. Changing them changes the nodes of the
// identifiers they touch; those seen before then are other nodes.
type Options struct {
	// DefaultRegion is the ISO country, such as PL, of phone numbers without +country. Empty: such numbers are
	// taken as they stand.
	DefaultRegion string
	// Blocked are values to ignore beside those of the rules file, in any letter case, whatever the type.
	Blocked []string
	// File names the rules file in faults; Text is what it holds. No text: the shipped rules.
	File string
	Text []byte
}

// Rules turn identifiers of events into nodes. Safe for concurrent use.
type Rules struct {
	fingerprint string // of the key
	region      string
	macs        sync.Pool
	blocked     *blockList
	types       []*typeRule          // in order of the file
	named       map[string]*typeRule // by name
	other       *typeRule            // all that the file does not list
	event       *typeRule            // TypeEvent
	part        *typeRule            // TypePart
	slice       *typeRule            // TypeDeviceSlice
	logOut      map[string]struct{}  // names of events, in lower case
	devices     Devices
	previous    *typeRule  // what an alias call's previousId is
	byRank      [256]*Type // by the first byte of a node; none is nil
	paths       *event.Paths
	env         *expr.Env // nil: no type has an expression
	work        sync.Pool // *extraction
}

// typeRule is how identifiers of one type are found and read.
type typeRule struct {
	Type
	steps   []string
	format  string
	pattern *regexp.Regexp // nil: any value
	block   *blockList
	places  []place
	cel     *expr.Program // nil: none
}

// NewRules makes rules whose nodes are hashed with key, KeyBytes long. It fails if the key has another
// length or the region is unknown; faults of the rules file are joined, each a *Fault.
func NewRules(key []byte, opt Options) (*Rules, error) {
	if len(key) != KeyBytes {
		return nil, fmt.Errorf("identity key has %d bytes, want %d", len(key), KeyBytes)
	}
	region := strings.ToUpper(strings.TrimSpace(opt.DefaultRegion))
	if region != "" && !phonenumbers.GetSupportedRegions()[region] {
		return nil, fmt.Errorf("identity default region %q is not an ISO country code with phone numbers", opt.DefaultRegion)
	}
	if opt.Text == nil {
		opt.File, opt.Text = shipped.RulesName, shipped.Rules()
	}
	s, err := parseSpec(opt.File, opt.Text)
	if err != nil {
		return nil, err
	}
	own := append([]byte(nil), key...)
	r := &Rules{fingerprint: Fingerprint(key), region: region, blocked: newBlockList(s.blocked, opt.Blocked...)}
	r.macs.New = func() any { return &mac{Hash: hmac.New(sha256.New, own)} }
	r.work.New = func() any { return newExtraction(r) }
	if err := r.compile(opt.File, s); err != nil {
		return nil, err
	}
	return r, nil
}

// Node is the node of an identifier as it stands in an event, of a type that is shared across brands; false if it is
// ignored.
func (r *Rules) Node(id event.Identifier) (Node, bool) {
	n, why := r.Identify(id)
	return n.Node, why == ""
}

// Identify normalises an identifier and gives it its node, or says why it is ignored.
func (r *Rules) Identify(id event.Identifier) (Identifier, Ignored) { return r.IdentifyIn("", id) }

// IdentifyIn is Identify for an identifier that a brand knows, which matters to types whose scope is the brand.
func (r *Rules) IdentifyIn(brand string, id event.Identifier) (Identifier, Ignored) {
	typ := strings.ToLower(strings.TrimSpace(id.Type))
	t := r.named[typ]
	if t == nil {
		if !validType(typ) || reserved(typ) {
			return Identifier{}, IgnoredType
		}
		t = r.other
	}
	return r.identify(t, typ, id.Value, brand)
}

// identify is IdentifyIn for a type by its rule and its name, which other types than those of the file share.
func (r *Rules) identify(t *typeRule, typ, value, brand string) (Identifier, Ignored) {
	if len(value) > 4*MaxValueBytes { // far too long whatever normalising would do: not worth reading
		return Identifier{}, IgnoredTooLong
	}
	value = r.normalise(t, value)
	switch {
	case value == "":
		return Identifier{}, IgnoredBlank
	case len(value) > MaxValueBytes:
		return Identifier{}, IgnoredTooLong
	case r.isBlocked(t, value):
		return Identifier{}, IgnoredBlocked
	case !t.fits(value):
		return Identifier{}, IgnoredFormat
	case t.Scope == ScopeBrand && brand == "":
		return Identifier{}, IgnoredBrand
	}
	return Identifier{Type: typ, Value: value, Node: r.node(t, typ, value, brand)}, ""
}

// isBlocked says whether a trimmed value names nobody.
func (r *Rules) isBlocked(t *typeRule, value string) bool {
	return isVoid(value) || r.blocked.has(value) || t.block.has(value)
}

// EventIdentifier is the identifier of a record that names nobody: a profile of its own, known by source
// and message id only, so that the record is kept, and the same record is the same profile.
func (r *Rules) EventIdentifier(source, messageID string) Identifier {
	value := strings.ToValidUTF8(source+"/"+messageID, "\uFFFD")
	return Identifier{Type: TypeEvent, Value: value, Node: r.node(r.event, TypeEvent, value, "")}
}

// Part is the node of a part, counted from 0, that a split makes: the same whenever the command is carried out again. The
// generation, that of the component that is split and one, stands behind the rank from its complement, so that a part comes
// before all parts that were made of the same people before.
func (r *Rules) Part(command string, part int, generation uint64) Node {
	n := r.node(r.part, TypePart, command+"/"+strconv.Itoa(part), "")
	behind := maxGeneration - generation
	n[1], n[2], n[3] = byte(behind>>16), byte(behind>>8), byte(behind) //nolint:gosec // cut on purpose
	n[4] &^= afresh
	return n
}

// Afresh is Part for an erasure: the node that an identifier leads to then. Nothing was before it.
func (r *Rules) Afresh(command string, part int, generation uint64) Node {
	n := r.Part(command, part, generation)
	n[4] |= afresh
	return n
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

// mac is a keyed hash with room for what goes in and comes out.
type mac struct {
	hash.Hash
	buf []byte
}

// node hashes scope, type, value and, where that is the type's scope, brand, each with its length before it, behind the
// rank of the type. What is behind the lengths tells of itself where it ends, so three parts are never four.
func (r *Rules) node(t *typeRule, typ, value, brand string) Node {
	m := r.macs.Get().(*mac) //nolint:errcheck // the pool holds nothing else
	m.Reset()
	m.buf = appendPart(appendPart(appendPart(m.buf[:0], scope), typ), value)
	if t.Scope == ScopeBrand {
		m.buf = appendPart(m.buf, brand)
	}
	_, _ = m.Write(m.buf) // never fails
	m.buf = m.Sum(m.buf[:0])
	var n Node
	copy(n[1:], m.buf)
	r.macs.Put(m)
	n[0] = t.Rank
	switch {
	case t.Rank == rankOther:
		var name [otherPrefix]byte
		copy(name[:], typ)
		copy(n[1:], name[:])
	case t.Scope == ScopeBrand:
		h := brandHash(brand)
		copy(n[1:], h[:])
	}
	n[6] = n[6]&0x0f | 0x80
	n[8] = n[8]&0x3f | 0x80
	return n
}

func appendPart(b []byte, s string) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(s))) //nolint:gosec // values are below MaxValueBytes, message ids below a record
	return append(b, s...)
}

// brandHash is what stands of a brand behind the rank of a node.
func brandHash(brand string) (b [brandBytes]byte) {
	h := fnv.New32a()
	_, _ = h.Write([]byte(brand)) // never fails
	sum := h.Sum32()
	binary.BigEndian.PutUint16(b[:], uint16(sum>>16)^uint16(sum)) //nolint:gosec // both halves
	return b
}
