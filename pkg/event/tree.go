package event

import "encoding/json"

// Tree decodes a JSON text for code that wants Go values: map[string]any, []any, string, json.Number with its
// digits as they came, bool and nil. Of equal names in one object the first counts, as everywhere in Weft. It
// is an order of magnitude dearer than Decode; nothing on the way of every event calls it. The error is an
// *Error.
func Tree(text []byte) (any, error) {
	if err := CheckJSON(text); err != nil {
		return nil, err
	}
	v, _ := tree(text, skipSpace(text, 0))
	return v, nil
}

// tree decodes the value at i of a scanned text and returns the position behind it.
func tree(b []byte, i int) (any, int) {
	switch b[i] {
	case '{':
		return treeObject(b, i)
	case '[':
		return treeArray(b, i)
	case '"':
		end := stringEnd(b, i)
		return unescape(b[i+1 : end-1]), end
	case 't':
		return true, i + len("true")
	case 'f':
		return false, i + len("false")
	case 'n':
		return nil, i + len("null")
	}
	end := i
	for end < len(b) && (b[end] >= '0' && b[end] <= '9' || b[end] == '-' || b[end] == '+' || b[end] == '.' || b[end] == 'e' || b[end] == 'E') {
		end++
	}
	return json.Number(b[i:end]), end
}

// stringEnd is the position behind the string at i.
func stringEnd(b []byte, i int) int {
	for i = plain(b, i+1); b[i] != '"'; i = plain(b, i+2) { // a scanned string: what is no quote is a backslash
	}
	return i + 1
}

func treeObject(b []byte, i int) (any, int) {
	object := map[string]any{}
	escaped := map[string]any{} // a name written without escapes counts before one with, as in findMember
	for i = skipSpace(b, i+1); b[i] != '}'; {
		end := stringEnd(b, i)
		key := b[i+1 : end-1]
		name := unescape(key)
		i = skipSpace(b, skipSpace(b, end)+1)
		var v any
		v, i = tree(b, i)
		into := object
		if len(name) != len(key) || name != string(key) {
			into = escaped
		}
		if _, known := into[name]; !known {
			into[name] = v
		}
		if i = skipSpace(b, i); b[i] == ',' {
			i = skipSpace(b, i+1)
		}
	}
	for name, v := range escaped {
		if _, known := object[name]; !known {
			object[name] = v
		}
	}
	return object, i + 1
}

func treeArray(b []byte, i int) (any, int) {
	list := []any{}
	for i = skipSpace(b, i+1); b[i] != ']'; {
		var v any
		v, i = tree(b, i)
		list = append(list, v)
		if i = skipSpace(b, i); b[i] == ',' {
			i = skipSpace(b, i+1)
		}
	}
	return list, i + 1
}
