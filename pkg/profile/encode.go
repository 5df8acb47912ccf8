package profile

import (
	"encoding/json"
	"fmt"
)

const (
	// MaxDocument is the most bytes of a record on profiles.changed: below Kafka's default
	// max.message.bytes of 1 MiB, with room for key and headers. A record above it could never be published
	// and would hold its partition for ever.
	MaxDocument = 900_000
	// shortTrait is what a trait's value may have when there is no room for all.
	shortTrait = 256
)

// shortenings are what Encode leaves out, in this order, until the document fits: what a reader misses
// least, first. After the last one a profile has some kilobytes per brand.
func shortenings() []struct {
	name  string
	apply func(d *Document)
} {
	return []struct {
		name  string
		apply func(d *Document)
	}{
		{"openCarts.lines", func(d *Document) {
			carts := make([]CartDocument, len(d.OpenCarts))
			for i, c := range d.OpenCarts {
				c.Lines = []LineDocument{}
				carts[i] = c
			}
			d.OpenCarts = carts
		}},
		{"traits above 256 bytes", func(d *Document) { d.cutTraits(shortTrait) }},
		{"counts.byName", func(d *Document) {
			for _, n := range d.Counts.ByName {
				d.Counts.OtherNames += n
			}
			d.Counts.ByName = map[string]int64{}
		}},
		{"traits", func(d *Document) { d.cutTraits(0) }},
		{"openCarts", func(d *Document) { d.OpenCarts = []CartDocument{} }},
	}
}

// Encode writes the value of profiles.changed, at most MaxDocument long; d is not changed.
func (d *Document) Encode() ([]byte, error) {
	b, err := json.Marshal(d)
	if err != nil {
		return nil, fmt.Errorf("encode profile %s: %w", d.ID, err)
	}
	if len(b) <= MaxDocument {
		return b, nil
	}
	short := *d
	for _, s := range shortenings() {
		s.apply(&short)
		short.Truncated = append(short.Truncated, s.name)
		if b, err = json.Marshal(short); err != nil {
			return nil, fmt.Errorf("encode profile %s: %w", d.ID, err)
		}
		if len(b) <= MaxDocument {
			return b, nil
		}
	}
	return nil, fmt.Errorf("encode profile %s: %d bytes with everything left out that can be, at most %d", d.ID, len(b), MaxDocument)
}

// cutTraits leaves out traits, of the person and of every brand, whose values are longer than most.
func (d *Document) cutTraits(most int) {
	cut := func(m map[string]json.RawMessage) map[string]json.RawMessage {
		kept := map[string]json.RawMessage{}
		for name, v := range m {
			if len(v) <= most {
				kept[name] = v
			}
		}
		return kept
	}
	d.Traits = cut(d.Traits)
	brands := make(map[string]BrandDocument, len(d.Brands))
	for name, b := range d.Brands {
		b.Traits = cut(b.Traits)
		brands[name] = b
	}
	d.Brands = brands
}
