package unsubscribe

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// What Sign made is read as it was; whatever else comes in a link is ErrInvalid.
func FuzzToken(f *testing.F) {
	secret := []byte("0123456789abcdef")
	c := Claim{Brand: "main", Channel: "email", Profile: "p", Address: "a@b.example", Receipt: "r", IssuedAt: time.UnixMilli(1777890672123).UTC()}
	token := Sign(secret, c)
	f.Add(token, "main", "a@b.example", int64(5))
	f.Add(token[:len(token)-1], "", "", int64(0))
	f.Add(strings.Replace(token, ".", "", 1), "\x00", "ü", int64(-1))
	f.Add("..", ".", ".", int64(1))
	f.Fuzz(func(t *testing.T, text, brand, address string, at int64) {
		if got, err := Verify(secret, text); err == nil && Sign(secret, got) != text {
			t.Fatalf("%q is taken for %+v", text, got)
		}
		want := Claim{Brand: brand, Channel: "email", Address: address, IssuedAt: time.UnixMilli(at).UTC()}
		signed := Sign(secret, want)
		got, err := Verify(secret, signed)
		if len(signed) <= maxTokenBytes && utf8.ValidString(brand) && utf8.ValidString(address) && (err != nil || got != want) {
			t.Fatalf("%+v came back as %+v (%v)", want, got, err)
		}
		if _, err := Verify([]byte("another secret"), signed); err == nil {
			t.Fatal("signed with another secret, and taken")
		}
	})
}
