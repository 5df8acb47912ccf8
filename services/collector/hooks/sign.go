package hooks

import (
	"crypto/ecdsa"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"hash"
	"strconv"
	"strings"
	"time"
)

// signed says whether mac is the HMAC of parts, one after the other, with one of the secrets. All secrets are
// tried, and compared in constant time, so that the time of an answer tells nothing.
func signed(newHash func() hash.Hash, secrets [][]byte, mac []byte, parts ...[]byte) bool {
	ok := false
	for _, secret := range secrets {
		h := hmac.New(newHash, secret)
		for _, p := range parts {
			_, _ = h.Write(p) // never fails
		}
		if hmac.Equal(h.Sum(nil), mac) {
			ok = true
		}
	}
	return ok && len(mac) > 0
}

// base64Signed is signed for a signature in base64 of HMAC-SHA256 over the body, as shops send it.
func base64Signed(secrets [][]byte, signature string, body []byte) error {
	mac, err := base64.StdEncoding.DecodeString(strings.TrimSpace(signature))
	if err != nil || !signed(sha256.New, secrets, mac, body) {
		return ErrUnsigned
	}
	return nil
}

// inTime says whether a signature's own time, Unix seconds, is within tolerance of now.
func inTime(text string, now time.Time, tolerance time.Duration) bool {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return false
	}
	return now.Sub(time.Unix(n, 0)).Abs() <= tolerance
}

// publicKey reads a public key on an elliptic curve: PEM, or its base64 alone, as SendGrid shows it.
func publicKey(text []byte) (*ecdsa.PublicKey, error) {
	var der []byte
	if block, _ := pem.Decode(text); block != nil {
		der = block.Bytes
	} else {
		var err error
		if der, err = base64.StdEncoding.DecodeString(strings.TrimSpace(string(text))); err != nil {
			return nil, errors.New("is neither PEM nor base64")
		}
	}
	key, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, fmt.Errorf("read the public key: %w", err)
	}
	ec, ok := key.(*ecdsa.PublicKey)
	if !ok {
		return nil, fmt.Errorf("is a key of type %T, want one of ECDSA", key)
	}
	return ec, nil
}
