package collector

import "net/http"

// allowedHeaders are named, because "*" does not cover Authorization by the Fetch standard.
const allowedHeaders = "Authorization, Content-Type, Content-Encoding, Accept, X-Retry-Count, X-Requested-With"

// Values of headers that stand on every answer, made once: nobody changes them, and to add to one makes a copy.
var (
	anyOrigin      = []string{"*"}
	yes            = []string{"true"}
	varyOrigin     = []string{"Origin"}
	exposedHeaders = []string{"Retry-After, X-RateLimit-Limit, X-RateLimit-Remaining, X-RateLimit-Reset"}
	noSniffing     = []string{"nosniff"}
	asJSON         = []string{contentJSON}
)

// contentJSON is the type of most answers.
const contentJSON = "application/json"

// maxRequestedHeaders bounds what of Access-Control-Request-Headers is echoed.
const maxRequestedHeaders = 1024

// cors lets any page send: the write key is what admits, and no cookie is ever looked at. The headers stand on
// every answer, because to a browser an error without them is a broken network, and it retries for ever.
func cors(h http.Header, r *http.Request) {
	if origin := r.Header["Origin"]; len(origin) == 0 || origin[0] == "" {
		h["Access-Control-Allow-Origin"] = anyOrigin
	} else {
		// Named, since sendBeacon sends with credentials, for which browsers refuse "*".
		h["Access-Control-Allow-Origin"] = origin[:1:1]
		h["Access-Control-Allow-Credentials"] = yes
	}
	h["Vary"] = varyOrigin
	h["Access-Control-Expose-Headers"] = exposedHeaders
	if r.Method != http.MethodOptions {
		return
	}
	allowed := allowedHeaders
	if asked := r.Header.Get("Access-Control-Request-Headers"); asked != "" && len(asked) <= maxRequestedHeaders && isList(asked) {
		allowed += ", " + asked
	}
	h.Set("Access-Control-Allow-Headers", allowed)
	h.Set("Access-Control-Allow-Methods", "GET, POST, OPTIONS")
	h.Set("Access-Control-Max-Age", "86400") // browsers cap it: Chrome at 2 h, Firefox at a day
	h.Add("Vary", "Access-Control-Request-Headers")
}

// isList says whether s is header names with commas.
func isList(s string) bool {
	for _, c := range s {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_', c == ',', c == ' ':
		default:
			return false
		}
	}
	return true
}
