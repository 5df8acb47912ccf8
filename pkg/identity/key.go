package identity

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
)

// KeyBytes is the length of the secret that node ids are hashed with.
const KeyBytes = 32

// keyField is the field, among the facts of a deployment, that holds the fingerprint of its key.
const keyField = "identity_key"

// ErrOtherKey means that the deployment's identifiers were hashed with another key than the one at hand.
var ErrOtherKey = errors.New("the identity key is not the one this deployment was started with")

// Facts holds what is fixed for a deployment's life; *store.Client does.
type Facts interface {
	// Fact writes value into a field unless it has one, and returns what stands there then.
	Fact(ctx context.Context, key, field, value string) (string, error)
}

// CheckKey compares the fingerprint of key with that of the deployment whose facts stand at facts key
// deployment; the first service to come writes it. ErrOtherKey: refuse to start, since another key makes
// other nodes of the same people. Any other error is transient.
func CheckKey(ctx context.Context, facts Facts, deployment string, key []byte) error {
	mine := Fingerprint(key)
	got, err := facts.Fact(ctx, deployment, keyField, mine)
	if err != nil {
		return fmt.Errorf("check the identity key: %w", err)
	}
	if got != mine {
		return fmt.Errorf("%w: fingerprint %s, the deployment's is %s; give identity.key_file the file that the first service made", ErrOtherKey, mine, got)
	}
	return nil
}

// KeyCheck is CheckKey for a stage to ask at its start: another key is an error that wraps fatal too.
func KeyCheck(facts Facts, deployment string, key []byte, fatal error) func(context.Context) error {
	return func(ctx context.Context) error {
		err := CheckKey(ctx, facts, deployment, key)
		if errors.Is(err, ErrOtherKey) {
			return fmt.Errorf("%w: %w", fatal, err)
		}
		return err
	}
}

// Fingerprint names a key without giving it away.
func Fingerprint(key []byte) string {
	m := hmac.New(sha256.New, key)
	m.Write([]byte("weft identity key fingerprint"))
	return hex.EncodeToString(m.Sum(nil)[:16])
}
