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

// typeField, and the name of a type behind it, is the field that holds the type's rank and scope.
const typeField = "identity_type:"

// ErrOtherTypes means that a type of identifier has another rank or scope than when the deployment was started.
var ErrOtherTypes = errors.New("the identity rules would give people other ids than they have")

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
	return checkFingerprint(ctx, facts, deployment, Fingerprint(key))
}

func checkFingerprint(ctx context.Context, facts Facts, deployment, mine string) error {
	got, err := facts.Fact(ctx, deployment, keyField, mine)
	if err != nil {
		return fmt.Errorf("check the identity key: %w", err)
	}
	if got != mine {
		return fmt.Errorf("%w: fingerprint %s, the deployment's is %s; give identity.key_file the file that the first service made", ErrOtherKey, mine, got)
	}
	return nil
}

// CheckTypes compares rank and scope of each type of the rules with those of the deployment; the first service to come
// with a type writes them. ErrOtherTypes: refuse to start, since the same people would have other ids. Any other error is
// transient.
func CheckTypes(ctx context.Context, facts Facts, deployment string, r *Rules) error {
	for _, t := range r.types {
		mine := fmt.Sprintf("rank %#x %s", t.Rank, t.Scope)
		got, err := facts.Fact(ctx, deployment, typeField+t.Name, mine)
		if err != nil {
			return fmt.Errorf("check the identity rules: %w", err)
		}
		if got != mine {
			return fmt.Errorf("%w: type %s has %s, the deployment's %s; give it back what it had, or move to a new deployment with 'weft rebuild' (see docs/identity.md)",
				ErrOtherTypes, t.Name, mine, got)
		}
	}
	return nil
}

// Admit is CheckKey and CheckTypes for a stage to ask at its start: what must not start is an error that wraps fatal too.
func Admit(facts Facts, deployment string, r *Rules, fatal error) func(context.Context) error {
	return func(ctx context.Context) error {
		err := checkFingerprint(ctx, facts, deployment, r.fingerprint)
		if err == nil {
			err = CheckTypes(ctx, facts, deployment, r)
		}
		if errors.Is(err, ErrOtherKey) || errors.Is(err, ErrOtherTypes) {
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
