package identity

import (
	"regexp"
	"strings"
)

// blockList is values that name nobody.
type blockList struct {
	exact    map[string]struct{} // in lower case
	longest  int                 // of exact, in bytes
	patterns []*regexp.Regexp
}

func newBlockList(s blockSpec, more ...string) *blockList {
	b := &blockList{exact: make(map[string]struct{}, len(s.exact)+len(more)), patterns: s.patterns}
	for _, list := range [][]string{s.exact, more} {
		for _, v := range list {
			v = strings.ToLower(strings.TrimSpace(v))
			b.exact[v] = struct{}{}
			b.longest = max(b.longest, len(v))
		}
	}
	return b
}

// has says whether a trimmed value is in the list, in any letter case.
func (b *blockList) has(value string) bool {
	if len(value) <= maxCaseRatio*b.longest {
		if _, ok := b.exact[strings.ToLower(value)]; ok {
			return true
		}
	}
	for _, p := range b.patterns {
		if p.MatchString(value) {
			return true
		}
	}
	return false
}

// maxCaseRatio is how many times the bytes of its lower case a text may have: the Kelvin sign has three, its lower case one.
const maxCaseRatio = 3

// isVoid says whether a value is made of zeros, dashes, dots and plus signs alone: 0, 000, the all-zero UUID and
// advertising id, +000.
func isVoid(value string) bool { return strings.Trim(value, "0-.+") == "" }
