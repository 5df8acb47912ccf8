package demo

import (
	"context"
	"net/smtp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const twoParts = `From: =?utf-8?q?Caf=C3=A9?= <shop@example.com>
To: ada@example.com
Subject: =?utf-8?b?RGVpbiBXYXJlbmtvcmIg8J+bkg==?=
Message-ID: <1@example.com>
List-Unsubscribe: <http://door/v1/unsubscribe?t=x>
List-Unsubscribe-Post: List-Unsubscribe=One-Click
MIME-Version: 1.0
Content-Type: multipart/alternative; boundary=b

--b
Content-Type: text/plain; charset=utf-8
Content-Transfer-Encoding: quoted-printable

Tee f=C3=BCr zwei, sehr lang und umgebro=
chen
--b
Content-Type: text/html; charset=utf-8
Content-Transfer-Encoding: base64

PGI+VGVlPC9iPg==
--b--
`

func TestMailboxKeepsWhatItGets(t *testing.T) {
	box, err := OpenMailbox("127.0.0.1:0")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- box.Run(ctx) }()
	defer func() {
		cancel()
		require.NoError(t, <-done)
	}()
	send := func(text string) {
		text = strings.ReplaceAll(text, "\n", "\r\n")
		require.NoError(t, smtp.SendMail(box.Addr(), nil, "shop@example.com", []string{"Ada@example.com"}, []byte(text)))
	}
	send(twoParts)
	seen := make(chan Mail, 2)
	box.Notify(func(m Mail) { seen <- m })
	m := <-seen
	require.Equal(t, "ada@example.com", m.To)
	require.Equal(t, "Café <shop@example.com>", m.From)
	require.Equal(t, "Dein Warenkorb 🛒", m.Subject)
	require.Equal(t, "Tee für zwei, sehr lang und umgebrochen", strings.TrimSpace(m.Text))
	require.True(t, m.HTML)
	require.Equal(t, "http://door/v1/unsubscribe?t=x", m.Unsubscribe)
	require.WithinDuration(t, time.Now(), m.At, time.Minute)

	send(strings.Replace(twoParts, "List-Unsubscribe-Post: List-Unsubscribe=One-Click\n", "", 1))
	require.Empty(t, (<-seen).Unsubscribe, "not by one click")
	send("Subject: nothing\n\n")
	mails, unreadable := box.Mails()
	require.Len(t, mails, 2)
	require.Len(t, unreadable, 1)
}
