//go:build integration

package e2e

import (
	"bytes"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net"
	"net/mail"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/stretchr/testify/require"
)

// letter is one mail as the server was handed it.
type letter struct {
	to        string
	at        time.Time
	header    mail.Header
	subject   string
	text      string
	html      string
	messageID string // what stands before the @
}

// mailbox is a mail server that keeps what it is handed. Safe for concurrent use.
type mailbox struct {
	t       *testing.T
	address string

	mu      sync.Mutex
	letters []letter
	onData  func() // called before a message is taken; may block
}

// receiveMail starts a mail server that ends with the test.
func receiveMail(t *testing.T) *mailbox {
	t.Helper()
	m := &mailbox{t: t}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	m.address = l.Addr().String()
	s := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return &session{box: m}, nil }))
	s.Domain = "mail.example"
	s.ErrorLog = quiet{}
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		_ = s.Close() // Serve tells
		<-done
	})
	return m
}

// quiet drops the server's complaints about senders that were killed.
type quiet struct{}

func (quiet) Printf(string, ...any) {}
func (quiet) Println(...any)        {}

// before has f called before each message is taken.
func (m *mailbox) before(f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.onData = f
}

// all are the letters received so far, in order.
func (m *mailbox) all() []letter {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]letter(nil), m.letters...)
}

// to are the letters to one address.
func (m *mailbox) to(address string) []letter {
	var out []letter
	for _, l := range m.all() {
		if strings.EqualFold(l.to, address) {
			out = append(out, l)
		}
	}
	return out
}

// session is one connection.
type session struct {
	box *mailbox
	to  []string
}

func (s *session) Mail(string, *smtp.MailOptions) error { return nil }

func (s *session) Rcpt(to string, _ *smtp.RcptOptions) error {
	s.to = append(s.to, to)
	return nil
}

func (s *session) Reset()        { s.to = nil }
func (s *session) Logout() error { return nil }

// Data takes a message. Whatever came whole counts as received, also if the sender never learns it.
func (s *session) Data(r io.Reader) error {
	raw, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	s.box.mu.Lock()
	before := s.box.onData
	s.box.mu.Unlock()
	if before != nil {
		before()
	}
	l, err := read(raw)
	if err != nil {
		return err
	}
	l.to, l.at = strings.Join(s.to, ","), time.Now()
	s.box.mu.Lock()
	defer s.box.mu.Unlock()
	s.box.letters = append(s.box.letters, l)
	return nil
}

// read takes a message apart; it must be text and HTML, both readable.
func read(raw []byte) (letter, error) {
	m, err := mail.ReadMessage(bytes.NewReader(raw))
	if err != nil {
		return letter{}, err
	}
	l := letter{header: m.Header}
	if l.subject, err = new(mime.WordDecoder).DecodeHeader(m.Header.Get("Subject")); err != nil {
		return letter{}, err
	}
	id, _, ok := strings.Cut(strings.Trim(m.Header.Get("Message-Id"), "<>"), "@")
	if !ok {
		return letter{}, fmt.Errorf("Message-ID: %q", m.Header.Get("Message-Id"))
	}
	l.messageID = id
	kind, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/alternative" {
		return letter{}, fmt.Errorf("a mail of type %q: %w", kind, err)
	}
	for parts := multipart.NewReader(m.Body, params["boundary"]); ; {
		p, err := parts.NextRawPart()
		if err == io.EOF { //nolint:errorlint // its documented end
			return l, nil
		}
		if err != nil {
			return letter{}, err
		}
		var body io.Reader = p
		if p.Header.Get("Content-Transfer-Encoding") == "quoted-printable" {
			body = quotedprintable.NewReader(p)
		}
		text, err := io.ReadAll(body)
		if err != nil {
			return letter{}, err
		}
		if strings.HasPrefix(p.Header.Get("Content-Type"), "text/html") {
			l.html = string(text)
		} else {
			l.text = string(text)
		}
	}
}
