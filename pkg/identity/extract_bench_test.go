package identity

import (
	"testing"

	"github.com/weft-cdp/weft/pkg/event"
)

// Events as SDKs send them: a page view of a browser, a product view of a known customer's phone, and an identify.
const (
	browserEvent = `{"timestamp":"2026-11-22T06:59:14.325Z","type":"track","event":"Product Viewed","anonymousId":"8f2d0f0e-6f0a-4b1c-9d42-0a4bb3a1f0c7","messageId":"ajs-next-1795330754325-00c39fbe","properties":{"product_id":"SKU-507","name":"Żółte buty","price":349.99,"currency":"PLN"},"context":{"ip":"203.0.113.7","locale":"de-AT","timezone":"Europe/Vienna","userAgent":"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36","device":{"type":"desktop"},"os":{"name":"macOS"},"browser":{"name":"Chrome"},"library":{"name":"analytics.js","version":"next-1.70.0"},"page":{"path":"/shoes/red","referrer":"https://www.example.com/","title":"Red shoes","url":"https://shop.example.com/shoes/red"}}}`
	phoneEvent   = `{"timestamp":"2026-11-22T06:59:14.325Z","type":"track","event":"Product Viewed","userId":"019mr8mf4r","anonymousId":"8F2D0F0E-6F0A-4B1C-9D42-0A4BB3A1F0C7","messageId":"node-next-1795330754325-00c39fbe","properties":{"product_id":"SKU-507","price":349.99,"currency":"PLN"},"context":{"app":{"name":"Shop","version":"4.2.1"},"device":{"id":"B5372DB0-C21E-11E4-8DFC-AA07A5B093DB","advertisingId":"7A3CBEA0-BDF5-11E4-8DFC-AA07A5B093DB","adTrackingEnabled":true,"manufacturer":"Apple","model":"iPhone7,2","name":"maguro","type":"ios","token":"ff15bc0c20c4aa6cd50854ff165fd265c838e5405bfeb9571066395b8c9da449"},"library":{"name":"analytics-ios","version":"1.8.0"},"network":{"bluetooth":false,"carrier":"T-Mobile","wifi":true},"os":{"name":"iPhone OS","version":"8.1.3"},"screen":{"width":320,"height":568}}}`
	identifyCall = `{"timestamp":"2026-11-22T06:59:14.325Z","type":"identify","userId":"019mr8mf4r","anonymousId":"8f2d0f0e-6f0a-4b1c-9d42-0a4bb3a1f0c7","messageId":"ajs-next-1795330754325-00c39fbf","traits":{"firstName":"Anna","lastName":"Wróbel","email":"Anna.Wrobel@Example.COM","phone":"+48 601 234 567","consent":{"email":{"marketing":true}}},"context":{"ip":"203.0.113.7","locale":"de-AT","library":{"name":"analytics.js","version":"next-1.70.0"},"page":{"path":"/account","title":"Account","url":"https://shop.example.com/account"}}}`
)

// BenchmarkExtract: the identifiers of an event that is decoded already, under the shipped rules.
func BenchmarkExtract(b *testing.B) {
	for name, body := range map[string]string{"browser": browserEvent, "phone": phoneEvent, "identify": identifyCall} {
		b.Run(name, func(b *testing.B) {
			rules := newTestRules(b, Options{})
			e := decoded(b, body, event.Meta{Source: "web", Brand: "main"})
			b.ReportAllocs()
			for b.Loop() {
				if ids, _ := rules.Extract(e); len(ids) == 0 {
					b.Fatal("nobody")
				}
			}
		})
	}
}
