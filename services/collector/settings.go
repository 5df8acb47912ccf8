package collector

import (
	"encoding/json"
	"net/http"
	"strings"
)

// settings answers what browser SDKs ask for before they send, if their content host points here: which
// destinations run in the browser (none), and where events go (back here, since the SDK's default is Segment's
// own host).
func (d *door) settings(r *http.Request, key string) answer {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return notAllowed(http.MethodGet)
	}
	src := d.keys.find(key)
	if src == nil {
		return unknownKey()
	}
	if src.disabled {
		return refuse(http.StatusNotFound, codeDisabled, "this source is disabled")
	}
	protocol := "http"
	if r.TLS != nil || strings.EqualFold(r.Header.Get("X-Forwarded-Proto"), "https") {
		protocol = "https"
	}
	enabled := map[string]any{"__default": map[string]any{"enabled": true, "integrations": map[string]any{}}}
	body, err := json.Marshal(map[string]any{
		"integrations": map[string]any{
			"Segment.io": map[string]any{
				"apiKey": key, "apiHost": r.Host + "/v1", "protocol": protocol,
				"unbundledIntegrations": []string{}, "addBundledMetadata": true,
			},
		},
		"plan":                 map[string]any{"track": enabled, "identify": enabled, "group": enabled},
		"edgeFunction":         map[string]any{},
		"middlewareSettings":   map[string]any{},
		"enabledMiddleware":    map[string]any{},
		"remotePlugins":        []string{},
		"metrics":              map[string]any{"sampleRate": 0},
		"analyticsNextEnabled": true,
	})
	if err != nil {
		return refuse(http.StatusInternalServerError, "internal", err.Error()) // cannot be: maps of text
	}
	a := ok(string(body))
	a.header = append(a.header, [2]string{"Cache-Control", "private, max-age=300"})
	return a
}
