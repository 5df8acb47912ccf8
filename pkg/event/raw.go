package event

import "unicode/utf8"

// CheckJSON says whether text is one JSON value that may be read by Object, Elements and RawText: valid, UTF-8,
// and of a shape that one event may have. The error is an *Error.
func CheckJSON(text []byte) error {
	s := scanner{b: text}
	i := skipSpace(text, 0)
	if i >= len(text) {
		return asError(bad(i, "the text is empty"))
	}
	end, err := s.value(i)
	if err != nil {
		return asError(err)
	}
	if end = skipSpace(text, end); end != len(text) {
		return asError(bad(end, "something stands behind the JSON text"))
	}
	if err := s.shape().check(); err != nil {
		return err
	}
	if !utf8.Valid(text) {
		return &Error{Reason: InvalidUTF8, Detail: "the record is not UTF-8 text"}
	}
	return nil
}

// Elements are the raw values of a checked array, which they alias; nil if raw is none.
func Elements(raw []byte) [][]byte {
	if len(raw) == 0 || raw[0] != '[' {
		return nil
	}
	spans := elements(raw)
	list := make([][]byte, len(spans))
	for i, at := range spans {
		list[i] = raw[at.from:at.to:at.to]
	}
	return list
}

// Find is the member of that name, its Raw nil if there is none.
func (o *Object) Find(name string) Value {
	for i := range o.list {
		if o.Name(i) == name {
			return o.Value(i)
		}
	}
	return Value{}
}
