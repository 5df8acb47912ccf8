package collector

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/event"
	"github.com/weft-cdp/weft/pkg/unsubscribe"
)

// UnsubscribeSource is the source name of events from unsubscribe links; no configured source may have it.
const UnsubscribeSource = "unsubscribe"

// UnsubscribedEvent is the name of the track event that a used link becomes. Its properties are channel, brand
// and receipt; its external id is the address (type email or phone).
const UnsubscribedEvent = "Unsubscribed"

// maxFormBytes is what is read of a one-click request's form: "List-Unsubscribe=One-Click".
const maxFormBytes = 4 << 10

const unsubscribePage = `<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><meta name="robots" content="noindex">
<title>{{.Title}}</title>
<style>body{font:16px/1.5 system-ui,sans-serif;max-width:34em;margin:4em auto;padding:0 1em;color:#222}button{font:inherit;padding:.6em 1.2em}</style>
</head><body><h1>{{.Title}}</h1><p>{{.Text}}</p>
{{if .Ask}}<form method="post"><input type="hidden" name="List-Unsubscribe" value="One-Click"><button type="submit">Unsubscribe</button></form>{{end}}
</body></html>
`

// unsubscribe is the door of the links in messages. A GET only asks, because mail scanners follow every link;
// a POST (the page's button, or a mail provider's one-click request by RFC 8058) is the person's word. It is
// answered once the event is in Kafka; repeats are harmless, the message id is that of the link.
func (d *door) unsubscribe(r *http.Request) answer {
	token := r.URL.Query().Get(unsubscribe.Parameter)
	claim, err := unsubscribe.Verify(d.secret, token)
	if err != nil {
		return d.html(http.StatusBadRequest, "This link is not valid", "It may have been cut off by the mail program. Please copy the whole link from the message.", false)
	}
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		return d.html(http.StatusOK, "Unsubscribe?", fmt.Sprintf("No more %s messages from %s to %s.", claim.Channel, claim.Brand, claim.Address), true)
	case http.MethodPost:
	default:
		return notAllowed("GET, POST")
	}
	if _, err := io.Copy(io.Discard, io.LimitReader(r.Body, maxFormBytes)); err != nil {
		return refuse(http.StatusRequestTimeout, codeIncomplete, "the request ended early")
	}
	rec, err := d.unsubscribed(claim, token)
	if err == nil {
		err = d.send(r.Context(), []record{rec})
	}
	if err != nil {
		d.log.Warn("unsubscription not stored", zap.Error(err))
		a := d.html(http.StatusServiceUnavailable, "Please try again", "Your wish could not be stored just now. Please try again in a minute.", true)
		a.header = append(a.header, later("", "").header...)
		return a
	}
	return d.html(http.StatusOK, "You are unsubscribed", fmt.Sprintf("There will be no more %s messages from %s to %s.", claim.Channel, claim.Brand, claim.Address), false)
}

// unsubscribed makes the event. The body is a function of the token alone.
func (d *door) unsubscribed(c unsubscribe.Claim, token string) (record, error) {
	sum := sha256.Sum256([]byte(token))
	idType := map[string]string{"email": event.Email, "sms": event.Phone, "phone": event.Phone}[c.Channel]
	if idType == "" {
		idType = c.Channel
	}
	var body bytes.Buffer
	enc := json.NewEncoder(&body)
	enc.SetEscapeHTML(false)
	err := enc.Encode(map[string]any{
		"type": event.Track, "event": UnsubscribedEvent, "messageId": "unsubscribe-" + hex.EncodeToString(sum[:16]),
		"context":    map[string]any{"externalIds": []map[string]string{{"id": c.Address, "type": idType}}},
		"properties": map[string]string{"channel": c.Channel, "brand": c.Brand, "receipt": c.Receipt},
	})
	if err != nil {
		return record{}, fmt.Errorf("encode the unsubscription: %w", err)
	}
	src := &source{name: UnsubscribeSource, kind: config.KindServer, brand: c.Brand, trusted: true}
	if src.brand == "" {
		src.brand = d.cfg.Brand
	}
	it := item{body: bytes.TrimSpace(body.Bytes()), meta: src.meta(d.intake.now().UTC().Truncate(time.Millisecond)), source: src}
	return d.intake.take(it, event.Filling{}, unsubscribe.Path, place{}), nil
}

func (d *door) html(status int, title, text string, ask bool) answer {
	var b strings.Builder
	err := d.page.Execute(&b, struct {
		Title, Text string
		Ask         bool
	}{title, text, ask})
	if err != nil {
		return refuse(http.StatusInternalServerError, "internal", err.Error()) // cannot be: the template takes any text
	}
	return answer{
		status: status, body: []byte(b.String()), contentType: "text/html; charset=utf-8",
		header: [][2]string{
			{"Cache-Control", "no-store"}, {"Referrer-Policy", "no-referrer"},
			{"Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'"},
		},
	}
}
