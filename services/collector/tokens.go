package collector

import (
	"context"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/weft-cdp/weft/pkg/store"
	"github.com/weft-cdp/weft/pkg/topic"
	"github.com/weft-cdp/weft/services/collector/hooks"
)

const (
	// tokenSlot is how long tokens are kept together: those of one hour, by the time that they were signed at, which nobody
	// can change, so that a token is always looked for where it was put.
	tokenSlot = time.Hour
	// maxSlotTokens bounds a slot: nine deliveries a second, the whole hour, in about 3 MB. What comes above it each collector
	// knows for itself. Only what a provider has signed takes room.
	maxSlotTokens = 1 << 15
	// tokenPatience is how long a delivery waits for Redis; then the process's own memory counts, as it does without Redis.
	tokenPatience = 500 * time.Millisecond
)

// tokens is what all collectors of a deployment know of webhooks' one-time tokens, in Redis: a hash for each source and hour,
// token to content. It is safe for concurrent use.
type tokens struct {
	store    *store.Client
	prefix   string
	script   *store.Script
	most     int
	patience time.Duration
	rarely   *zap.Logger
}

// keepFirst returns what was kept under a token first, or keeps it if there is nothing and there is room.
const keepFirst = `
local was = redis.call('HGET', KEYS[1], ARGV[1])
if was then return was end
if redis.call('HLEN', KEYS[1]) < tonumber(ARGV[3]) then
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
  redis.call('EXPIREAT', KEYS[1], ARGV[4])
end
return ARGV[2]`

func newTokens(st *store.Client, set topic.Set, log *zap.Logger) *tokens {
	return &tokens{store: st, prefix: set.Prefix + "hooks.tokens:", script: store.NewScript(keepFirst), most: maxSlotTokens, patience: tokenPatience, rarely: rarely(log)}
}

// of are those of one source; nil if there are none.
func (k *tokens) of(source string) hooks.Memory {
	if k == nil {
		return nil
	}
	return sourceTokens{k, source}
}

type sourceTokens struct {
	*tokens
	source string
}

// Keep implements hooks.Memory. It does not end with the request, so that whoever hangs up is not let in for that.
func (k sourceTokens) Keep(t hooks.Token) (content hooks.Hash, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), k.patience)
	defer cancel()
	slot := t.At.Truncate(tokenSlot)
	key := fmt.Sprintf("%s%s:%d", k.prefix, k.source, slot.Unix())
	was, err := k.script.Run(ctx, k.store, []string{key}, t.Token[:], t.Content[:], k.most, slot.Add(tokenSlot+t.Validity).Unix())
	if err != nil {
		k.rarely.Warn("what other collectors have seen of a webhook's tokens is not known; this one's own memory counts",
			zap.String("source", k.source), zap.Error(err))
		return content, err
	}
	copy(content[:], was.Bytes())
	return content, nil
}
