package enrich

import (
	"net/url"
	"strings"

	"github.com/weft-cdp/weft/pkg/event"
)

// maxCampaignBytes bounds one parameter: who sends more is playing.
const maxCampaignBytes = 512

// campaignNames are the parameters of a page's address, and what Segment's spec calls them.
var campaignNames = [...]struct{ parameter, name string }{
	{"utm_source", "source"}, {"utm_medium", "medium"}, {"utm_campaign", "name"}, {"utm_term", "term"}, {"utm_content", "content"}, {"utm_id", "id"},
}

// campaign adds the campaign that the page's address names. Of equal parameters the first counts.
func (e *Enricher) campaign(w *Work, page, properties []byte) {
	address := w.url(page, properties)
	_, query, ok := strings.Cut(address, "?")
	if !ok || !strings.Contains(query, "utm_") {
		return
	}
	query, _, _ = strings.Cut(query, "#")
	mark := len(w.fill)
	w.name("campaign")
	w.fill = append(w.fill, '{')
	some := false
	var seen [len(campaignNames)]bool
	for query != "" {
		var pair string
		pair, query, _ = strings.Cut(query, "&")
		key, value, _ := strings.Cut(pair, "=")
		for i, c := range campaignNames {
			if key != c.parameter || seen[i] {
				continue
			}
			text, err := url.QueryUnescape(value)
			if err != nil || strings.TrimSpace(text) == "" || len(text) > maxCampaignBytes {
				break
			}
			seen[i], some = true, true
			w.fill = append(event.AppendJSONString(w.fill, c.name), ':')
			w.fill = append(event.AppendJSONString(w.fill, text), ',')
		}
	}
	if !some {
		w.fill = w.fill[:mark]
		return
	}
	w.fill[len(w.fill)-1] = '}'
	w.fill = append(w.fill, ',')
}
