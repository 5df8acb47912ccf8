package activator

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest"

	"github.com/weft-cdp/weft/pkg/journey"
	"github.com/weft-cdp/weft/pkg/keyed"
	"github.com/weft-cdp/weft/pkg/topic"
)

// rebuild rebuilds the decide stage.
func (e *env) rebuild() keyed.RebuildReport {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), waitAtMost)
	defer cancel()
	sc, st := e.connect()
	ends, err := sc.EndOffsets(ctx, e.topics.EventsIdentified())
	require.NoError(e.t, err)
	report, err := Rebuild(ctx, e.cfg, Deps{Stream: sc, Store: st, Log: zaptest.NewLogger(e.t, zaptest.Level(zapcore.FatalLevel)), Now: e.now},
		keyed.RebuildOptions{Past: &keyed.LogPast{Stream: sc, End: sc.EndOffsets}, From: e.topics, Ends: ends})
	require.NoError(e.t, err)
	return report
}

// settled are all receipts so far, by id; none may come twice.
func (e *env) settled() map[string]journey.Receipt {
	e.t.Helper()
	m := map[string]journey.Receipt{}
	for _, r := range e.read(e.topics.ActivationsSettled()) {
		var x journey.Receipt
		require.NoError(e.t, json.Unmarshal(r.Value, &x))
		require.NotContains(e.t, m, x.Receipt, "a receipt twice")
		m[x.Receipt] = x
	}
	return m
}

// hours is a story of some people over some hours: what happens in each. It is the same for the same seed.
type step func(e *env)

func hours(seed uint64, n int) [][]step {
	rnd := rand.New(rand.NewPCG(seed, 5)) //nolint:gosec // a reproducible test
	const people = 6
	who := func() string { return "p" + strconv.Itoa(rnd.IntN(people)) }
	var all [][]step
	merged := map[string]bool{}
	for h := range n {
		var steps []step
		if h == 0 {
			for p := range people {
				steps = append(steps, func(e *env) { e.reachable("p" + strconv.Itoa(p)) })
			}
		}
		for range 6 {
			p, cart := who(), "c"+strconv.Itoa(rnd.IntN(2))
			switch rnd.IntN(8) {
			case 0, 1, 2, 3:
				product := "t" + strconv.Itoa(rnd.IntN(3))
				steps = append(steps, func(e *env) {
					e.send(p, fmt.Sprintf(`"type":"track","event":"Product Added","properties":{"cart_id":%q,"product_id":%q,"name":"Tea","price":12.9,"currency":"EUR"}`, cart, product))
				})
			case 4:
				order := "o" + strconv.Itoa(rnd.IntN(1000))
				steps = append(steps, func(e *env) {
					e.send(p, fmt.Sprintf(`"type":"track","event":"Order Completed","properties":{"order_id":%q,"total":12.9}`, order))
				})
			case 5:
				steps = append(steps, func(e *env) { e.send(p, `"type":"page","name":"Home"`) })
			case 6:
				steps = append(steps, func(e *env) {
					e.send(p, `"type":"track","event":"Unsubscribed","properties":{"channel":"email"}`)
				})
			case 7:
				a, b := min(p, "p"+strconv.Itoa(rnd.IntN(people))), p
				if a != b && !merged[b] {
					merged[b] = true
					steps = append(steps, func(e *env) { e.merge(b, a) })
				}
			}
		}
		all = append(all, steps)
	}
	return all
}

// live has steps happen, a minute apart.
func (e *env) live(steps []step) {
	e.t.Helper()
	for _, s := range steps {
		s(e)
		e.decided() // in one order, so that two runs are the same
		e.pass(time.Minute)
	}
}

// rest is the hour after that.
func (e *env) rest() {
	e.t.Helper()
	e.decided()
	e.pass(time.Hour + time.Minute)
	e.quiet()
}

// quiet waits until nothing is due.
func (e *env) quiet() {
	e.t.Helper()
	var how string
	defer func() {
		if e.t.Failed() {
			e.t.Log(how, e.known())
		}
	}()
	require.Eventually(e.t, func() bool {
		due := 0
		for p := range e.topics.Partitions {
			n, err := e.redis.ZMembers(fmt.Sprintf("{%s%s:%d}timers", e.topics.Prefix, topic.StageDecide, p))
			if err != nil {
				continue
			}
			for _, m := range n {
				score, err := e.redis.ZScore(fmt.Sprintf("{%s%s:%d}timers", e.topics.Prefix, topic.StageDecide, p), m)
				if err != nil || int64(score) <= e.now().UnixMilli() { // gone meanwhile: look again
					due++
				}
			}
		}
		how = fmt.Sprint(due, " due, ", e.pending(), " pending, ", len(e.read(e.topics.ActivationsRequested())), " requested, ", e.ended(), " ended")
		return due == 0 && e.pending() == 0 && len(e.read(e.topics.ActivationsRequested())) == e.ended()
	}, waitAtMost, look)
}

// pending is what the decide stage has not published or brought home yet.
func (e *env) pending() int64 {
	e.t.Helper()
	n, err := keyed.Pending(context.Background(), e.store, e.topics, topic.StageDecide)
	require.NoError(e.t, err)
	return n
}

// ended is how many messages have their receipt.
func (e *env) ended() int {
	n := 0
	for _, r := range e.settled() {
		if r.Message != "" {
			n++
		}
	}
	return n
}

// known is what the decide stage knows of each live person.
func (e *env) known() map[string]string {
	e.t.Helper()
	m := map[string]string{}
	for p := range 6 {
		key := "p" + strconv.Itoa(p)
		f, err := keyed.ReadState[journey.State](context.Background(), e.store, e.topics, topic.StageDecide, journey.StateVersion, key)
		require.NoError(e.t, err)
		if f.State == nil {
			continue
		}
		b, err := f.State.AppendBinary(nil)
		require.NoError(e.t, err)
		m[key] = f.Live + " " + string(b)
	}
	return m
}

// tell is a receipt as one compares it.
func tell(rs map[string]journey.Receipt) []string {
	var out []string
	for id, r := range rs {
		out = append(out, fmt.Sprintf("%s %s %s %s/%s", id, r.Profile, r.Cart.ID, r.Outcome, r.Reason))
	}
	slices.Sort(out)
	return out
}

// TestRebuildOfDecisions runs the same hours twice: undisturbed, and with the decide stage's state lost
// between two of them. States, carts, timers and receipts are the same, and no mail goes out twice.
func TestRebuildOfDecisions(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			story := hours(seed, 5)
			start := time.Now().UTC().Truncate(time.Second)
			run := func(lose int) (*env, map[string]string) {
				e := newEnv(t)
				e.clock = start
				_, stop := e.start()
				for h, steps := range story {
					if h == lose {
						half := len(steps) / 2
						e.live(steps[:half])
						require.Eventually(t, func() bool { return e.pending() == 0 }, waitAtMost, look)
						stop()
						before := e.known()
						for _, k := range e.redis.Keys() {
							if len(k) > 16 && k[:16] == "{test.activator:" {
								e.redis.Del(k)
							}
						}
						report := e.rebuild()
						for p := range e.topics.Partitions {
							left, err := e.redis.List(fmt.Sprintf("{%s%s:%d}outbox", e.topics.Prefix, topic.StageDecide, p))
							require.True(t, err != nil || len(left) == 0, "told anew: %q\n%v", left, tell(e.settled()))
						}
						require.Zero(t, report.Untold)
						require.Equal(t, before, e.known())
						_, stop = e.start()
						steps = steps[half:]
					}
					e.live(steps)
					e.rest()
				}
				stop()
				return e, e.known()
			}
			undisturbed, want := run(-1)
			lost, got := run(1 + int(seed)%4)
			require.Equal(t, tell(undisturbed.settled()), tell(lost.settled()))
			require.Equal(t, len(undisturbed.mail.mails()), len(lost.mail.mails()))
			require.True(t, maps.Equal(want, got), "%v\n%v", want, got)
		})
	}
}
