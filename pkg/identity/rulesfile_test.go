package identity

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/weft-cdp/weft/pkg/event"
)

const ownRules = `
default_limit: {values: 3, per: month}
previous_id: customer
blocked: {exact: [Till-9]}
types:
  customer:
    rank: 0x10
    find: [userId, properties.customer_id, {path: properties.id, when: {event: [Sale, Refund], properties.kind: customer}}]
    pattern: '^[a-z0-9-]+$'
    known: true
  card:
    rank: 0x50
    priority: 7
    find_cel: 'event.properties.cards.map(c, c.number)'
    normalise: [digits]
    limit: {values: 2, per: year}
  mail:
    rank: 0x20
    priority: 1
    normalise: [email, email_plus_tags]
    format: email
    find: traits.mail
    trust: trusted
    known: true
    block: {patterns: ['@shop\.example$']}
  cookie: {rank: 0xe0, find: anonymousId, device: true, scope: brand, format: uuid, normalise: [lower]}
`

func rulesOf(t testing.TB, text string) *Rules {
	t.Helper()
	return newTestRules(t, Options{File: "own.yaml", Text: []byte(text)})
}

func TestRulesFile(t *testing.T) {
	r := rulesOf(t, ownRules)
	var list []Type
	for _, x := range r.types {
		list = append(list, x.Type)
	}
	require.Equal(t, []Type{
		{Name: "customer", Rank: 0x10, Priority: 9, Limit: Limit{Values: 5}, Known: true},
		{Name: "card", Rank: 0x50, Priority: 7, Limit: Limit{Values: 2, Per: year}},
		{Name: "mail", Rank: 0x20, Priority: 1, Limit: Limit{Values: 5}, Known: true, Trust: TrustTrusted},
		{Name: "cookie", Rank: 0xe0, Priority: 8, Limit: Limit{Values: 5}, Device: true, Scope: ScopeBrand},
	}, list)
	require.Equal(t, Type{Rank: rankOther, Priority: 10, Limit: Limit{Values: 3, Per: month}}, *r.TypeOf(Node{rankOther}))

	web := event.Meta{Brand: "shoes", Trusted: true}
	for body, want := range map[string][2][]string{
		`{"type":"track","event":"Sale","properties":{"id":"c-1","kind":"customer","cards":[{"number":"12 34"},{"number":5},{"number":true},{}]}}`: {
			{"customer=c-1", "card=1234", "card=5"}, nil},
		`{"type":"track","event":"Visit","userId":"u","properties":{"id":"c-1","kind":"customer"}}`: {{"customer=u"}, nil},
		`{"type":"track","event":"Sale","properties":{"customer_id":" Till-9 ","cards":["x"]}}`:     {nil, []string{"customer=Till-9 blocked"}},
		`{"type":"track","event":"Sale","properties":{"customer_id":"C 1","cards":7}}`:              {nil, []string{"customer=C 1 format", "card= expression"}},
		`{"type":"identify","userId":"u","traits":{"mail":"Ann+shoes+2@x.pl"}}`:                     {{"customer=u", "mail=ann@x.pl"}, nil},
		`{"type":"identify","userId":"u","traits":{"mail":"till@SHOP.example"}}`:                    {{"customer=u"}, []string{"mail=till@SHOP.example blocked"}},
		`{"type":"alias","userId":"u","previousId":"v"}`:                                            {{"customer=u", "customer=v"}, nil},
		`{"type":"page","anonymousId":"8F2D0F0E-6F0A-4B1C-9D42-0A4BB3A1F0C7"}`:                      {{"cookie=8f2d0f0e-6f0a-4b1c-9d42-0a4bb3a1f0c7"}, nil},
		`{"type":"page","anonymousId":"a","context":{"externalIds":[{"type":"email","id":"E"}]}}`:   {{"email=E"}, []string{"cookie=a format"}},
	} {
		ids, ignored := extract(t, r, body, web)
		require.ElementsMatch(t, want[0], ids, body)
		require.Equal(t, want[1], ignored, body)
	}
	_, ignored := extract(t, r, `{"type":"identify","userId":"u","traits":{"mail":"ann@x.pl"},"context":{"externalIds":[{"type":"mail","id":"ann@x.pl"}]}}`, event.Meta{Brand: "shoes"})
	require.Equal(t, []string{"mail=ann@x.pl untrusted", "mail=ann@x.pl untrusted"}, ignored, "this source is not trusted")
	_, ignored = extract(t, r, `{"type":"page","anonymousId":"8F2D0F0E-6F0A-4B1C-9D42-0A4BB3A1F0C7"}`, event.Meta{})
	require.Equal(t, []string{"cookie=8F2D0F0E-6F0A-4B1C-9D42-0A4BB3A1F0C7 brand"}, ignored)
}

func TestRulesFileFaults(t *testing.T) {
	const head = "types:\n  user_id: {rank: 0x10, find: userId}\n"
	for text, want := range map[string]string{
		"":                          "own.yaml:1: types: is missing",
		"types: {}":                 "own.yaml:1: types: has none",
		"\n\ntypes: [a]":            "own.yaml:3: types: want keys with values",
		"a: b\n" + head:             "own.yaml:1: a: unknown key; known here: blocked, default_limit, devices, previous_id, types",
		"types: [":                  "own.yaml:1: did not find",
		head + "previous_id: other": "own.yaml:1: previous_id: \"other\" is not in types",
		head + "default_limit: {per: day, values: 5}":                     `own.yaml:3: default_limit.per: want one of ever, year, month, week, found "day"`,
		head + "default_limit: {per: year}":                               "own.yaml:3: default_limit: want values",
		head + "default_limit: {values: -1}":                              "own.yaml:3: default_limit.values: want a whole number from 0 to 10000",
		head + "blocked:\n  patterns: ['(']":                              "own.yaml:4: blocked.patterns[0]: want a regular expression (RE2)",
		head + "blocked: {exact: {a: b}}":                                 "own.yaml:3: blocked.exact: want a list",
		head + "blocked: {exact: [null]}":                                 "own.yaml:3: blocked.exact[0]: want a text (in quotes",
		head + "  x: {}":                                                  "own.yaml:3: types.x.rank: is missing",
		head + "  x: {rank: 0x10}":                                        "own.yaml:3: types.x.rank: 0x10 is that of user_id",
		head + "  x: {rank: 0x40}":                                        "own.yaml:3: types.x.rank: 0x40 is that of all types that are not listed",
		head + "  x: {rank: 0xf0}":                                        "own.yaml:3: types.x.rank: want a whole number from 1 to 239",
		head + "  X: {rank: 5}":                                           "own.yaml:3: types.X: want at most 64 lower-case letters",
		head + "  device_slice: {rank: 5}":                                "own.yaml:3: types.device_slice: want at most 64 lower-case letters",
		head + "  x: {rank: 5, rnk: 6}":                                   "own.yaml:3: types.x.rnk: unknown key; known here: block, device, find,",
		head + "  x: {rank: 5}\n  x: {rank: 6}":                           "own.yaml:4: types.x: given twice, first in line 3",
		head + "  x: {rank: 5, known: yes please}":                        "own.yaml:3: types.x.known: want true or false",
		head + "  x: {rank: 5, known: true, device: true}":                "own.yaml:3: types.x: known (names a person) goes with neither",
		head + "  x: {rank: 5, trust: much}":                              `own.yaml:3: types.x.trust: want one of any, trusted, found "much"`,
		head + "  x: {rank: 5, scope: all}":                               `own.yaml:3: types.x.scope: want one of shared, brand, found "all"`,
		head + "  x: {rank: 5, normalise: [upper]}":                       `own.yaml:3: types.x.normalise: want some of trim, lower`,
		head + "  x: {rank: 5, normalise: [digits, phone]}":               "own.yaml:3: types.x.normalise: digits leaves nothing",
		head + "  x: {rank: 5, format: iban}":                             `own.yaml:3: types.x.format: want one of email, phone, uuid, found "iban"`,
		head + "  x:\n    rank: 5\n    find: [traits]":                    `own.yaml:5: types.x.find: path "traits": want userId`,
		head + "  x:\n    rank: 5\n    find:\n    - {path: a.b}":          `own.yaml:6: types.x.find: path "a.b": want userId`,
		head + "  x: {rank: 5, find: [{pth: traits.a}]}":                  "own.yaml:3: types.x.find[0].pth: unknown key",
		head + "  x: {rank: 5, find_cel: 'event.'}":                       "own.yaml:3: types.x.find_cel: 1:",
		head + "  x: {rank: 5, find_cel: 'record.a'}":                     "own.yaml:3: types.x.find_cel: 1:1: undeclared reference",
		head + "  x: {rank: 5, priority: 1}\n  y: {rank: 6, priority: 1}": "own.yaml:4: types.y.priority: 1 is that of x",
		"# " + strings.Repeat("x", maxRulesBytes):                         "own.yaml:1: has ",
	} {
		_, err := NewRules(testKey(), Options{File: "own.yaml", Text: []byte(text)})
		require.ErrorContains(t, err, want, "%.200s", text)
		var fault *Fault
		require.ErrorAs(t, err, &fault, "%.200s", text)
	}
	_, err := NewRules(testKey(), Options{File: "own.yaml", Text: []byte(head + "  x: {rank: 0}\n  y: {rank: 5, foo: 1}\n")})
	require.ErrorContains(t, err, "types.x.rank")
	require.ErrorContains(t, err, "types.y.foo", "all faults are told at once")
}

// facts are those of deployments.
type facts struct {
	of   map[string]string
	fail error
}

func (f *facts) Fact(_ context.Context, key, field, value string) (string, error) {
	if _, known := f.of[key+"/"+field]; !known {
		f.of[key+"/"+field] = value
	}
	return f.of[key+"/"+field], f.fail
}

// Rank and scope are part of every id: others than those of the deployment are refused. A new type is added.
func TestCheckTypes(t *testing.T) {
	const base = "types:\n  user_id: {rank: 0x10, find: userId}\n"
	ctx, kv := t.Context(), &facts{of: map[string]string{}}
	require.NoError(t, CheckTypes(ctx, kv, "d", rulesOf(t, base)))
	require.NoError(t, CheckTypes(ctx, kv, "d", rulesOf(t, base+"  card: {rank: 0x50, scope: brand}\n")))
	require.NoError(t, CheckTypes(ctx, kv, "d", rulesOf(t, base+"  card: {rank: 0x50, scope: brand, limit: {values: 1}, priority: 1}\n")))
	for _, text := range []string{base + "  card: {rank: 0x50}\n", base + "  card: {rank: 0x51, scope: brand}\n", strings.Replace(base, "0x10", "0x11", 1)} {
		err := CheckTypes(ctx, kv, "d", rulesOf(t, text))
		require.ErrorIs(t, err, ErrOtherTypes, text)
		require.ErrorContains(t, err, "weft rebuild")
	}
	fatal := fmt.Errorf("stop")
	require.NoError(t, Admit(kv, "e", rulesOf(t, base), fatal)(ctx))
	require.ErrorIs(t, Admit(kv, "e", rulesOf(t, strings.Replace(base, "0x10", "0x11", 1)), fatal)(ctx), fatal)
	kv.fail = fmt.Errorf("away")
	require.NotErrorIs(t, Admit(kv, "e", rulesOf(t, base), fatal)(ctx), fatal)
}

func TestEveryStepIsIdempotent(t *testing.T) {
	for steps, format := range map[string]string{"lower": "", "email": "email", "email, email_plus_tags": "email", "phone": "phone", "digits": "", "lower, phone": "", "trim, email_plus_tags": ""} {
		text := "types:\n  user_id: {rank: 1, find: userId, normalise: [" + steps + "]"
		if format != "" {
			text += ", format: " + format
		}
		r := newTestRules(t, Options{DefaultRegion: "PL", File: "own.yaml", Text: []byte(text + "}\n")})
		rapid.Check(t, func(t *rapid.T) {
			value := rapid.OneOf(rapid.String(), rapid.StringMatching(`[+0-9 ()-]{0,20}`), rapid.StringMatching(`[A-Za-z+.]{1,9}@[a-z+]{1,5}\.[A-Z]{2}`)).Draw(t, "value")
			id, why := r.Identify(event.Identifier{Type: event.UserID, Value: value})
			if why != "" {
				require.Zero(t, id)
				return
			}
			again, why := r.Identify(event.Identifier{Type: event.UserID, Value: id.Value})
			require.Empty(t, why)
			require.Equal(t, id, again, "the node is a function of the normalised value")
		})
	}
}

func TestBrandsNeverMeetInABrandsType(t *testing.T) {
	r := rulesOf(t, "types:\n  user_id: {rank: 0x10, find: userId}\n  card: {rank: 0x50, scope: brand}\n")
	rapid.Check(t, func(t *rapid.T) {
		brands := rapid.SliceOfNDistinct(rapid.StringMatching(`[a-z0-9._-]{1,12}`), 2, 2, rapid.ID[string]).Draw(t, "brands")
		value := rapid.StringMatching(`[a-z0-9]{1,12}y`).Draw(t, "value")
		node := func(brand, typ string) Node {
			id, why := r.IdentifyIn(brand, event.Identifier{Type: typ, Value: value})
			require.Empty(t, why)
			return id.Node
		}
		a, b := node(brands[0], "card"), node(brands[1], "card")
		require.NotEqual(t, a[1+brandBytes:], b[1+brandBytes:], "all of the brand is in the hash")
		require.Equal(t, a, node(brands[0], "card"))
		h := brandHash(brands[0])
		require.Equal(t, h[:], a[1:1+brandBytes], "limits are counted for each brand from these")
		require.Equal(t, ScopeBrand, r.TypeOf(a).Scope)
		require.True(t, a.valid())
		require.Equal(t, node(brands[0], event.UserID), node(brands[1], event.UserID), "a shared type is one node everywhere")
	})
	_, why := r.Identify(event.Identifier{Type: "card", Value: "1"})
	require.Equal(t, IgnoredBrand, why)
}

// Whatever ranks a file gives, the order of types is the order of nodes.
func TestRanksAreTheOrderOfNodes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ranks := rapid.SliceOfNDistinct(rapid.IntRange(1, maxRank).Filter(func(x int) bool { return x != rankOther }), 2, 6, rapid.ID[int]).Draw(t, "ranks")
		text := "previous_id: t0\ntypes:\n"
		for i, rank := range ranks {
			text += fmt.Sprintf("  t%d: {rank: %d, scope: %s}\n", i, rank, rapid.SampledFrom([]string{"brand", "shared"}).Draw(t, "scope"))
		}
		r, err := NewRules(testKey(), Options{File: "own.yaml", Text: []byte(text)})
		require.NoError(t, err)
		value := rapid.StringMatching(`[a-z0-9]{1,12}y`)
		for i := range ranks {
			for j := range ranks {
				a, why := r.IdentifyIn("b", event.Identifier{Type: fmt.Sprint("t", i), Value: value.Draw(t, "value")})
				require.Empty(t, why)
				b, why := r.IdentifyIn("b", event.Identifier{Type: fmt.Sprint("t", j), Value: value.Draw(t, "other")})
				require.Empty(t, why)
				require.Equal(t, fmt.Sprint("t", i), r.TypeOf(a.Node).Name)
				if i != j {
					require.Equal(t, ranks[i] < ranks[j], a.Node.Before(b.Node))
				}
			}
		}
	})
}
