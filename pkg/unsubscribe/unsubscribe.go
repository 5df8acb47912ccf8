// Package unsubscribe signs and reads the tokens of unsubscribe links.
//
// It owns: what a link says and how it is signed. It guarantees that Verify accepts only what Sign made with
// the same secret, unchanged. A token is text that may stand in a URL and in a mail header; it is signed, not
// sealed: whoever holds the link can read the address it was sent to. Tokens do not expire, because a mail
// may be opened years later and the law wants its link to work. It does no I/O; it must not know what an
// unsubscription does.
package unsubscribe

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Path is where the collector answers; the token stands in the query parameter Parameter.
const (
	Path      = "/v1/unsubscribe"
	Parameter = "t"
)

// version stands at the front of every token, so that a later one can be told apart.
const version = "u1"

// maxTokenBytes bounds what Verify looks at: addresses have at most 320 bytes, the other fields are short.
const maxTokenBytes = 4096

// ErrInvalid means that the token was not made by Sign with this secret.
var ErrInvalid = errors.New("unsubscribe link is not genuine")

// Claim is what a link says.
type Claim struct {
	Brand    string    // whose messages are not wanted any more
	Channel  string    // "email", "sms", ...
	Profile  string    // profile id that the message was sent to
	Address  string    // the address it was sent to
	Receipt  string    // receipt id of the message
	IssuedAt time.Time // UTC milliseconds
}

type wire struct {
	Brand    string `json:"b"`
	Channel  string `json:"c"`
	Profile  string `json:"p,omitempty"`
	Address  string `json:"a"`
	Receipt  string `json:"r,omitempty"`
	IssuedAt int64  `json:"i"`
}

// Sign makes the token of c. The same claim and secret give the same token. Text that is not UTF-8 comes back
// from Verify with U+FFFD in its place.
func Sign(secret []byte, c Claim) string {
	payload, err := json.Marshal(wire{c.Brand, c.Channel, c.Profile, c.Address, c.Receipt, c.IssuedAt.UnixMilli()})
	if err != nil {
		return "" // cannot be: strings and a number
	}
	text := version + "." + base64.RawURLEncoding.EncodeToString(payload)
	return text + "." + base64.RawURLEncoding.EncodeToString(mac(secret, text))
}

// URL is the link: base is the public address of the collector, such as https://shop.example.
func URL(base string, secret []byte, c Claim) string {
	return strings.TrimRight(base, "/") + Path + "?" + Parameter + "=" + Sign(secret, c)
}

// Verify reads a token; the error wraps ErrInvalid.
func Verify(secret []byte, token string) (Claim, error) {
	i := strings.LastIndexByte(token, '.')
	if i < 0 || len(token) > maxTokenBytes {
		return Claim{}, fmt.Errorf("%w: not a token", ErrInvalid)
	}
	sum, err := base64.RawURLEncoding.Strict().DecodeString(token[i+1:])
	if err != nil || !hmac.Equal(sum, mac(secret, token[:i])) {
		return Claim{}, fmt.Errorf("%w: the signature does not fit", ErrInvalid)
	}
	text, ok := strings.CutPrefix(token[:i], version+".")
	if !ok {
		return Claim{}, fmt.Errorf("%w: made by another version of Weft", ErrInvalid)
	}
	payload, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return Claim{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	var w wire
	if err := json.Unmarshal(payload, &w); err != nil {
		return Claim{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return Claim{w.Brand, w.Channel, w.Profile, w.Address, w.Receipt, time.UnixMilli(w.IssuedAt).UTC()}, nil
}

// mac separates the use of the secret from any other by the purpose in front.
func mac(secret []byte, text string) []byte {
	h := hmac.New(sha256.New, secret)
	h.Write([]byte("weft unsubscribe\x00"))
	h.Write([]byte(text))
	return h.Sum(nil)
}
