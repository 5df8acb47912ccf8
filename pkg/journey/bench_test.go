package journey_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/weft-cdp/weft/pkg/event"
	"github.com/weft-cdp/weft/pkg/journey"
)

// BenchmarkObserve folds one addition into the cart of a person who has lines in it already, with the
// reading and writing of the state as a batch pays it at worst: once per event.
func BenchmarkObserve(b *testing.B) {
	for _, lines := range []int{3, 100} {
		b.Run(fmt.Sprint(lines, "_lines"), func(b *testing.B) {
			h := newShop(b, decider(parse(b, journeyFile))).reachable()
			for i := range lines {
				h.now = h.now.Add(time.Millisecond)
				h.add("c1", fmt.Sprint("p", i))
			}
			state, err := h.s.MarshalBinary()
			if err != nil {
				b.Fatal(err)
			}
			body := []byte(`{"type":"track","anonymousId":"a","event":"Product Added","properties":{"cart_id":"c1","product_id":"tea","name":"Tea","price":10,"currency":"EUR"}}`)
			m := event.Meta{Source: "web", Brand: "main", MessageID: "bench", ReceivedAt: h.now.Add(time.Second)}
			b.ReportAllocs()
			b.SetBytes(int64(len(state)))
			for b.Loop() {
				var s journey.State
				if err := s.UnmarshalBinary(state); err != nil {
					b.Fatal(err)
				}
				e, err := event.Decode(body, m)
				if err != nil {
					b.Fatal(err)
				}
				h.d.Observe("p1", &s, e, h.now)
				if _, err := s.AppendBinary(nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkFire decides a due cart with the mail of a cart of three lines.
func BenchmarkFire(b *testing.B) {
	h := newShop(b, decider(parse(b, journeyFile))).reachable()
	for i := range 3 {
		h.add("c1", fmt.Sprint("p", i))
	}
	state, err := h.s.MarshalBinary()
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		var s journey.State
		if err := s.UnmarshalBinary(state); err != nil {
			b.Fatal(err)
		}
		if r := h.d.Fire("p1", &s, h.now.Add(time.Hour)); len(r.Requests) != 1 {
			b.Fatal(r)
		}
	}
}
