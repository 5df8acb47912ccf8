package smtp

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net"
	"net/mail"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	gosmtp "github.com/emersion/go-smtp"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/connector"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// server is a mail server in the process that refuses what it is told to.
type server struct {
	mu                        sync.Mutex
	rcptErr, dataErr, authErr error
	got                       []received
	addr                      string
}

type received struct {
	from, to string
	user     string
	data     []byte
}

func (s *server) NewSession(*gosmtp.Conn) (gosmtp.Session, error) { return &session{s: s}, nil }

type session struct {
	s *server
	r received
}

func (x *session) AuthMechanisms() []string { return []string{sasl.Plain} }

func (x *session) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, user, password string) error {
		if x.s.authErr != nil {
			return x.s.authErr
		}
		if password != "s3cret" {
			return errors.New("wrong password")
		}
		x.r.user = user
		return nil
	}), nil
}

func (x *session) Mail(from string, _ *gosmtp.MailOptions) error { x.r.from = from; return nil }
func (x *session) Rcpt(to string, _ *gosmtp.RcptOptions) error   { x.r.to = to; return x.s.rcptErr }
func (x *session) Reset()                                        {}
func (x *session) Logout() error                                 { return nil }

func (x *session) Data(r io.Reader) error {
	b, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	x.r.data = b
	x.s.mu.Lock()
	defer x.s.mu.Unlock()
	if x.s.dataErr == nil {
		x.s.got = append(x.s.got, x.r)
	}
	return x.s.dataErr
}

func start(t *testing.T, s *server, t2 *tls.Config) *server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	srv := gosmtp.NewServer(s)
	srv.AllowInsecureAuth = true
	srv.TLSConfig = t2
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(l) }()
	t.Cleanup(func() { _ = l.Close(); _ = srv.Close(); <-done })
	s.addr = l.Addr().String()
	return s
}

func cfg(addr string) config.SMTP {
	return config.SMTP{Address: addr, TLS: "none", HELO: "weft.example", Timeout: time.Minute}
}

func message() connector.Message {
	return connector.Message{
		ID: "6f1c6e1e-0000-5000-8000-000000000001", DecidedAt: time.Date(2026, 3, 14, 12, 0, 0, 0, time.UTC),
		From: "Your shop <shop@brand.example>", ReplyTo: "service@brand.example", To: "ada@example.com",
		Subject: "Zoë, your cart is waiting", Text: "Grüße\n.\nend", HTML: "<p>Grüße</p>",
		Headers: map[string]string{
			"List-Unsubscribe":      "<https://shop.example/v1/unsubscribe?t=" + strings.Repeat("u1.abc-_", 60) + ">",
			"List-Unsubscribe-Post": "List-Unsubscribe=One-Click", "Weft-Receipt": "r1", "X-Other": "no",
		},
	}
}

func TestRealMessage(t *testing.T) {
	srv := start(t, &server{}, nil)
	s, err := New(cfg(srv.addr))
	require.NoError(t, err)
	require.False(t, s.Idempotent())
	for range 2 {
		_, err = s.Send(t.Context(), message())
		require.NoError(t, err)
	}
	require.Len(t, srv.got, 2)
	require.Equal(t, "shop@brand.example", srv.got[0].from)
	require.Equal(t, "ada@example.com", srv.got[0].to)
	m, err := mail.ReadMessage(bytes.NewReader(srv.got[0].data))
	require.NoError(t, err)
	again, err := mail.ReadMessage(bytes.NewReader(srv.got[1].data))
	require.NoError(t, err)
	require.Equal(t, "<6f1c6e1e-0000-5000-8000-000000000001@brand.example>", m.Header.Get("Message-Id"))
	require.Equal(t, m.Header.Get("Message-Id"), again.Header.Get("Message-Id"))
	date, err := m.Header.Date()
	require.NoError(t, err)
	require.True(t, date.Equal(message().DecidedAt))
	require.Equal(t, message().Headers["List-Unsubscribe"], strings.Join(strings.Fields(m.Header.Get("List-Unsubscribe")), ""))
	require.Equal(t, "List-Unsubscribe=One-Click", m.Header.Get("List-Unsubscribe-Post"))
	require.Equal(t, "r1", m.Header.Get("Weft-Receipt"))
	require.Empty(t, m.Header.Get("X-Other"))
	subject, err := new(mime.WordDecoder).DecodeHeader(m.Header.Get("Subject"))
	require.NoError(t, err)
	require.Equal(t, message().Subject, subject)
	kind, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	require.NoError(t, err)
	require.Equal(t, "multipart/alternative", kind)
	parts := multipart.NewReader(m.Body, params["boundary"])
	for _, want := range []struct{ kind, body string }{{"text/plain", message().Text}, {"text/html", message().HTML}} {
		p, err := parts.NextRawPart()
		require.NoError(t, err)
		require.True(t, strings.HasPrefix(p.Header.Get("Content-Type"), want.kind))
		b, err := io.ReadAll(quotedprintable.NewReader(p))
		require.NoError(t, err)
		require.Equal(t, want.body, strings.ReplaceAll(strings.TrimSpace(string(b)), "\r\n", "\n"))
	}
}

func TestNothingInjectsHeaders(t *testing.T) {
	srv := start(t, &server{}, nil)
	s, err := New(cfg(srv.addr))
	require.NoError(t, err)
	const bad = "x\r\nBcc: eve@example.com"
	for name, change := range map[string]func(*connector.Message){
		"subject":  func(m *connector.Message) { m.Subject = bad },
		"to":       func(m *connector.Message) { m.To = "ada@example.com\r\nBcc: eve@example.com" },
		"two":      func(m *connector.Message) { m.To = "ada@example.com, eve@example.com" },
		"from":     func(m *connector.Message) { m.From = "a@b.c\nBcc: eve@example.com" },
		"reply_to": func(m *connector.Message) { m.ReplyTo = "a@b.c\nBcc: eve@example.com" },
		"header":   func(m *connector.Message) { m.Headers["List-Unsubscribe"] = bad },
		"id":       func(m *connector.Message) { m.ID = bad },
	} {
		m := message()
		change(&m)
		_, err := s.Send(t.Context(), m)
		require.Equal(t, connector.Permanent, connector.ClassOf(err), "%s: %v", name, err)
	}
	require.Empty(t, srv.got)
}

func TestAnswersAreToldApart(t *testing.T) {
	for name, c := range map[string]struct {
		srv  *server
		want connector.Class
	}{
		"no such mailbox":       {&server{rcptErr: &gosmtp.SMTPError{Code: 550, Message: "no such user"}}, connector.Permanent},
		"greylisted":            {&server{rcptErr: &gosmtp.SMTPError{Code: 451, Message: "come back"}}, connector.Transient},
		"content refused":       {&server{dataErr: &gosmtp.SMTPError{Code: 554, Message: "spam"}}, connector.Permanent},
		"disk full":             {&server{dataErr: &gosmtp.SMTPError{Code: 452, Message: "full"}}, connector.Transient},
		"our password fits not": {&server{authErr: &gosmtp.SMTPError{Code: 535, Message: "no"}}, connector.Transient},
	} {
		t.Run(name, func(t *testing.T) {
			srv := start(t, c.srv, nil)
			conf := cfg(srv.addr)
			conf.Username = "weft"
			conf.PasswordFile = filepath.Join(t.TempDir(), "password")
			require.NoError(t, os.WriteFile(conf.PasswordFile, []byte("s3cret\n"), 0o600))
			s, err := New(conf)
			require.NoError(t, err)
			_, err = s.Send(t.Context(), message())
			require.Equal(t, c.want, connector.ClassOf(err), "%v", err)
			require.NotContains(t, err.Error(), "s3cret")
		})
	}
}

// script is a server that says each line after it has read one, then closes; "." as a line to wait for
// means the end of the data.
func script(t *testing.T, answers ...string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer func() { _ = conn.Close() }()
		r := bufio.NewReader(conn)
		_, _ = io.WriteString(conn, "220 hello\r\n")
		for _, a := range answers {
			line, err := r.ReadString('\n')
			for err == nil && a == "END" && line != ".\r\n" {
				line, err = r.ReadString('\n')
			}
			if err != nil || a == "END" {
				return
			}
			_, _ = io.WriteString(conn, a+"\r\n")
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
	return l.Addr().String()
}

func TestConnectionCut(t *testing.T) {
	for name, c := range map[string]struct {
		addr string
		want connector.Class
	}{
		"nobody listens":           {"127.0.0.1:1", connector.Transient},
		"before the envelope":      {script(t, "250 ok"), connector.Transient},
		"before the data":          {script(t, "250 ok", "250 ok", "250 ok"), connector.Transient},
		"after the end of data":    {script(t, "250 ok", "250 ok", "250 ok", "354 go", "END"), connector.Unknown},
		"server shuts down at 421": {script(t, "250 ok", "421 closing"), connector.Transient},
		"we are blocked":           {script(t, "554 go away"), connector.Transient},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := New(cfg(c.addr))
			require.NoError(t, err)
			_, err = s.Send(t.Context(), message())
			require.Equal(t, c.want, connector.ClassOf(err), "%v", err)
		})
	}
}

func TestNoAnswerInTime(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // takes connections into its backlog, and says nothing
	require.NoError(t, err)
	defer func() { _ = l.Close() }()
	conf := cfg(l.Addr().String())
	conf.Timeout = 50 * time.Millisecond
	s, err := New(conf)
	require.NoError(t, err)
	_, err = s.Send(t.Context(), message())
	require.Equal(t, connector.Transient, connector.ClassOf(err), "%v", err)
	stopped, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = s.Send(stopped, message())
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, connector.Transient, connector.ClassOf(err))
}

func TestStartTLSIsNotOptional(t *testing.T) {
	srv := start(t, &server{}, nil) // offers none
	conf := cfg(srv.addr)
	conf.TLS = "starttls"
	s, err := New(conf)
	require.NoError(t, err)
	_, err = s.Send(t.Context(), message())
	require.ErrorContains(t, err, "STARTTLS")
	require.Empty(t, srv.got)
}

func TestOverTLS(t *testing.T) {
	cert, pool := certificate(t)
	srv := start(t, &server{}, &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12})
	conf := cfg(srv.addr)
	conf.TLS, conf.Username, conf.PasswordFile = "starttls", "weft", filepath.Join(t.TempDir(), "password")
	require.NoError(t, os.WriteFile(conf.PasswordFile, []byte("s3cret"), 0o600))
	s, err := New(conf)
	require.NoError(t, err)
	_, err = s.Send(t.Context(), message())
	require.ErrorContains(t, err, "certificate", "an unknown authority is not trusted")
	s.tls.RootCAs = pool
	_, err = s.Send(t.Context(), message())
	require.NoError(t, err)
	require.Equal(t, "weft", srv.got[0].user)
}

func certificate(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	require.NoError(t, err)
	leaf, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

func TestNewRefuses(t *testing.T) {
	for _, change := range []func(*config.SMTP){
		func(c *config.SMTP) { c.Address = "mail" },
		func(c *config.SMTP) { c.TLS = "maybe" },
		func(c *config.SMTP) { c.Timeout = 0 },
		func(c *config.SMTP) { c.Address, c.Username = "mail.example:25", "u" },
		func(c *config.SMTP) { c.PasswordFile = "/does/not/exist" },
	} {
		c := cfg("127.0.0.1:25")
		change(&c)
		_, err := New(c)
		require.ErrorContains(t, err, "activator.smtp.")
	}
}
