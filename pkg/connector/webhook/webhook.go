// Package webhook hands messages to a receiver of the operator's over HTTP.
//
// It owns: the request, its signature and the check of where it goes. It guarantees that every try of a
// message carries the same Idempotency-Key, that a request only ever goes to a public address unless the
// operator allows others (checked when connecting, after the name was resolved, so that a name which
// changes its mind gains nothing), that no redirect and no proxy is followed, and that failures are told
// apart. It must not know journeys or receipts.
//
// # The request
//
// POST with the message as JSON, and the headers
//
//	Idempotency-Key: <message id>
//	Weft-Signature: t=<unix seconds>,v1=<hex of HMAC-SHA256(secret, t + "." + body)>
//
// The receiver computes the same over the bytes it got, compares in constant time, and refuses an old t.
// 2xx means taken. 408, 425, 429 and 5xx are tried again, Retry-After is respected; anything else is for
// good, redirects included.
package webhook

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/connector"
)

// Header names of a request.
const (
	HeaderKey       = "Idempotency-Key"
	HeaderSignature = "Weft-Signature"
)

const (
	// maxAnswer is how much of an answer is read: enough to say why, and to use the connection again.
	maxAnswer = 4 << 10
	// maxRetryAfter bounds the receiver's wish.
	maxRetryAfter = 5 * time.Minute
	// minSecret is the shortest secret taken: shorter ones can be guessed.
	minSecret = 16
)

// Sender hands messages to one receiver. It is safe for concurrent use.
type Sender struct {
	url    string
	secret []byte
	client *http.Client
	now    func() time.Time
}

var _ connector.Sender = (*Sender)(nil)

// New validates cfg and reads the secret; it connects to nothing. now is the clock of the signature.
func New(cfg config.Webhook, now func() time.Time) (*Sender, error) {
	u, err := url.Parse(cfg.URL)
	if err != nil {
		return nil, fmt.Errorf("activator.webhook.url: %w", err)
	}
	switch {
	case u.Host == "" || u.User != nil:
		return nil, errors.New("activator.webhook.url: want https://host/path, without a user")
	case u.Scheme == "http" && cfg.AllowPrivate, u.Scheme == "https":
	default:
		return nil, errors.New("activator.webhook.url: want https (http only with allow_private)")
	}
	if ip, err := netip.ParseAddr(u.Hostname()); err == nil && !cfg.AllowPrivate && !public(ip) {
		return nil, fmt.Errorf("activator.webhook.url: %w: %s", ErrForbidden, ip)
	}
	if cfg.Timeout <= 0 {
		return nil, errors.New("activator.webhook.timeout: want more than 0")
	}
	secret, err := os.ReadFile(cfg.SecretFile)
	if err != nil {
		return nil, fmt.Errorf("activator.webhook.secret_file: %w", err)
	}
	secret = bytes.TrimSpace(secret)
	if len(secret) < minSecret {
		return nil, fmt.Errorf("activator.webhook.secret_file: want at least %d characters", minSecret)
	}
	return &Sender{url: cfg.URL, secret: secret, client: client(cfg), now: now}, nil
}

func client(cfg config.Webhook) *http.Client {
	d := &net.Dialer{Timeout: cfg.Timeout}
	if !cfg.AllowPrivate {
		d.Control = refusePrivate
	}
	return &http.Client{
		Timeout: cfg.Timeout,
		Transport: &http.Transport{ // Proxy nil: one from the environment would connect for us, unchecked
			DialContext:         d.DialContext,
			TLSHandshakeTimeout: cfg.Timeout,
			MaxIdleConnsPerHost: 8,
			IdleConnTimeout:     time.Minute,
			ForceAttemptHTTP2:   true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// ErrForbidden means that the receiver's name leads to an address inside.
var ErrForbidden = errors.New("receiver is not at a public address")

// refusePrivate runs with the very address that is connected to.
func refusePrivate(_, address string, _ syscall.RawConn) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("%w: %s", ErrForbidden, address)
	}
	if !public(ap.Addr()) {
		return fmt.Errorf("%w: %s", ErrForbidden, ap.Addr())
	}
	return nil
}

// forbidden are the networks of RFC 6890 and IANA's registries that are no public hosts, and those whose
// addresses contain another one (6to4, Teredo, NAT64).
func forbidden() []netip.Prefix {
	var ps []netip.Prefix
	for _, s := range []string{
		"0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "198.18.0.0/15",
		"198.51.100.0/24", "203.0.113.0/24", "240.0.0.0/4",
		"64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20", "5f00::/16", "fec0::/10",
	} {
		ps = append(ps, netip.MustParsePrefix(s))
	}
	return ps
}

func public(ip netip.Addr) bool {
	ip = ip.Unmap().WithZone("")
	if !ip.IsGlobalUnicast() || ip.IsPrivate() { // loopback, link-local (169.254.169.254 too), multicast
		return false
	}
	if ip.Is6() && netip.MustParsePrefix("::/96").Contains(ip) { // IPv4-compatible
		return false
	}
	for _, p := range forbidden() {
		if p.Contains(ip) {
			return false
		}
	}
	return true
}

// Idempotent is true: see the package.
func (s *Sender) Idempotent() bool { return true }

// Send posts one message.
func (s *Sender) Send(ctx context.Context, m connector.Message) (connector.Result, error) {
	var written atomic.Bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{WroteRequest: func(i httptrace.WroteRequestInfo) {
		if i.Err == nil {
			written.Store(true)
		}
	}})
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url, bytes.NewReader(m.Payload))
	if err != nil {
		return connector.Result{}, connector.Fail(connector.Permanent, "make request: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "weft")
	req.Header.Set(HeaderKey, m.ID)
	req.Header.Set(HeaderSignature, Sign(s.secret, s.now(), m.Payload))
	resp, err := s.client.Do(req)
	if err != nil {
		class := connector.Transient
		switch {
		case errors.Is(err, ErrForbidden):
			class = connector.Permanent
		case written.Load():
			class = connector.Unknown
		}
		return connector.Result{}, connector.Fail(class, "post: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxAnswer)) // the status has said it all
	return judge(resp, string(body), s.now())
}

// judge reads an answer.
func judge(resp *http.Response, body string, now time.Time) (connector.Result, error) {
	said := strings.TrimSpace(resp.Status + " " + strings.Join(strings.Fields(body), " "))
	switch code := resp.StatusCode; {
	case code >= 200 && code < 300:
		return connector.Result{Detail: resp.Status}, nil
	case code == http.StatusRequestTimeout, code == http.StatusTooEarly, code == http.StatusTooManyRequests, code >= 500:
		e := connector.Fail(connector.Transient, "receiver answers %s", said)
		e.RetryAfter = retryAfter(resp.Header.Get("Retry-After"), now)
		return connector.Result{}, e
	default:
		return connector.Result{}, connector.Fail(connector.Permanent, "receiver answers %s", said)
	}
}

// retryAfter reads seconds or a date; 0 if there is none.
func retryAfter(v string, now time.Time) time.Duration {
	var d time.Duration
	if n, err := strconv.Atoi(v); err == nil {
		d = time.Duration(min(n, int(maxRetryAfter/time.Second))) * time.Second
	} else if t, err := http.ParseTime(v); err == nil {
		d = t.Sub(now)
	}
	return max(0, min(d, maxRetryAfter))
}

// Sign is the value of the signature header for a body sent at t.
func Sign(secret []byte, t time.Time, body []byte) string {
	ts := strconv.FormatInt(t.Unix(), 10)
	h := hmac.New(sha256.New, secret)
	h.Write([]byte(ts + "."))
	h.Write(body)
	return "t=" + ts + ",v1=" + hex.EncodeToString(h.Sum(nil))
}

// ErrSignature means that a request was not made by whoever has the secret, or is too old.
var ErrSignature = errors.New("signature does not fit")

// Verify checks a signature header, for receivers written in Go and for tests. Requests older than
// maxAge are refused.
func Verify(secret []byte, header string, body []byte, now time.Time, maxAge time.Duration) error {
	ts, _, ok := strings.Cut(strings.TrimPrefix(header, "t="), ",v1=")
	sec, err := strconv.ParseInt(ts, 10, 64)
	if !ok || err != nil {
		return fmt.Errorf("%w: malformed", ErrSignature)
	}
	t := time.Unix(sec, 0)
	if now.Sub(t).Abs() > maxAge {
		return fmt.Errorf("%w: made at %s", ErrSignature, t.UTC().Format(time.RFC3339))
	}
	if !hmac.Equal([]byte(header), []byte(Sign(secret, t, body))) {
		return ErrSignature
	}
	return nil
}
