package event

import (
	"bytes"
	"regexp"
)

// writeKey is the member by which a request may say whose it is.
const writeKey = "writeKey"

// writeKeys are the indexes of an item's members of that name; nil, as usual: there is none.
func writeKeys(item []byte, list []member) (hits []int) {
	for i := range list {
		m := &list[i]
		if key := item[m.keyFrom:m.keyTo]; string(key) == writeKey || m.keyEscaped && unescape(key) == writeKey {
			hits = append(hits, i)
		}
	}
	return hits
}

// writeKeyMember is a member called writeKey with its value, a text that may be cut off, or a number.
var writeKeyMember = regexp.MustCompile(`("` + writeKey + `"\s*:\s*)("(?:[^"\\]|\\.)*"?|[-+.0-9eE]+)`)

// BlankWriteKeys empties every writeKey that stands in a text, JSON or not: what is kept of a request must not tell who may
// send. Without any it returns text itself.
func BlankWriteKeys(text []byte) []byte {
	if !bytes.Contains(text, []byte(`"`+writeKey+`"`)) {
		return text
	}
	return writeKeyMember.ReplaceAll(text, []byte(`${1}""`))
}
