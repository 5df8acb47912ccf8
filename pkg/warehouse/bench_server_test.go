//go:build integration

package warehouse

import (
	"fmt"
	"testing"
	"time"
)

// benchEvents is n events shaped like a web shop's.
func benchEvents(b *Block[Event], n int, offset uint64) {
	amount := Amount{Units: 123400, Some: true}
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	props := []byte(`{"product_id":"p-1234","sku":"sku-99","category":"Shoes","name":"Running shoe","brand":"Acme","variant":"blue","price":12.34,"quantity":1,"currency":"EUR","position":3}`)
	context := []byte(`{"ip":"203.0.113.7","locale":"pl-PL","userAgent":"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36","library":{"name":"analytics.js","version":"next-1.70.0"},"page":{"path":"/p/1234","url":"https://shop.example/p/1234","title":"Running shoe"}}`)
	for i := range n {
		b.Add(&Event{
			Origin: Origin{Topic: "weft.events.identified", Partition: 3, Offset: offset + uint64(i)}, Brand: "main", Source: "web",
			Type: "track", Name: "Product Added", Profile: id(i % 5000), AnonymousID: fmt.Sprintf("anon-%08d", i%5000),
			MessageID: fmt.Sprintf("ajs-next-%016d", i), Time: at.Add(time.Duration(i) * time.Millisecond), SentAt: at, ReceivedAt: at,
			CartID: "c1", ProductID: "p-1234", Category: "Shoes", Price: amount, Quantity: amount, Currency: "EUR",
			URL: "https://shop.example/p/1234", Path: "/p/1234", Title: "Running shoe", DeviceType: "desktop", Locale: "pl-PL",
			Library: "analytics.js/next-1.70.0", IP: "203.0.113.7", Properties: props, Context: context,
		})
	}
}

const benchRows = 50_000

// BenchmarkInsertFloor inserts ready columns: what ClickHouse and its driver cost.
func BenchmarkInsertFloor(b *testing.B) {
	c := newDatabase(b)
	blk := Events().NewBlock()
	benchEvents(blk, benchRows, 0)
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		n++
		if err := c.Insert(b.Context(), blk, token(fmt.Sprint(n)), time.Now); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(n)*benchRows/b.Elapsed().Seconds(), "rows/s")
}

// BenchmarkInsertEvents makes the columns of rows first, and inserts them.
func BenchmarkInsertEvents(b *testing.B) {
	c := newDatabase(b)
	blk := Events().NewBlock()
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		n++
		benchEvents(blk, benchRows, uint64(n)*benchRows)
		if err := c.Insert(b.Context(), blk, token(fmt.Sprint(n)), time.Now); err != nil {
			b.Fatal(err)
		}
		blk.Reset()
	}
	b.ReportMetric(float64(n)*benchRows/b.Elapsed().Seconds(), "rows/s")
}
