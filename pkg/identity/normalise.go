package identity

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/nyaruka/phonenumbers"
)

// normalise makes the ways of writing one value one, by the steps of its type. Bytes that are not UTF-8 are replaced, since
// evidence is JSON.
func (r *Rules) normalise(t *typeRule, value string) string {
	if !utf8.ValidString(value) {
		value = strings.ToValidUTF8(value, "\uFFFD")
	}
	value = strings.TrimSpace(value)
	for _, step := range t.steps {
		switch step {
		case stepLower, stepEmail:
			value = strings.ToLower(value)
		case stepPlusTags:
			value = withoutPlusTag(value)
		case stepPhone:
			value = r.phone(t, value)
		case stepDigits:
			value = strings.Map(func(c rune) rune {
				if c < '0' || c > '9' {
					return -1
				}
				return c
			}, value)
		}
	}
	return value
}

// withoutPlusTag is jane@x of jane+shop@x. An address that is nothing but a tag stays.
func withoutPlusTag(value string) string {
	plus, at := strings.IndexByte(value, '+'), strings.LastIndexByte(value, '@')
	if plus <= 0 || plus > at {
		return value
	}
	return value[:plus] + value[at:]
}

// phone writes a number in E.164. What cannot be a number of its country by its length, and what has no
// country while there is no default region, stays as it is. Length, unlike validity, is not a matter of the
// number plan's edition, so that an update of the library does not move numbers to other nodes. An extension
// is kept: the people behind one switchboard are not one person.
func (r *Rules) phone(t *typeRule, value string) string {
	if value == "" || len(value) > MaxValueBytes || r.isBlocked(t, value) {
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

// fits says whether a normalised value is what its type says it is. A sender that fills two fields the wrong way round
// would join everybody who shares either.
func (t *typeRule) fits(value string) bool {
	switch t.format {
	case formatEmail:
		if !isEmail(value) {
			return false
		}
	case formatPhone:
		if !isPhone(value) {
			return false
		}
	case formatUUID:
		if !isUUID(value) {
			return false
		}
	}
	return t.pattern == nil || t.pattern.MatchString(value)
}

// Bounds of formats.
const (
	maxLocalPart   = 64 // bytes before the @ (RFC 5321)
	minPhoneDigits = 5  // below are short codes and extensions
	maxPhoneDigits = 20 // E.164 has 15, and an international prefix may stand before
	uuidBytes      = 36
)

// isEmail is no proof that mail arrives: something before one @, and behind it names with a dot between.
func isEmail(value string) bool {
	local, domain, ok := strings.Cut(value, "@")
	if !ok || local == "" || len(local) > maxLocalPart || strings.ContainsFunc(value, noAddress) {
		return false
	}
	dot := strings.LastIndexByte(domain, '.')
	return dot > 0 && dot < len(domain)-1 && domain[0] != '.' && !strings.Contains(domain, "..") && !strings.Contains(domain, "@")
}

// noAddress says that a character stands in no address that a shop would write to.
func noAddress(c rune) bool {
	return unicode.IsSpace(c) || unicode.IsControl(c) || strings.ContainsRune(`<>(),;:"\[]`, c)
}

// isPhone takes a number in E.164, and one that has stayed as it was written.
func isPhone(value string) bool {
	value, _, _ = strings.Cut(value, ";ext=")
	digits := 0
	for _, c := range value {
		switch {
		case c >= '0' && c <= '9':
			digits++
		case !strings.ContainsRune(" +-./()\u00a0", c):
			return false
		}
	}
	return digits >= minPhoneDigits && digits <= maxPhoneDigits
}

func isUUID(value string) bool {
	if len(value) != uuidBytes {
		return false
	}
	for i := range len(value) {
		c := value[i] | 0x20 // letters in lower case
		if dash := i == 8 || i == 13 || i == 18 || i == 23; dash != (value[i] == '-') || !dash && (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
