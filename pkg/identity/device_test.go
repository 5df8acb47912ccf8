package identity

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weft-cdp/weft/pkg/event"
)

// shop is events of a shop as the shipped rules and limits resolve them, one after another.
type shop struct {
	t        *testing.T
	rules    *Rules
	resolver *Resolver
	n        int
}

func newShop(t *testing.T, opt Options) *shop {
	r := newTestRules(t, opt)
	return &shop{t: t, rules: r, resolver: NewResolver(newMemory(), 100, Policy{TypeOf: r.TypeOf})}
}

// at resolves an event of a trusted source; it gives the profile, and which types were set aside.
func (s *shop) at(body string) (Node, []string) {
	s.t.Helper()
	s.n++
	ids, _ := s.rules.Extract(decoded(s.t, body, event.Meta{}))
	q := request(fmt.Sprint(s.n), ids...)
	q.Cause.Time, q.Trusted = simEpoch, true
	got, err := s.resolver.Resolve(s.t.Context(), []Request{q})
	require.NoError(s.t, err)
	require.NoError(s.t, s.resolver.Confirm(s.t.Context(), losers(s.t, got)))
	var aside []string
	for _, x := range got[0].SetAside {
		aside = append(aside, x.Identifier.Type+" "+string(x.Reason))
	}
	return got[0].Profile, aside
}

func (s *shop) person(body string) Node {
	s.t.Helper()
	p, aside := s.at(body)
	require.Empty(s.t, aside, body)
	return p
}

// The cells of the table in docs/identity.md, one test each.

func TestAnonymousBrowsesThenLogsIn(t *testing.T) {
	s := newShop(t, Options{})
	before := s.person(`{"type":"page","anonymousId":"a1"}`)
	known := s.person(`{"type":"identify","userId":"u1","anonymousId":"a1"}`)
	require.NotEqual(t, before, known)
	require.Equal(t, known, s.person(`{"type":"page","anonymousId":"a1"}`), "the history of the browser is that of the person")
	require.Equal(t, known, s.person(`{"type":"track","event":"Order Completed","userId":"u1"}`))
}

func TestSecondPersonLogsInOnTheSameBrowser(t *testing.T) {
	s := newShop(t, Options{})
	ann := s.person(`{"type":"identify","userId":"ann","anonymousId":"a1","traits":{"email":"ann@x.pl"}}`)
	ben, aside := s.at(`{"type":"identify","userId":"ben","anonymousId":"a1","traits":{"email":"ben@x.pl"}}`)
	require.NotEqual(t, ann, ben)
	require.Equal(t, []string{"anonymous_id limit"}, aside)
	require.Equal(t, ben, s.person(`{"type":"track","event":"Order Completed","userId":"ben"}`))
	require.Equal(t, ben, s.person(`{"type":"identify","traits":{"email":"ben@x.pl"}}`), "the address is the second person's")
	require.Equal(t, ann, s.person(`{"type":"identify","traits":{"email":"ann@x.pl"}}`))
}

func TestAnonymousAgainAfterBoth(t *testing.T) {
	s := newShop(t, Options{})
	ann := s.person(`{"type":"identify","userId":"ann","anonymousId":"a1"}`)
	_, aside := s.at(`{"type":"identify","userId":"ben","anonymousId":"a1"}`)
	require.Equal(t, []string{"anonymous_id limit"}, aside)
	require.Equal(t, ann, s.person(`{"type":"page","anonymousId":"a1"}`), "the browser is that of whoever was linked to it first")
}

func TestTwoAddressesOnTwoDevices(t *testing.T) {
	s := newShop(t, Options{})
	one := s.person(`{"type":"identify","anonymousId":"a1","traits":{"email":"ann@x.pl"}}`)
	two := s.person(`{"type":"identify","anonymousId":"a2","traits":{"email":"ann@work.pl"}}`)
	require.NotEqual(t, one, two, "nothing says that they are one person")
	known := s.person(`{"type":"identify","userId":"ann","traits":{"email":"ann@x.pl"}}`)
	require.Equal(t, known, s.person(`{"type":"identify","userId":"ann","traits":{"email":"ann@work.pl"}}`))
	require.Equal(t, known, s.person(`{"type":"page","anonymousId":"a2"}`))
}

// The event of a server that comes before the browser has said who it is ends in the right person, without waiting.
func TestServersEventBeforeTheIdentify(t *testing.T) {
	s := newShop(t, Options{})
	order := s.person(`{"type":"track","event":"Order Completed","userId":"ann"}`)
	s.person(`{"type":"page","anonymousId":"a1"}`)
	require.Equal(t, order, s.person(`{"type":"identify","userId":"ann","anonymousId":"a1"}`))
	require.Equal(t, order, s.person(`{"type":"page","anonymousId":"a1"}`))
}

// Which brands' people meet is a matter of types: a shared one joins them, a brand's does not.
func TestOnlySharedTypesJoinBrands(t *testing.T) {
	s := newShop(t, Options{File: "own.yaml", Text: []byte("types:\n  user_id: {rank: 0x10, find: userId, scope: brand, known: true, limit: {values: 1}}\n" +
		"  email: {rank: 0x20, find: traits.email, known: true}\n  card: {rank: 0x30, find: traits.card, scope: brand}\n")})
	of := func(brand, body string) Node {
		t.Helper()
		ids, ignored := s.rules.Extract(decoded(t, body, event.Meta{Brand: brand}))
		require.Empty(t, ignored)
		s.n++
		q := request(fmt.Sprint(s.n), ids...)
		q.Cause.Time, q.Trusted = simEpoch, true
		got, err := s.resolver.Resolve(t.Context(), []Request{q})
		require.NoError(t, err)
		require.Empty(t, got[0].SetAside)
		require.NoError(t, s.resolver.Confirm(t.Context(), losers(t, got)))
		return got[0].Profile
	}
	require.NotEqual(t, of("shoes", `{"type":"identify","userId":"7","traits":{"card":"12"}}`), of("bags", `{"type":"identify","userId":"7","traits":{"card":"12"}}`),
		"number 7 of one brand is not number 7 of the other")
	of("shoes", `{"type":"identify","userId":"7","traits":{"email":"ann@x.pl"}}`)
	one := of("bags", `{"type":"identify","userId":"9","traits":{"email":"ann@x.pl"}}`)
	require.Equal(t, one, of("shoes", `{"type":"track","event":"E","userId":"7"}`), "one address, shared, is one person, with one user id in each brand")
}
