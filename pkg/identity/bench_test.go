package identity

import (
	"fmt"
	"testing"

	"github.com/weft-cdp/weft/pkg/event"
)

// benchBatch is the default batch of the stitcher.
const benchBatch = 500

func benchRequests(b *testing.B, round int) []Request {
	b.Helper()
	rules := newTestRules(b, Options{})
	batch := make([]Request, benchBatch)
	for i := range batch {
		user, _ := rules.Identify(event.Identifier{Type: event.UserID, Value: fmt.Sprintf("user-%d-%d", round, i)})
		anon, _ := rules.Identify(event.Identifier{Type: event.AnonymousID, Value: fmt.Sprintf("anon-%d-%d", round, i)})
		batch[i] = request(fmt.Sprint(i), user, anon)
	}
	return batch
}

func perRecord(b *testing.B) {
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*benchBatch), "ns/record")
}

// BenchmarkResolveKnown: linked long ago, not in the cache.
func BenchmarkResolveKnown(b *testing.B) { benchKnown(b, 0) }

// BenchmarkResolveCached: linked long ago and in the cache.
func BenchmarkResolveCached(b *testing.B) { benchKnown(b, 10*benchBatch) }

func benchKnown(b *testing.B, cache int) {
	b.ReportAllocs()
	st := newMemory()
	r := NewResolver(st, cache, Policy{})
	batch := benchRequests(b, 0)
	got, err := r.Resolve(b.Context(), batch)
	if err == nil {
		err = r.Confirm(b.Context(), losers(b, got))
	}
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := r.Resolve(b.Context(), batch); err != nil {
			b.Fatal(err)
		}
	}
	perRecord(b)
}

// BenchmarkResolveNewLinks: every record links two identifiers never seen.
func BenchmarkResolveNewLinks(b *testing.B) {
	b.ReportAllocs()
	batch := benchRequests(b, 0)
	for b.Loop() {
		st := newMemory()
		if _, err := NewResolver(st, 0, Policy{}).Resolve(b.Context(), batch); err != nil {
			b.Fatal(err)
		}
	}
	perRecord(b)
}

// BenchmarkResolveKiosk: pathological, one device and a new person with every record.
func BenchmarkResolveKiosk(b *testing.B) {
	b.ReportAllocs()
	batch := benchRequests(b, 0)
	for i := range batch {
		batch[i].Identifiers[1] = batch[0].Identifiers[1]
	}
	for b.Loop() {
		st := newMemory()
		if _, err := NewResolver(st, 0, Policy{}).Resolve(b.Context(), batch); err != nil {
			b.Fatal(err)
		}
	}
	perRecord(b)
}

// BenchmarkIdentify: e-mail, the dearest of the common types; BenchmarkIdentifyPhone: the dearest of all.
func BenchmarkIdentify(b *testing.B)      { benchIdentify(b, event.Email, "Jane.Doe@Example.com") }
func BenchmarkIdentifyPhone(b *testing.B) { benchIdentify(b, event.Phone, "+48 601 234 567") }

func benchIdentify(b *testing.B, typ, value string) {
	b.ReportAllocs()
	rules := newTestRules(b, Options{})
	for b.Loop() {
		if _, why := rules.Identify(event.Identifier{Type: typ, Value: value}); why != "" {
			b.Fatal(why)
		}
	}
}
