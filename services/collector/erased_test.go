package collector

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/event"
	"github.com/weft-cdp/weft/pkg/identity"
	"github.com/weft-cdp/weft/pkg/store"
	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/suppression"
)

// erasing is a register on which identifiers can be put, and who follows it.
type erasing struct {
	*suppression.Erased
	register *suppression.Register
	rules    *identity.Rules
}

func newErasing(t *testing.T) *erasing {
	t.Helper()
	r := miniredis.RunT(t)
	st, err := store.New(config.Redis{Addresses: []string{r.Addr()}, AllowNonDurable: true}, zap.NewNop(), store.WithPatience(patience))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, st.Close()) })
	rules, err := identity.NewRules(make([]byte, identity.KeyBytes), identity.Options{})
	require.NoError(t, err)
	return &erasing{
		Erased:   suppression.NewErased(st, "t.", func(context.Context) (*identity.Rules, error) { return rules, nil }),
		register: suppression.NewRegister(st, "t."), rules: rules,
	}
}

func (e *erasing) nodes(t *testing.T, ids ...string) []identity.Node {
	t.Helper()
	var nodes []identity.Node
	for i := 0; i+1 < len(ids); i += 2 {
		n, ok := e.rules.Node(event.Identifier{Type: ids[i], Value: ids[i+1]})
		require.True(t, ok)
		nodes = append(nodes, n)
	}
	return nodes
}

// From the moment that the register is taken, nothing of the person is stored, valid or not, named as it came or by a
// transformation; and from the moment that the person is let in again, it is.
func TestEventsOfErasedPeopleAreCountedAndNotStored(t *testing.T) {
	e := newErasing(t)
	for name, item := range refusedItems {
		f := newFixtureErasing(t, e.Erased, refusing)
		item := strings.Replace(item, "CONSENT", `"a":1`, 1)
		ids := []string{event.UserID, "Bob"}
		if strings.Contains(item, `"email":"WHO"`) {
			item, ids = strings.Replace(item, "WHO", "Bob@example.org", 1), []string{event.Email, "bob@example.org"}
		}
		send := func(who string) {
			f.post(t, "wk_demo", phone, `{"batch":[`+strings.Replace(item, "WHO", who, 1)+`]}`)
		}
		send("Bob")
		require.Equal(t, 1, len(f.collected.take())+len(f.rejected.take()), "before: "+name)
		require.NoError(t, e.register.Add(t.Context(), e.nodes(t, ids...)))
		require.NoError(t, e.Refresh(t.Context()))
		send("Bob")
		require.Empty(t, f.collected.take(), name)
		require.Empty(t, values(f.rejected.take()), name)
		require.InDelta(t, 1, f.counter(t, "weft_collector_events_total", "web", "suppressed"), 0, name)
		require.NoError(t, e.register.Remove(t.Context(), e.nodes(t, ids...)))
		require.NoError(t, e.Refresh(t.Context()))
		send("Bob")
		require.Equal(t, 1, len(f.collected.take())+len(f.rejected.take()), "let in again: "+name)
	}
}

// Records of topics, too.
func TestRecordsOfErasedPeopleAreNotStored(t *testing.T) {
	e := newErasing(t)
	require.NoError(t, e.register.Add(t.Context(), e.nodes(t, event.UserID, "bob")))
	require.NoError(t, e.Refresh(t.Context()))
	cfg := settings(t).Collector
	m, err := newMetrics(prometheus.NewRegistry())
	require.NoError(t, err)
	in, err := newIntake(cfg, time.Now, m)
	require.NoError(t, err)
	in.erased = e.Erased
	p, err := newPreview(in, config.Source{Name: "till", Kind: config.KindKafka, Kafka: config.KafkaInlet{Topic: "t"}})
	require.NoError(t, err)
	for _, value := range []string{`{"userId":"bob"}`, `{"type":"track","userId":"bob"}`, `{"type":"page","userId":"bob"}`} {
		o, err := p.Record(t.Context(), stream.Record{Value: []byte(value)})
		require.NoError(t, err)
		require.Equal(t, leftSuppressed, o.Result, value)
	}
	o, err := p.Record(t.Context(), stream.Record{Value: []byte(`{"type":"page","userId":"ann"}`)})
	require.NoError(t, err)
	require.NotEqual(t, leftSuppressed, o.Result)
}
