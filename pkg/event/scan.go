package event

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/bits"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// MaxDepth is how deep arrays and objects of one event may nest. Real events stay below 10; parsers behind
// us give up between 300 (fastjson) and 1,000 (ClickHouse).
const MaxDepth = 100

// MaxKeys is how many members the objects of one event may have together. Real events stay below 300; each member costs
// every stage behind us, and ClickHouse, more than its bytes.
const MaxKeys = 10_000

// MaxElements is how many elements the arrays of one event may have together: a parser makes tens of bytes of each, so
// that a megabyte of "0," would be many of memory at every stage. A cart of a thousand lines has some ten thousand.
const MaxElements = 100_000

// maxScanDepth bounds the recursion of the scanner itself: a body nested deeper is refused as a whole,
// because finding where its items end is no longer worth the stack.
const maxScanDepth = 1000

// The scanner is one strict pass over RFC 8259 text that only remembers where things stand, so that
// everything can be passed on as it came. Of equal keys in one object the first counts, as in fastjson
// and ClickHouse.
type scanner struct {
	b       []byte
	depth   int  // of the value being scanned
	deepest int  // deepest nesting seen
	keys    int  // members of all objects seen
	elems   int  // elements of all arrays seen
	escapes bool // the string scanned last has escapes
	// maxItems bounds the elements that array lists; 0: no bound. more says that there are more: these are scanned too.
	maxItems int
	more     bool
	// batch, if any, is the list that the elements of the outermost object's first array "batch" go to, so that they need
	// no scan of their own; batchAt is where it begins.
	batch   *[]span
	batchAt int
	// items, if any, takes the members of these elements.
	items *listing
	// top is the depth of the members that below is asked about: 1, or within an item of a batch more.
	top int
	// below, if any, names the list that the members of a member of the outermost object, or of an item, go to, so that
	// they need no scan of their own; nil: none.
	below func(key []byte, from int) *[]member
}

// member is one name and value of an object: positions in the scanned text.
type member struct {
	keyFrom, keyTo int  // without quotes, escapes untouched
	from, to       int  // the value
	keyEscaped     bool // the name has escapes
	escaped        bool // the value is a string with escapes
}

type span struct{ from, to int }

type syntaxError struct {
	at   int
	what string
}

func (e *syntaxError) Error() string { return fmt.Sprintf("byte %d: %s", e.at, e.what) }

func bad(at int, what string) error { return &syntaxError{at: at, what: what} }

func skipSpace(b []byte, i int) int {
	for i < len(b) && b[i] <= ' ' && (b[i] == ' ' || b[i] == '\n' || b[i] == '\t' || b[i] == '\r') {
		i++
	}
	return i
}

// value scans the value at i and returns the position behind it.
func (s *scanner) value(i int) (int, error) {
	if i >= len(s.b) {
		return i, bad(i, "the text ends where a value should stand")
	}
	switch c := s.b[i]; {
	case c == '"':
		return s.text(i)
	case c == '{':
		return s.object(i, nil)
	case c == '[':
		return s.array(i, nil)
	case c == '-' || c >= '0' && c <= '9':
		return s.number(i)
	case c == 't':
		return s.word(i, "true")
	case c == 'f':
		return s.word(i, "false")
	case c == 'n':
		return s.word(i, "null")
	}
	return i, bad(i, fmt.Sprintf("%q does not begin a value", s.b[i]))
}

func (s *scanner) word(i int, w string) (int, error) {
	if len(s.b)-i < len(w) || string(s.b[i:i+len(w)]) != w {
		return i, bad(i, "expected "+w)
	}
	return i + len(w), nil
}

func (s *scanner) enter(i int) error {
	s.depth++
	s.deepest = max(s.deepest, s.depth)
	if s.depth > maxScanDepth {
		return bad(i, fmt.Sprintf("nested deeper than %d", maxScanDepth))
	}
	return nil
}

// object scans the object at i; with a non-nil list it adds the members to it.
func (s *scanner) object(i int, list *[]member) (int, error) {
	if err := s.enter(i); err != nil {
		return i, err
	}
	b := s.b
	i = skipSpace(b, i+1)
	if i < len(b) && b[i] == '}' {
		s.depth--
		return i + 1, nil
	}
	for {
		var m member
		var err error
		if i >= len(b) || b[i] != '"' {
			return i, bad(i, "expected the name of a member in quotes")
		}
		m.keyFrom = i + 1
		if i, err = s.text(i); err != nil {
			return i, err
		}
		m.keyTo, m.keyEscaped = i-1, s.escapes
		if i = skipSpace(b, i); i >= len(b) || b[i] != ':' {
			return i, bad(i, "expected ':' behind a name")
		}
		m.from = skipSpace(b, i+1)
		if i, err = s.memberValue(&m); err != nil {
			return i, err
		}
		m.to = i
		s.keys++
		if list != nil {
			switch {
			case s.top > 1 && len(*list) == maxListed: // of all items together: this one may still be taken
				s.items.full, list = true, nil
			case len(*list) == MaxKeys: // to be refused anyway: no memory for what a hostile sender makes up
				return i, tooManyKeys
			default:
				*list = append(*list, m)
			}
		}
		if i = skipSpace(b, i); i >= len(b) {
			return i, bad(i, "the text ends inside an object")
		}
		switch b[i] {
		case ',':
			i = skipSpace(b, i+1)
		case '}':
			s.depth--
			return i + 1, nil
		default:
			return i, bad(i, "expected ',' or '}' behind a member")
		}
	}
}

// memberValue scans the value of a member.
func (s *scanner) memberValue(m *member) (int, error) {
	if m.from < len(s.b) {
		switch c := s.b[m.from]; {
		case c == '"':
			i, err := s.text(m.from)
			m.escaped = s.escapes
			return i, err
		case c == '{' && s.depth == s.top && s.below != nil && !m.keyEscaped:
			return s.object(m.from, s.below(s.b[m.keyFrom:m.keyTo], m.from))
		case c == '[' && s.depth == 1 && s.batch != nil && s.batchAt == 0 && !m.keyEscaped && string(s.b[m.keyFrom:m.keyTo]) == "batch":
			s.batchAt = m.from
			return s.array(m.from, s.batch)
		}
	}
	return s.value(m.from)
}

// array scans the array at i; with a non-nil list it adds the elements to it.
func (s *scanner) array(i int, list *[]span) (int, error) {
	if err := s.enter(i); err != nil {
		return i, err
	}
	b := s.b
	i = skipSpace(b, i+1)
	if i < len(b) && b[i] == ']' {
		s.depth--
		return i + 1, nil
	}
	for {
		from := i
		var err error
		if list != nil && s.items != nil && list == s.batch {
			i, err = s.item(i)
		} else {
			i, err = s.value(i)
		}
		if err != nil {
			return i, err
		}
		s.elems++
		if list != nil {
			if s.maxItems > 0 && len(*list) == s.maxItems {
				s.more, list = true, nil
			} else {
				*list = append(*list, span{from, i})
			}
		}
		if i = skipSpace(b, i); i >= len(b) {
			return i, bad(i, "the text ends inside an array")
		}
		switch b[i] {
		case ',':
			i = skipSpace(b, i+1)
		case ']':
			s.depth--
			return i + 1, nil
		default:
			return i, bad(i, "expected ',' or ']' behind an element")
		}
	}
}

// item scans an element of a batch, and lists its members.
func (s *scanner) item(i int) (int, error) {
	if i >= len(s.b) || s.b[i] != '{' {
		s.items.all = append(s.items.all, listed{})
		return s.value(i)
	}
	outer, l := *s, s.items
	s.deepest, s.keys, s.elems, s.top, s.below = s.depth, 0, 0, s.depth+1, l.below
	l.begin(i)
	end, err := s.object(i, &l.members)
	l.end(shape{s.deepest - outer.depth, s.keys, s.elems})
	s.deepest, s.keys, s.elems = max(outer.deepest, s.deepest), outer.keys+s.keys, outer.elems+s.elems
	if s.top, s.below = outer.top, outer.below; l.full {
		s.items = nil
	}
	return end, err
}

// text scans the string at i, opening quote included.
func (s *scanner) text(i int) (int, error) {
	s.escapes = false
	j := plain(s.b, i+1)
	if j < len(s.b) && s.b[j] == '"' {
		return j + 1, nil
	}
	return s.escaped(j)
}

// escaped scans the rest of a string from the first byte on that is not plain, and not its end.
func (s *scanner) escaped(j int) (int, error) {
	b := s.b
	for ; ; j = plain(b, j) {
		switch {
		case j >= len(b):
			return len(b), bad(len(b), "the text ends inside a string")
		case b[j] == '"':
			return j + 1, nil
		case b[j] != '\\':
			return j, bad(j, "control character inside a string")
		}
		s.escapes = true
		j++
		if j >= len(b) {
			return j, bad(j, "the text ends inside a string")
		}
		switch b[j] {
		case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
			j++
		case 'u':
			if _, ok := hex4(b[j+1:]); !ok {
				return j, bad(j, `\u without four hexadecimal digits`)
			}
			j += 5
		default:
			return j, bad(j, "unknown escape in a string")
		}
	}
}

// plain returns the first position from j on with a quote, a backslash or a control character, or len(b). It
// looks at eight bytes at a time: with x the bytes, (x - 01..01) &^ x & 80..80 marks zero bytes, here those equal to the
// backslash, and subtracting 0x21 those up to 0x20 (Hacker's Delight, 6-1): these are the control characters and the
// quote, once the bit 0x02 by which the quote differs from the space is turned over. A mark may be wrong only above a
// right one.
func plain(b []byte, j int) int {
	const ones, tops = 0x0101010101010101, 0x8080808080808080
	for ; j+8 <= len(b); j += 8 {
		x := binary.LittleEndian.Uint64(b[j:])
		slash := x ^ '\\'*ones
		if marks := (((x^('"'^' ')*ones)-0x21*ones)&^x | (slash-ones)&^slash) & tops; marks != 0 {
			return j + bits.TrailingZeros64(marks)/8
		}
	}
	for ; j < len(b); j++ {
		if c := b[j]; c == '"' || c == '\\' || c < 0x20 {
			return j
		}
	}
	return len(b)
}

func hex4(b []byte) (rune, bool) {
	if len(b) < 4 {
		return 0, false
	}
	var r rune
	for _, c := range b[:4] {
		switch {
		case c >= '0' && c <= '9':
			r = r<<4 | rune(c-'0')
		case c >= 'a' && c <= 'f':
			r = r<<4 | rune(c-'a'+10)
		case c >= 'A' && c <= 'F':
			r = r<<4 | rune(c-'A'+10)
		default:
			return 0, false
		}
	}
	return r, true
}

func digits(b []byte, i int) int {
	for i < len(b) && b[i] >= '0' && b[i] <= '9' {
		i++
	}
	return i
}

func (s *scanner) number(i int) (int, error) {
	b := s.b
	if b[i] == '-' {
		i++
	}
	first := i
	i = digits(b, i)
	if i == first {
		return i, bad(i, "a number without digits")
	}
	if b[first] == '0' && i-first > 1 {
		return first, bad(first, "a number with a leading zero")
	}
	if i < len(b) && b[i] == '.' {
		from := i + 1
		if i = digits(b, from); i == from {
			return i, bad(i, "no digits behind the decimal point")
		}
	}
	if i < len(b) && (b[i] == 'e' || b[i] == 'E') {
		i++
		if i < len(b) && (b[i] == '+' || b[i] == '-') {
			i++
		}
		from := i
		if i = digits(b, from); i == from {
			return i, bad(i, "no digits in the exponent")
		}
	}
	return i, nil
}

// shape is what a scan found about a text.
type shape struct {
	deepest int // nesting
	keys    int // members of all objects
	elems   int // elements of all arrays
}

// check says whether one event may have this shape.
func (s shape) check() error {
	switch {
	case s.deepest > MaxDepth:
		return &Error{Reason: TooDeep, Detail: fmt.Sprintf("nested %d deep, at most %d", s.deepest, MaxDepth)}
	case s.keys > MaxKeys:
		return tooManyKeys
	case s.elems > MaxElements:
		return tooManyElements
	}
	return nil
}

// scanObject reads b as one object with nothing but white space around it.
func scanObject(b []byte, list []member) (_ []member, _ shape, err error) {
	s := scanner{b: b}
	return s.whole(list)
}

func (s *scanner) whole(list []member) (_ []member, _ shape, err error) {
	b := s.b
	s.top = 1
	i := skipSpace(b, 0)
	if i >= len(b) {
		return nil, shape{}, bad(i, "the text is empty")
	}
	var end int
	if b[i] == '{' {
		end, err = s.object(i, &list)
	} else {
		end, err = s.value(i)
	}
	if err != nil {
		return nil, s.shape(), err
	}
	if end = skipSpace(b, end); end != len(b) {
		return nil, s.shape(), bad(end, "something stands behind the JSON text")
	}
	if b[i] != '{' {
		return nil, s.shape(), errNotObject
	}
	return list, s.shape(), nil
}

func (s *scanner) shape() shape { return shape{s.deepest, s.keys, s.elems} }

// find returns the raw value of the first member called name, nil if there is none.
func find(b []byte, list []member, name string) []byte {
	if m := findMember(b, list, name); m != nil {
		return b[m.from:m.to]
	}
	return nil
}

// findMember prefers a name written without escapes, as fastjson does.
func findMember(b []byte, list []member, name string) *member {
	escaped := false
	for i := range list {
		m := &list[i]
		if m.keyTo-m.keyFrom == len(name) && string(b[m.keyFrom:m.keyTo]) == name && !m.keyEscaped {
			return m
		}
		escaped = escaped || m.keyEscaped
	}
	if !escaped {
		return nil
	}
	for i := range list {
		if m := &list[i]; m.keyEscaped && unescape(b[m.keyFrom:m.keyTo]) == name {
			return m
		}
	}
	return nil
}

// unescape reads the inside of a scanned string. Half a surrogate pair becomes U+FFFD, as do bytes that are
// not UTF-8.
func unescape(raw []byte) string {
	if bytes.IndexByte(raw, '\\') < 0 {
		return strings.ToValidUTF8(string(raw), "\uFFFD")
	}
	out := make([]byte, 0, len(raw))
	for i := 0; i < len(raw); i++ {
		if raw[i] != '\\' {
			out = append(out, raw[i])
			continue
		}
		i++
		switch c := raw[i]; c {
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case 't':
			out = append(out, '\t')
		case 'u':
			r, _ := hex4(raw[i+1:])
			i += 4
			if utf16.IsSurrogate(r) {
				low := rune(utf8.RuneError)
				if len(raw) > i+6 && raw[i+1] == '\\' && raw[i+2] == 'u' {
					low, _ = hex4(raw[i+3:])
				}
				if r = utf16.DecodeRune(r, low); r != utf8.RuneError {
					i += 6
				}
			}
			out = utf8.AppendRune(out, r)
		default:
			out = append(out, c)
		}
	}
	return strings.ToValidUTF8(string(out), "\uFFFD")
}

// textOf is the text of a scanned string, number, true or false; "" for null, arrays, objects and nil.
func textOf(raw []byte) string {
	if len(raw) == 0 {
		return ""
	}
	switch raw[0] {
	case '"':
		return unescape(raw[1 : len(raw)-1])
	case '{', '[', 'n':
		return ""
	}
	return string(raw)
}

// AppendJSONString appends s as a JSON string. What is no UTF-8 becomes U+FFFD.
func AppendJSONString(dst []byte, s string) []byte {
	const hexDigits = "0123456789abcdef"
	dst = append(dst, '"')
	from := 0 // what is before it stands in dst
	for i := 0; i < len(s); {
		c := s[i]
		if c >= 0x20 && c != '"' && c != '\\' && c < utf8.RuneSelf {
			i++
			continue
		}
		if r, n := utf8.DecodeRuneInString(s[i:]); c >= utf8.RuneSelf && (r != utf8.RuneError || n > 1) {
			i += n
			continue
		}
		dst = append(dst, s[from:i]...)
		switch {
		case c >= utf8.RuneSelf:
			dst = append(dst, "\uFFFD"...)
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		default:
			dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&0xf])
		}
		i++
		from = i
	}
	return append(append(dst, s[from:]...), '"')
}
