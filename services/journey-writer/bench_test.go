package writer

import (
	"testing"
	"time"

	"github.com/valyala/fastjson"

	"github.com/weft-cdp/weft/pkg/topic"
)

// shopEvent is what a browser SDK sends for a product, 900 bytes.
const shopEvent = `{"timestamp":"2026-03-04T05:06:07.008Z","integrations":{},"type":"track","event":"Product Added","anonymousId":"5f0c5ae5-9d5b-4f3e-8a0e-3f4c7f7b1f11","properties":{"cart_id":"c-81231","product_id":"p-1234","sku":"sku-99","category":"Shoes","name":"Running shoe","brand":"Acme","variant":"blue","price":12.34,"quantity":1,"currency":"EUR","position":3,"url":"https://shop.example/p/1234","image_url":"https://shop.example/p/1234.jpg"},"context":{"ip":"203.0.113.7","locale":"pl-PL","timezone":"Europe/Warsaw","userAgent":"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36","library":{"name":"analytics.js","version":"next-1.70.0"},"page":{"path":"/p/1234","referrer":"https://shop.example/","search":"","title":"Running shoe","url":"https://shop.example/p/1234?utm_source=mail"}},"messageId":"ajs-next-1709528767008-5f0c5ae5"}`

// BenchmarkRows turns records into rows, without storing them; BenchmarkRowsFloor parses the JSON and takes
// seven fields (performance targets, F6).
func BenchmarkRows(b *testing.B) {
	rows := newRows(kindEvents, "t", &nowhere{}, time.Now, func(table) {}, func() {})
	r := record(person, shopEvent, topic.Header{Key: topic.HeaderPosition, Value: []byte("identity-stitcher:1:1")})
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if err := rows.add(r); err != nil {
			b.Fatal(err)
		}
		if i%50_000 == 49_999 {
			rows.reset()
		}
	}
}

// A row is made without garbage, once the memory of its block is there.
func TestRowsAreMadeWithoutGarbage(t *testing.T) {
	rows := newRows(kindEvents, "t", &nowhere{}, time.Now, func(table) {}, func() {})
	r := record(person, shopEvent, topic.Header{Key: topic.HeaderPosition, Value: []byte("identity-stitcher:1:1")})
	fill := func() {
		for range 2000 {
			if err := rows.add(r); err != nil {
				t.Fatal(err)
			}
		}
		rows.reset()
	}
	fill()
	if allocs := testing.AllocsPerRun(5, fill); allocs > 2*55 { // the words of each column's dictionary
		t.Fatalf("%v allocations for 2,000 rows", allocs)
	}
}

func BenchmarkRowsFloor(b *testing.B) {
	var p fastjson.Parser
	b.ReportAllocs()
	for b.Loop() {
		v, err := p.Parse(shopEvent)
		if err != nil {
			b.Fatal(err)
		}
		for _, path := range [][]string{{"type"}, {"event"}, {"anonymousId"}, {"messageId"}, {"properties", "product_id"}, {"context", "ip"}, {"timestamp"}} {
			if v.Get(path...) == nil {
				b.Fatal(path)
			}
		}
	}
}
