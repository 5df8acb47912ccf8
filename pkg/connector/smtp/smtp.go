// Package smtp hands messages to a mail server.
//
// It owns: the MIME message and the dialog with the server. It guarantees that a message is a real
// multipart/alternative of text and HTML with the same Message-ID however often it is tried, that nothing
// in a message can add a header or recipient, and that failures are told apart: refused, surely not
// taken, and unknown, which is when the end of the message was sent and no answer came. SMTP has no key by
// which a server would know a repetition, so it is not idempotent. It must not know journeys or receipts.
package smtp

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/mail"
	"os"
	"strings"
	"time"
	"unicode"

	"github.com/emersion/go-sasl"
	gosmtp "github.com/emersion/go-smtp"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/connector"
)

// TLS modes of the configuration.
const (
	tlsNone     = "none"
	tlsStartTLS = "starttls"
	tlsImplicit = "tls"
)

// Sender hands mail to one server, a connection per message. It is safe for concurrent use.
type Sender struct {
	cfg      config.SMTP
	host     string
	password string
	tls      *tls.Config
}

var _ connector.Sender = (*Sender)(nil)

// New validates cfg and reads the password; it connects to nothing.
func New(cfg config.SMTP) (*Sender, error) {
	host, _, err := net.SplitHostPort(cfg.Address)
	if err != nil {
		return nil, fmt.Errorf("activator.smtp.address: %w", err)
	}
	s := &Sender{cfg: cfg, host: host, tls: &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12}}
	switch cfg.TLS {
	case tlsNone:
		if ip := net.ParseIP(host); cfg.Username != "" && host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			return nil, errors.New("activator.smtp.tls: none would send the password in the clear; want starttls or tls")
		}
	case tlsStartTLS, tlsImplicit:
	default:
		return nil, fmt.Errorf("activator.smtp.tls: %q: want none, starttls or tls", cfg.TLS)
	}
	if cfg.Timeout <= 0 {
		return nil, errors.New("activator.smtp.timeout: want more than 0")
	}
	if cfg.PasswordFile != "" {
		b, err := os.ReadFile(cfg.PasswordFile)
		if err != nil {
			return nil, fmt.Errorf("activator.smtp.password_file: %w", err)
		}
		s.password = strings.TrimSpace(string(b))
	}
	return s, nil
}

// Idempotent is false: see the package.
func (s *Sender) Idempotent() bool { return false }

// Send hands one message over within the configured time. ctx can stop it before it has begun; afterwards
// it goes on, because a dialog that is cut off leaves a message of which nobody knows.
func (s *Sender) Send(ctx context.Context, m connector.Message) (connector.Result, error) {
	if err := ctx.Err(); err != nil {
		return connector.Result{}, connector.Fail(connector.Transient, "send: %w", err)
	}
	msg, err := s.compose(m)
	if err != nil {
		return connector.Result{}, err
	}
	deadline := time.Now().Add(s.cfg.Timeout)
	ctx, cancel := context.WithDeadline(context.WithoutCancel(ctx), deadline)
	defer cancel()
	c, err := s.connect(ctx, deadline)
	if err != nil {
		// Trouble before the envelope is the server's or ours, never this recipient's: whatever its code, it
		// may pass.
		return connector.Result{}, connector.Fail(connector.Transient, "reach %s: %w", s.cfg.Address, err)
	}
	defer func() { _ = c.Close() }()
	result, err := submit(c, msg)
	if err == nil {
		_ = c.Quit() // the message is taken, whatever becomes of the farewell
	}
	return result, err
}

// connect opens a connection that is ready for an envelope.
func (s *Sender) connect(ctx context.Context, deadline time.Time) (*gosmtp.Client, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", s.cfg.Address)
	if err != nil {
		return nil, err
	}
	conn = &deadlineConn{Conn: conn, deadline: deadline}
	var c *gosmtp.Client
	switch s.cfg.TLS {
	case tlsImplicit:
		t := tls.Client(conn, s.tls)
		if err := t.HandshakeContext(ctx); err != nil {
			_ = conn.Close()
			return nil, fmt.Errorf("tls: %w", err)
		}
		c = gosmtp.NewClient(t)
	case tlsStartTLS:
		// It greets as localhost before the handshake and as ourselves after it.
		if c, err = gosmtp.NewClientStartTLS(conn, s.tls); err != nil {
			_ = conn.Close()
			return nil, fmt.Errorf("starttls: %w", err)
		}
	default:
		c = gosmtp.NewClient(conn)
	}
	if err := s.greet(c); err != nil {
		_ = c.Close()
		return nil, err
	}
	return c, nil
}

func (s *Sender) greet(c *gosmtp.Client) error {
	if err := c.Hello(s.cfg.HELO); err != nil {
		return fmt.Errorf("hello: %w", err)
	}
	if s.cfg.Username == "" {
		return nil
	}
	_, mechanisms := c.Extension("AUTH")
	auth := sasl.NewPlainClient("", s.cfg.Username, s.password)
	if offered := strings.Fields(strings.ToUpper(mechanisms)); !has(offered, "PLAIN") && has(offered, "LOGIN") {
		auth = sasl.NewLoginClient(s.cfg.Username, s.password)
	}
	if err := c.Auth(auth); err != nil {
		return fmt.Errorf("log in: %w", err)
	}
	return nil
}

func has(list []string, want string) bool {
	for _, s := range list {
		if s == want {
			return true
		}
	}
	return false
}

// submit sends envelope and message.
func submit(c *gosmtp.Client, m *composed) (connector.Result, error) {
	var opts gosmtp.MailOptions
	if !isASCII(m.from) || !isASCII(m.to) {
		if ok, _ := c.Extension("SMTPUTF8"); !ok {
			return connector.Result{}, connector.Fail(connector.Permanent, "send to %s: the server takes ASCII addresses only", m.to)
		}
		opts.UTF8 = true
	}
	if err := c.Mail(m.from, &opts); err != nil {
		return connector.Result{}, classify(err, "sender "+m.from)
	}
	if err := c.Rcpt(m.to, nil); err != nil {
		return connector.Result{}, classify(err, "recipient")
	}
	w, err := c.Data()
	if err != nil {
		return connector.Result{}, classify(err, "data")
	}
	if _, err := w.Write(m.bytes); err != nil {
		// The end of the data was not sent: the server must throw away what it has (RFC 5321 4.1.1.4).
		return connector.Result{}, connector.Fail(connector.Transient, "data: %w", err)
	}
	r, err := w.CloseWithResponse()
	var answer *gosmtp.SMTPError
	switch {
	case errors.As(err, &answer):
		return connector.Result{}, classify(err, "message")
	case err != nil:
		return connector.Result{}, connector.Fail(connector.Unknown, "wait for the answer to the message: %w", err)
	}
	return connector.Result{Detail: r.StatusText}, nil
}

// classify reads an answer of the server: 5yz is for good, anything else may pass.
func classify(err error, what string) error {
	var answer *gosmtp.SMTPError
	if errors.As(err, &answer) && answer.Code >= 500 && answer.Code < 600 {
		return connector.Fail(connector.Permanent, "%s: %d %w", what, answer.Code, err)
	}
	e := connector.Fail(connector.Transient, "%s: %w", what, err)
	e.Own = answer != nil && answer.Code != serviceClosing
	return e
}

// serviceClosing is the answer of a server that shuts down, to whatever it was asked (RFC 5321 3.8).
const serviceClosing = 421

func isASCII(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r > unicode.MaxASCII })
}

// plain is the bare address of s.
func plain(s string) (string, error) {
	a, err := mail.ParseAddress(s)
	if err != nil {
		return "", err
	}
	return a.Address, nil
}

// deadlineConn never waits beyond its deadline, whatever the protocol above it sets.
type deadlineConn struct {
	net.Conn
	deadline time.Time
}

func (c *deadlineConn) cap(t time.Time) time.Time {
	if t.IsZero() || t.After(c.deadline) {
		return c.deadline
	}
	return t
}

func (c *deadlineConn) SetDeadline(t time.Time) error      { return c.Conn.SetDeadline(c.cap(t)) }
func (c *deadlineConn) SetReadDeadline(t time.Time) error  { return c.Conn.SetReadDeadline(c.cap(t)) }
func (c *deadlineConn) SetWriteDeadline(t time.Time) error { return c.Conn.SetWriteDeadline(c.cap(t)) }
