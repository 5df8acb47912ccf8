package stitcher

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/weft-cdp/weft/pkg/identity"
	"github.com/weft-cdp/weft/pkg/stream"
	rules "github.com/weft-cdp/weft/schemas/identity"
)

// A stitcher that judges otherwise than those that work does not start, and changes the rules once they have ended.
func TestOtherRulesWaitForAllToEnd(t *testing.T) {
	e := newEnv(t)
	stop := e.start()
	e.send("a1", "web", "m0", "", `{"type":"page","anonymousId":"a1"}`)
	e.settled()
	second := e.start() // by the same rules
	e.send("a1", "web", "m1", "", `{"type":"page","anonymousId":"a1"}`)
	e.settled()

	was := e.cfg.Identity.RulesFile
	e.cfg.Identity.RulesFile = filepath.Join(t.TempDir(), "limits.yaml")
	require.NoError(t, os.WriteFile(e.cfg.Identity.RulesFile, rules.Rules(), 0o600))
	err := e.service().Run(t.Context())
	require.ErrorIs(t, err, ErrOtherRules)
	require.ErrorIs(t, err, stream.ErrStop)
	require.ErrorContains(t, err, "types.email.limit is any number there, 5 in 365 days here")
	host, _ := os.Hostname()
	require.ErrorContains(t, err, "Working: "+host+"/")
	require.ErrorContains(t, err, "Stop all of them")
	stop()
	require.ErrorIs(t, e.service().Run(t.Context()), ErrOtherRules, "one is left")
	second()

	stop = e.start()
	e.send("a1", "web", "m2", "", `{"type":"page","anonymousId":"a1"}`)
	e.settled()
	e.cfg.Identity.RulesFile = was
	require.ErrorIs(t, e.service().Run(t.Context()), ErrOtherRules, "the change is taken")
	stop()
	require.Len(t, e.read(e.topics.EventsIdentified()), 3)
}

// Two processes, by their words in Redis alone.
func TestJudges(t *testing.T) {
	e := newEnv(t)
	ctx, clock := t.Context(), time.Now()
	e.redis.SetTime(clock)
	later := func(d time.Duration) { clock = clock.Add(d); e.redis.SetTime(clock) }
	seen, logs := observer.New(zapcore.InfoLevel)
	judge := func(text string) *judges { return newJudges(e.store, zap.New(seen), e.topics, text) }
	a, b := judge("types = x\nlimit = 1"), judge("types = x\nlimit = 2")
	require.NoError(t, a.enter(ctx))
	require.Zero(t, logs.Len())
	require.ErrorIs(t, b.enter(ctx), ErrOtherRules)
	later(judgesFor - time.Second)
	require.ErrorIs(t, b.enter(ctx), ErrOtherRules, "its time is not over")
	require.NoError(t, a.enter(ctx))
	later(judgesFor - time.Second)
	require.ErrorIs(t, b.enter(ctx), ErrOtherRules, "it has said so again")
	later(2 * time.Second)
	require.NoError(t, b.enter(ctx), "it has died")
	require.Equal(t, 1, logs.Len())
	require.Equal(t, []any{"limit is 1 there, 2 here"}, logs.All()[0].ContextMap()["changes"])
	require.Equal(t, "types = x\nlimit = 1", e.redis.HGet(a.key, "before"))
	require.NotEmpty(t, e.redis.HGet(a.key, "changed"))

	// It was held up, and decides nothing more.
	require.NoError(t, a.check(ctx), "by its own clock it has just been let in")
	a.last = a.last.Add(-judgesUntil)
	require.ErrorIs(t, a.check(ctx), ErrOtherRules)
	require.ErrorIs(t, stopping(a.check(ctx)), stream.ErrStop)

	// One of another version, which knows something more, works beside it, and does not change what stands there.
	c := judge("types = x\nlimit = 2\nmoons = 3")
	require.NoError(t, c.enter(ctx))
	require.NoError(t, c.enter(ctx))
	require.Equal(t, b.text, e.redis.HGet(a.key, "rules"))
	require.ErrorIs(t, judge("types = x, y\nlimit = 2").enter(ctx), ErrOtherRules, "a type more is other rules")

	b.leave()
	require.ErrorIs(t, a.enter(ctx), ErrOtherRules, "the third one works")
	c.leave()
	require.NoError(t, a.enter(ctx))

	// Redis is away: it is asked until it is there, and nobody decides meanwhile.
	e.redis.SetError("LOADING injected")
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	a.last = time.Time{}
	err := a.check(short)
	require.Error(t, err)
	require.NotErrorIs(t, err, ErrOtherRules)
	e.redis.SetError("")
}

// What must be judged alike stands in the judgement, and what does not concern it does not.
func TestWhatIsJudgedAlike(t *testing.T) {
	e := newShop(t)
	text := func(change func()) string {
		change()
		r, err := loadRules(e.cfg.Identity)
		require.NoError(t, err)
		return r.Judgement(policy(e.cfg.Identity, r))
	}
	before := text(func() {})
	require.Contains(t, before, "types.user_id.limit = 1 ever\n")
	require.Contains(t, before, "devices.inactivity = 30m0s\n")
	require.Equal(t, before, text(func() { e.cfg.Identity.DefaultRegion = "PL" }))
	require.Equal(t, []string{"identity.claims is new there, never here"}, identity.Differences(before, text(func() { e.cfg.Identity.Claims = "never" })))
	require.Equal(t, []string{"identity.claims is new there, never here", "identity.governor.members_per_person is 1000 there, 7 here"},
		identity.Differences(before, text(func() { e.cfg.Identity.Governor.MembersPerPerson = 7 })))
}
