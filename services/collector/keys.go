package collector

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"github.com/weft-cdp/weft/pkg/config"
)

// keys finds the source of a write key. Keys are compared by their hashes and in constant time, so that the
// time of an answer tells nothing about them.
type keys struct {
	hashes  [][sha256.Size]byte
	sources []*source
}

func newKeys(in *intake) (*keys, error) {
	k := &keys{}
	var errs []error
	for i, s := range in.cfg.Sources {
		if kind := s.KindOrDefault(); kind == config.KindKafka || kind == config.KindWebhook {
			continue
		}
		src, err := newSource(in, s)
		switch {
		case err != nil:
			errs = append(errs, err)
		case s.WriteKey == "" && len(s.WriteKeyHashes) == 0:
			errs = append(errs, fmt.Errorf("collector.sources[%d].write_key: empty", i))
		case s.Name == UnsubscribeSource:
			errs = append(errs, fmt.Errorf("collector.sources[%d].name: %q is the collector's own", i, s.Name))
		}
		if err == nil {
			in.know(src, nil)
		}
		if s.WriteKey != "" {
			k.add(sha256.Sum256([]byte(s.WriteKey)), src)
		}
		for _, text := range s.WriteKeyHashes {
			sum, err := config.ParseKeyHash(text)
			if err != nil {
				errs = append(errs, fmt.Errorf("source %s: write_key_hashes: %w", s.Name, err))
			}
			k.add(sum, src)
		}
	}
	return k, errors.Join(errs...)
}

func (k *keys) add(sum [sha256.Size]byte, src *source) {
	k.hashes = append(k.hashes, sum)
	k.sources = append(k.sources, src)
}

// find looks at all keys, always; nil: no source has it.
func (k *keys) find(key string) *source {
	hash := sha256.Sum256([]byte(key))
	at := -1
	for i := range k.hashes {
		if subtle.ConstantTimeCompare(hash[:], k.hashes[i][:]) == 1 {
			at = i
		}
	}
	if at < 0 || key == "" {
		return nil
	}
	return k.sources[at]
}

// headerKey reads the write key of an Authorization header: the user name of Basic (a missing colon is
// accepted), or a Bearer token. final says that no key in the body can count instead: with OAuth the token is
// not the write key, which then stands in the body.
func headerKey(header string) (key string, final bool) {
	scheme, rest, _ := strings.Cut(strings.TrimSpace(header), " ")
	rest = strings.TrimSpace(rest)
	switch strings.ToLower(scheme) {
	case "bearer":
		return rest, false
	case "basic":
		text, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(rest, "="))
		if err != nil {
			return "", false
		}
		user, _, _ := strings.Cut(string(text), ":")
		return user, user != ""
	}
	return "", false
}
