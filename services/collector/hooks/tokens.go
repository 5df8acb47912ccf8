package hooks

import (
	"crypto/sha256"
	"sync"
	"time"
)

// maxTokens bounds each of the two halves of tokens: both together take about 20 MB at most, and hold what a provider
// sends in 25 hours at three events a second, or in 45 minutes at a hundred.
const maxTokens = 1 << 17

// tokens remembers what came under which one-time token, for signatures that cover the token and not the content: who
// has seen one delivery could otherwise put anything in its place. Safe for concurrent use; its zero value, with most
// set, is ready. It knows what this process has seen, and of that the newest.
type tokens struct {
	most int

	mu         sync.Mutex
	young, old map[Hash]Hash // token -> content, by their hashes
	since      time.Time     // of young
}

// hashBytes is how much of a SHA-256 is kept: 128 bits, so that nobody finds two contents of one hash for a token that
// he may use for 25 hours.
const hashBytes = 16

// Hash is that of a token or of a content.
type Hash [hashBytes]byte

func hashed(b []byte) Hash {
	sum := sha256.Sum256(b)
	return Hash(sum[:hashBytes])
}

// fits says whether a token may stand for a content, by their hashes: it is new, or came with the same, as it does when a provider sends
// again. What is older than validity is refused by its time, and need not be known.
func (t *tokens) fits(key, value Hash, now time.Time, validity time.Duration) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.young) >= t.most || now.Sub(t.since) > 2*validity { // a signature's time may be as far ahead as behind
		t.old, t.young, t.since = t.young, make(map[Hash]Hash), now
	}
	for _, half := range []map[Hash]Hash{t.young, t.old} {
		if was, ok := half[key]; ok {
			return was == value
		}
	}
	t.young[key] = value
	return true
}
