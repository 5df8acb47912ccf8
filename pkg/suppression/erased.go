package suppression

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/event"
	"github.com/weft-cdp/weft/pkg/identity"
	"github.com/weft-cdp/weft/pkg/store"
)

const (
	// lookEvery is the pause between two looks at the register: a round trip of three short commands.
	lookEvery = time.Second
	// lookTimeout bounds one look.
	lookTimeout = 3 * time.Second
	// Bound is how long after Register.Add everybody who follows it has taken it, as long as Redis answers: a pause, a look, and
	// the taking of a long list.
	Bound = 5 * time.Second
)

// Erased is the register as it was read last. One goroutine calls Refresh or Run; any may ask. It is nobody until the first
// reading.
type Erased struct {
	register *Register
	load     func(ctx context.Context) (*identity.Rules, error)

	mu sync.Mutex // of Refresh
	at mark

	rules atomic.Pointer[identity.Rules] // there as soon as anybody is
	nodes atomic.Pointer[map[identity.Node]struct{}]
	read  atomic.Bool           // once at least
	unfit atomic.Pointer[error] // why the last Refresh had no rules; nil: that was not its trouble
}

// NewErased follows the register of a deployment. load gives the identity rules, with the deployment's own key; it is
// called when the first person was erased, not before: without the rules nobody can be told from anybody.
func NewErased(st *store.Client, prefix string, load func(ctx context.Context) (*identity.Rules, error)) *Erased {
	return &Erased{register: NewRegister(st, prefix), load: load}
}

var errNoRules = errors.New("people were erased, and cannot be recognised here")

// RulesOf loads the identity rules for NewErased. No key is made: one that is not the deployment's finds nobody, so it is held
// against the facts that stand at facts key deployment.
func RulesOf(cfg config.Identity, facts identity.Facts, deployment string) func(ctx context.Context) (*identity.Rules, error) {
	return func(ctx context.Context) (*identity.Rules, error) {
		if _, err := os.Stat(cfg.KeyFile); errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("identity.key_file: %s is not there: give the file that identity-stitcher uses", cfg.KeyFile)
		}
		key, text, err := cfg.Load()
		if err != nil {
			return nil, err
		}
		rules, err := identity.NewRules(key, identity.Options{DefaultRegion: cfg.DefaultRegion, File: cfg.RulesFile, Text: text})
		if err != nil {
			return nil, fmt.Errorf("identity: %w", err)
		}
		return rules, identity.CheckKey(ctx, facts, deployment, key)
	}
}

// Refresh takes what is new. After an error it stands as it was. A register that is shorter than it was, or gone, takes nobody
// off: Redis has lost it, and people are not to come back by that. Who was let in again meanwhile is, with a restart.
func (e *Erased) Refresh(ctx context.Context) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	err := e.refresh(ctx)
	if e.unfit.Store(nil); errors.Is(err, errNoRules) {
		e.unfit.Store(&err)
	}
	return err
}

func (e *Erased) refresh(ctx context.Context) error {
	var next map[identity.Node]struct{}
	at := e.at
	for more := true; more; {
		c, err := e.register.since(ctx, at)
		if err != nil {
			return err
		}
		if at, more = c.at, c.more; len(c.on) == 0 {
			continue
		}
		if next == nil {
			next = maps.Clone(e.all())
			if next == nil {
				next = map[identity.Node]struct{}{}
			}
		}
		c.apply(next)
	}
	if len(next) > 0 && e.rules.Load() == nil {
		rules, err := e.load(ctx)
		if err != nil {
			return fmt.Errorf("%w: %w", errNoRules, err)
		}
		e.rules.Store(rules)
	}
	if next != nil {
		e.nodes.Store(&next)
	}
	e.at = at
	e.read.Store(true)
	return nil
}

// Ensure is Ready for who must not begin before the register was read once: it reads it if nobody has. A nil Erased is nobody.
func (e *Erased) Ensure(ctx context.Context) error {
	if e == nil {
		return nil
	}
	if !e.read.Load() {
		if err := e.Refresh(ctx); err != nil {
			return err
		}
	}
	return e.Ready()
}

// Run refreshes until ctx ends. What fails is told once, and may heal.
func (e *Erased) Run(ctx context.Context, log *zap.Logger) {
	t := time.NewTicker(lookEvery)
	defer t.Stop()
	last := ""
	for {
		text := ""
		looking, cancel := context.WithTimeout(ctx, lookTimeout)
		before := e.Len()
		if err := e.Refresh(looking); err != nil {
			text = err.Error()
		}
		cancel()
		if n := e.Len(); n != before {
			log.Info("erased people taken", zap.Int("identifiers", n))
		}
		if text != last && text != "" && ctx.Err() == nil {
			log.Error("register of erased people can not be taken, what was read stands", zap.String("error", text))
		}
		last = text
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// Ready is nil unless people were erased and this process has not the means to recognise them: it must not take events, nor
// send messages, then. A Redis that does not answer is no such case: what was read stands.
func (e *Erased) Ready() error {
	if e == nil {
		return nil
	}
	if err := e.unfit.Load(); err != nil {
		return *err
	}
	return nil
}

func (e *Erased) all() map[identity.Node]struct{} {
	if e == nil {
		return nil
	}
	if m := e.nodes.Load(); m != nil {
		return *m
	}
	return nil
}

// Len is how many identifiers are on the register. A nil Erased is nobody.
func (e *Erased) Len() int { return len(e.all()) }

// HasNode says whether an identifier, or a profile id, was erased.
func (e *Erased) HasNode(n identity.Node) bool {
	_, on := e.all()[n]
	return on
}

// HasProfile says whether a profile id, as it stands in topics, was erased.
func (e *Erased) HasProfile(id string) bool {
	if e.Len() == 0 {
		return false
	}
	n, err := identity.ParseNode(id)
	return err == nil && e.HasNode(n)
}

// Has says whether an event, valid or not (event.Glimpse), names somebody who was erased: by the identity rules, and by what
// every source sends whatever the rules say.
func (e *Erased) Has(ev *event.Event) bool {
	all := e.all()
	if len(all) == 0 {
		return false
	}
	rules := e.rules.Load()
	ids, _ := rules.Extract(ev)
	for i := range ids {
		if _, on := all[ids[i].Node]; on {
			return true
		}
	}
	for _, id := range ev.Identifiers() {
		if known, why := rules.IdentifyIn(ev.Brand, id); why == "" {
			if _, on := all[known.Node]; on {
				return true
			}
		}
	}
	return false
}

// HasAddress says whether an address that a brand writes to is of somebody who was erased.
func (e *Erased) HasAddress(brand, address string) bool {
	all := e.all()
	if len(all) == 0 || address == "" {
		return false
	}
	rules := e.rules.Load()
	for _, typ := range [...]string{event.Email, event.Phone, event.UserID} {
		if id, why := rules.IdentifyIn(brand, event.Identifier{Type: typ, Value: address}); why == "" {
			if _, on := all[id.Node]; on {
				return true
			}
		}
	}
	return false
}
