package activator

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/event"
	"github.com/weft-cdp/weft/pkg/identity"
	"github.com/weft-cdp/weft/pkg/journey"
	"github.com/weft-cdp/weft/pkg/keyed"
	"github.com/weft-cdp/weft/pkg/suppression"
)

// nodesOf are identifiers' nodes by the environment's own key.
func (e *env) nodesOf(typ string, values ...string) []identity.Node {
	e.t.Helper()
	key, err := config.LoadOrCreateSecret(e.cfg.Identity.KeyFile)
	require.NoError(e.t, err)
	rules, err := identity.NewRules(key, identity.Options{})
	require.NoError(e.t, err)
	var nodes []identity.Node
	for _, v := range values {
		n, ok := rules.Node(event.Identifier{Type: typ, Value: v})
		require.True(e.t, ok)
		nodes = append(nodes, n)
	}
	return nodes
}

// A cart that waits when its person is erased is never written about.
func TestErasedPeopleAreNotWrittenTo(t *testing.T) {
	e := newEnv(t)
	s, _ := e.start()
	e.reachable("ada")
	e.shops("ada", "c1")
	e.decided()
	require.NoError(t, suppression.NewRegister(e.store, e.topics.Prefix).Add(t.Context(), e.nodesOf(event.Email, "ada@example.com")))
	require.Eventually(t, func() bool { return s.rules.decider().Suppressed("Ada@example.com") }, waitAtMost, look)
	e.pass(2 * time.Hour)
	require.Equal(t, journey.Suppressed, e.only("ada").Outcome)
}

// A message that was decided before the person was erased is not sent after it; and while nobody can tell who was, none is.
func TestMessagesOfErasedPeopleAreNotSent(t *testing.T) {
	e := newEnv(t)
	register := suppression.NewRegister(e.store, e.topics.Prefix)
	ch := &channel{}
	d := e.deliverer(ch)
	d.people.erased = suppression.NewErased(e.store, e.topics.Prefix, suppression.RulesOf(e.cfg.Identity, e.store, keyed.DeploymentKey(e.topics)))
	require.Equal(t, journey.ReasonSent, plan(t, d, e.request("m1"))[0].Reason)
	require.NoError(t, register.Add(t.Context(), e.nodesOf(event.Email, "ada@example.com")))
	require.NoError(t, d.people.erased.Refresh(context.Background()))
	r := plan(t, d, e.request("m2"))[0]
	require.Equal(t, []string{journey.Suppressed, journey.ReasonErased}, []string{r.Outcome, r.Reason})
	require.Len(t, ch.got, 1)

	require.NoError(t, os.Remove(e.cfg.Identity.KeyFile))
	blind := e.deliverer(ch)
	blind.people.erased = suppression.NewErased(e.store, e.topics.Prefix, suppression.RulesOf(e.cfg.Identity, e.store, keyed.DeploymentKey(e.topics)))
	_, err := blind.Plan(t.Context(), keyed.Slot{}, []keyed.Record{e.request("m3")})
	require.ErrorContains(t, err, "identity.key_file")
	require.Len(t, ch.got, 1)
}
