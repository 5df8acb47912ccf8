package demo

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net"
	"net/mail"
	"strings"
	"sync"
	"time"

	"github.com/emersion/go-smtp"
)

const (
	// maxMail bounds one mail.
	maxMail = 1 << 20
	// mailTimeout bounds one read or write of the mail server.
	mailTimeout = 30 * time.Second
	// maxDepth bounds parts within parts of a mail.
	maxDepth = 5
)

// Mail is one mail as it was received.
type Mail struct {
	At          time.Time
	To          string // address, as the envelope says, lower case
	From        string // as the header says
	Subject     string
	Text        string // the plain text part
	HTML        bool   // there is an HTML part too
	MessageID   string
	Unsubscribe string // the link of List-Unsubscribe; "" if there is none that one click may use
}

// Mailbox is a mail server that keeps everything. Safe for concurrent use.
type Mailbox struct {
	listener net.Listener
	server   *smtp.Server

	mu     sync.Mutex
	mails  []Mail
	faults []error
	notify func(Mail)
}

// OpenMailbox listens on an address such as 127.0.0.1:0. Run serves.
func OpenMailbox(address string) (*Mailbox, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("open the mailbox: %w", err)
	}
	m := &Mailbox{listener: l}
	m.server = smtp.NewServer(m)
	m.server.Domain = "mailbox.weft.demo"
	m.server.MaxMessageBytes = maxMail
	m.server.ErrorLog = log.New(io.Discard, "", 0) // a sender that is killed in the middle is no fault of the shop's
	m.server.ReadTimeout, m.server.WriteTimeout = mailTimeout, mailTimeout
	return m, nil
}

// Addr is where it listens, host:port.
func (m *Mailbox) Addr() string { return m.listener.Addr().String() }

// Run takes mail until ctx ends.
func (m *Mailbox) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = m.server.Close() }) // nobody is left to tell
	defer stop()
	if err := m.server.Serve(m.listener); err != nil && !errors.Is(err, smtp.ErrServerClosed) && ctx.Err() == nil {
		return fmt.Errorf("take mail: %w", err)
	}
	return nil
}

// Notify has f called with each mail from now on, and with those that are there already, one at a time.
func (m *Mailbox) Notify(f func(Mail)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.notify = f
	for _, x := range m.mails {
		f(x)
	}
}

// Mails returns what has come, in order, and what came and was no readable mail.
func (m *Mailbox) Mails() ([]Mail, []error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]Mail(nil), m.mails...), append([]error(nil), m.faults...)
}

// NewSession implements smtp.Backend.
func (m *Mailbox) NewSession(*smtp.Conn) (smtp.Session, error) { return &session{box: m}, nil }

// session is one connection.
type session struct {
	box *Mailbox
	to  []string
}

var _ smtp.Session = (*session)(nil)

func (s *session) Reset()                               { s.to = nil }
func (s *session) Logout() error                        { return nil }
func (s *session) Mail(string, *smtp.MailOptions) error { return nil }

func (s *session) Rcpt(to string, _ *smtp.RcptOptions) error {
	s.to = append(s.to, to)
	return nil
}

func (s *session) Data(r io.Reader) error {
	raw, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	s.box.keep(s.to, raw, time.Now())
	return nil
}

func (m *Mailbox) keep(to []string, raw []byte, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	x, err := readMail(raw)
	if err != nil {
		m.faults = append(m.faults, fmt.Errorf("mail to %s: %w", strings.Join(to, ", "), err))
		return
	}
	x.At = now
	for _, address := range to {
		x.To = lower(address)
		m.mails = append(m.mails, x)
		if m.notify != nil {
			m.notify(x)
		}
	}
}

func readMail(raw []byte) (Mail, error) {
	msg, err := mail.ReadMessage(bytes.NewReader(raw))
	if err != nil {
		return Mail{}, fmt.Errorf("read the header: %w", err)
	}
	words := new(mime.WordDecoder)
	x := Mail{MessageID: msg.Header.Get("Message-Id")}
	if x.Subject, err = words.DecodeHeader(msg.Header.Get("Subject")); err != nil {
		return Mail{}, fmt.Errorf("read the subject: %w", err)
	}
	if x.From, err = words.DecodeHeader(msg.Header.Get("From")); err != nil {
		return Mail{}, fmt.Errorf("read the sender: %w", err)
	}
	if strings.EqualFold(msg.Header.Get("List-Unsubscribe-Post"), "List-Unsubscribe=One-Click") {
		link := strings.TrimSpace(msg.Header.Get("List-Unsubscribe"))
		x.Unsubscribe = strings.TrimSuffix(strings.TrimPrefix(link, "<"), ">")
	}
	if err := x.part(msg.Header.Get("Content-Type"), msg.Header.Get("Content-Transfer-Encoding"), msg.Body, 0); err != nil {
		return Mail{}, err
	}
	if x.Text == "" {
		return Mail{}, errors.New("it has no text")
	}
	return x, nil
}

// part reads one part of a mail and those within it.
func (x *Mail) part(contentType, encoding string, body io.Reader, depth int) error {
	kind, params, err := mime.ParseMediaType(contentType)
	if err != nil {
		return fmt.Errorf("read the content type: %w", err)
	}
	if strings.HasPrefix(kind, "multipart/") && depth < maxDepth {
		parts := multipart.NewReader(body, params["boundary"])
		for {
			p, err := parts.NextRawPart()
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return fmt.Errorf("read a part: %w", err)
			}
			if err := x.part(p.Header.Get("Content-Type"), p.Header.Get("Content-Transfer-Encoding"), p, depth+1); err != nil {
				return err
			}
		}
	}
	switch lower(encoding) {
	case "quoted-printable":
		body = quotedprintable.NewReader(body)
	case "base64":
		body = base64.NewDecoder(base64.StdEncoding, body)
	}
	text, err := io.ReadAll(body)
	if err != nil {
		return fmt.Errorf("read a part of %s: %w", kind, err)
	}
	switch kind {
	case "text/plain":
		x.Text = strings.ReplaceAll(string(text), "\r\n", "\n")
	case "text/html":
		x.HTML = len(text) > 0
	}
	return nil
}
