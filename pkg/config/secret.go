package config

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// SecretBytes is the length of every secret that Weft makes itself: the key and block length that
// HMAC-SHA256 is used with throughout.
const SecretBytes = 32

// LoadOrCreateSecret reads a secret of SecretBytes (hex, surrounding white space ignored) from path. If
// there is no file it makes one from the system's random source: mode 0600, missing directories 0700.
//
// Any number of processes may call it for the same path at once: all get the same secret. The file
// appears complete or not at all, also after a crash. A malformed file is an error that never holds the
// file's content, and the file is left alone, because a new key would make everything that was made with
// the old one unreadable.
func LoadOrCreateSecret(path string) ([]byte, error) {
	secret, err := readSecret(path)
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return secret, err
	}
	if err := createSecret(path); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("create secret %s: %w", path, err)
	}
	return readSecret(path) // ours, or that of whoever was first
}

func readSecret(path string) ([]byte, error) {
	text, err := os.ReadFile(path) //nolint:gosec // the path is the operator's configuration
	if err != nil {
		return nil, fmt.Errorf("read secret: %w", err)
	}
	secret, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(secret) != SecretBytes {
		return nil, fmt.Errorf("read secret %s: want %d hexadecimal digits", path, 2*SecretBytes)
	}
	return secret, nil
}

// createSecret writes a whole file beside path and links it into place: unlike a rename the link fails
// with fs.ErrExist where another process was first, and unlike O_EXCL on path itself nobody can read, nor
// a crash leave behind, a file without its content.
func createSecret(path string) (err error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	secret := make([]byte, SecretBytes)
	if _, err := rand.Read(secret); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(f.Name())) }()
	_, err = f.WriteString(hex.EncodeToString(secret) + "\n")
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Link(f.Name(), path)
}
