package stream

import "github.com/weft-cdp/weft/pkg/topic"

// Clone copies records with all of their bytes, for those who keep them beyond the next Fetch. Absent keys,
// values and headers stay nil. It allocates three times, whatever the number of records.
func Clone(recs []Record) []Record {
	size, headers := 0, 0
	for i := range recs {
		r := &recs[i]
		size += len(r.Key) + len(r.Value)
		headers += len(r.Headers)
		for j := range r.Headers {
			size += len(r.Headers[j].Value)
		}
	}
	out, slab, hs := make([]Record, len(recs)), make([]byte, 0, size), make([]topic.Header, 0, headers)
	keep := func(b []byte) []byte {
		if b == nil {
			return nil
		}
		at := len(slab)
		slab = append(slab, b...)
		return slab[at:len(slab):len(slab)]
	}
	for i := range recs {
		r := &recs[i]
		out[i] = *r
		out[i].Key, out[i].Value, out[i].Headers = keep(r.Key), keep(r.Value), nil
		if r.Headers == nil {
			continue
		}
		at := len(hs)
		for _, h := range r.Headers {
			hs = append(hs, topic.Header{Key: h.Key, Value: keep(h.Value)})
		}
		out[i].Headers = hs[at:len(hs):len(hs)]
	}
	return out
}
