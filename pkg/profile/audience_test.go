package profile

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func parse(t testing.TB, text string) *Audiences {
	t.Helper()
	as, err := ParseAudiences("audiences.yaml", []byte(text))
	require.NoError(t, err)
	return as
}

func TestFaultsOfAudienceFilesNameTheirLine(t *testing.T) {
	for _, tc := range []struct{ name, text, want string }{
		{"no yaml", "audiences: [", "audiences.yaml:2: did not find expected node content"},
		{"a tab", "audiences:\n\t- name: a", "audiences.yaml:2: found character that cannot start any token"},
		{"broken later", "audiences:\n  - name: a\n   when: x", "audiences.yaml:2: did not find expected '-' indicator"},
		{"unknown top key", "audience: []", `audiences.yaml:1: file: unknown key "audience" (known: audiences)`},
		{"no list", "audiences:\n  a: b", "audiences.yaml:2: audiences: a list is wanted"},
		{"no mapping", "audiences:\n  - a", "audiences.yaml:2: audience: a mapping"},
		{"unknown key", "audiences:\n  - name: a\n    wenn: 'true'\n    when: 'true'", `audiences.yaml:3: audience: unknown key "wenn" (known: name, description, when)`},
		{"key twice", "audiences:\n  - name: a\n    name: b\n    when: 'true'", "audiences.yaml:3: audience: name stands here a second time"},
		{"bad name", "audiences:\n  - name: Big Spenders\n    when: 'true'", `audiences.yaml:2: name: "Big Spenders" is none`},
		{"name twice", "audiences:\n  - name: a\n    when: 'true'\n  - name: a\n    when: 'true'", `audiences.yaml:4: name: "a" stands already in line 2`},
		{"no condition", "audiences:\n  - name: a", `audiences.yaml:2: when: missing in audience "a"`},
		{"null condition", "audiences:\n  - name: a\n    when:", "audiences.yaml:3: when: text is wanted"},
		{"syntax", "audiences:\n  - name: a\n    when: profile.orders >", "audiences.yaml:3: when: column 17:"},
		{"syntax in a block", "audiences:\n  - name: a\n    when: |\n      profile.orders > 1 &&\n      profile.orders +", "audiences.yaml:5: when:"},
		{"unknown variable", "audiences:\n  - name: a\n    when: profile.ordres > 1", "audiences.yaml:3: when: column 8: undeclared reference"},
		{"no clock", "audiences:\n  - name: a\n    when: profile.lastSeen > now()", "audiences.yaml:3: when: column 23: undeclared reference to 'now'"},
		{"wrong type", "audiences:\n  - name: a\n    when: profile.orders > \"1\"", "no matching overload"},
		{"not boolean", "audiences:\n  - name: a\n    when: profile.orders", "audiences.yaml:3: when: true or false is wanted, this is int"},
		{"bad pattern", "audiences:\n  - name: a\n    when: \"'x'.matches('(')\"", "audiences.yaml:3: when:"},
		{"too long", "audiences:\n  - name: a\n    when: " + strings.Repeat("true && ", 1000) + "true", "audiences.yaml:3: when:"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := ParseAudiences("audiences.yaml", []byte(tc.text))
			require.ErrorContains(t, err, tc.want)
			var f *Fault
			require.ErrorAs(t, err, &f)
		})
	}
	_, err := ParseAudiences("a.yaml", []byte("audiences:\n  - name: A\n    when: x > 1\n  - name: b\n    when: y > 1"))
	require.Equal(t, 3, strings.Count(err.Error(), "a.yaml:"), "all at once: %s", err)
	var many strings.Builder
	for i := range MaxAudiences + 1 {
		fmt.Fprintf(&many, "  - {name: a%d, when: 'true'}\n", i)
	}
	_, err = ParseAudiences("a.yaml", []byte("audiences:\n"+many.String()))
	require.ErrorContains(t, err, "at most 200")
	for _, empty := range []string{"", "# none yet\n", "audiences: []"} {
		require.Empty(t, parse(t, empty).List)
	}
}

func TestEveryVariableCanBeUsed(t *testing.T) {
	s := fold(t, &Rules{},
		ev(t, "a", 1, identify(`{"plan":"pro","age":41,"address":{"city":"Warsaw"},"tags":["x","y"]}`)),
		ev(t, "b", 2, track("Order Completed", `{"order_id":"o","total":100.10,"quantity":2.5,"currency":"EUR"}`)),
		ev(t, "c", 3, track("Product Added", `{"cart_id":"c1","product_id":"p","price":30,"quantity":2,"currency":"EUR"}`)),
		ev(t, "d", 4, `"type":"page","name":"Home"`),
	)
	for _, expr := range []string{
		`profile.traits.plan == "pro"`, `profile.traits["age"] >= 18`, `profile.traits.age == 41`, `profile.traits.address.city == "Warsaw"`,
		`"x" in profile.traits.tags`, `has(profile.traits.plan) && !has(profile.traits.phone)`,
		`profile.firstSeen == timestamp("2026-03-01T12:01:00Z")`, `profile.lastSeen - profile.firstSeen == duration("3m")`,
		`profile.counts.events == 4`, `profile.counts.track == 2`, `profile.counts.identify == 1`, `profile.counts.page == 1`, `profile.counts.screen == 0`,
		`profile.counts.byName["Product Added"] == 1`, `profile.orders == 1`, `profile.units == 2.5 && profile.brands.main.units > 2`,
		`profile.revenue["EUR"] == 100.1`, `profile.revenue["EUR"] > 100`, `profile.averageOrderValue["EUR"] < 100.11`,
		`profile.revenue[?"PLN"].orValue(0.0) == 0.0`, `!("PLN" in profile.revenue)`,
		`profile.lastOrder.id == "o" && profile.lastOrder.total > 100.0 && profile.lastOrder.brand == "main"`,
		`profile.lastOrder.time < profile.lastSeen`, `has(profile.lastOrder.id)`,
		`profile.openCarts.exists(c, c.value >= 60.0 && c.currency == "EUR" && c.items == 2 && !c.checkout && c.brand == "main" && c.id == "c1")`,
		`profile.openCarts.size() == 1`, `profile.openCarts[0].lastActivity == profile.openCarts[0].firstActivity`,
		`profile.brands["main"].orders == 1 && profile.brands.main.revenue.EUR > 100.0 && profile.brands.main.openCarts == 1 && profile.brands.main.events == 4`,
	} {
		as := parse(t, "audiences:\n  - name: a\n    when: '"+strings.ReplaceAll(expr, "'", "''")+"'")
		changes, errs := s.Settle("p", as, base)
		require.Empty(t, errs, expr)
		require.Len(t, changes, 1, expr)
		require.Equal(t, Entered, changes[0].Change)
		s.Audiences = nil
	}
	documented := map[string]bool{}
	for _, v := range Variables() {
		require.NotEmpty(t, v.Doc)
		require.NotEmpty(t, v.Type)
		documented[v.Name] = true
		_, ok := (&variables{s: &State{}}).resolve(v.Name)
		require.True(t, ok, v.Name)
	}
	require.False(t, documented["profile.now"])
}

func TestSettleEntersAndLeaves(t *testing.T) {
	as := parse(t, `audiences:
  - name: open-cart
    when: profile.openCarts.size() > 0
  - name: repeat-buyers
    when: profile.orders >= 2 && profile.units > 2.5 && profile.revenue["USD"] > 10.0
`)
	add := ev(t, "a", 1, track("Product Added", `{"product_id":"p","price":1}`))
	s := fold(t, &Rules{}, add)
	changes, errs := s.Settle("id", as, at(1))
	require.Empty(t, errs)
	require.JSONEq(t, `[{"audience":"open-cart","profile":"id","change":"entered","at":"2026-03-01T12:01:00.000Z","reason":"condition",
		"because":{"expression":"profile.openCarts.size() > 0"}}]`, text(t, changes))
	changes, _ = s.Settle("id", as, at(2))
	require.Empty(t, changes, "nothing changed, nothing to tell")

	for i := range 2 {
		require.Empty(t, s.Apply(ev(t, fmt.Sprint("o", i), 3+i, track("Order Completed", fmt.Sprintf(`{"order_id":"%d","total":6,"quantity":1.5}`, i))), &Rules{}))
	}
	changes, errs = s.Settle("id", as, at(4))
	require.Empty(t, errs)
	require.JSONEq(t, `[
		{"audience":"open-cart","profile":"id","change":"left","at":"2026-03-01T12:04:00.000Z","reason":"condition","because":{"expression":"profile.openCarts.size() > 0"}},
		{"audience":"repeat-buyers","profile":"id","change":"entered","at":"2026-03-01T12:04:00.000Z","reason":"condition",
			"because":{"expression":"profile.orders >= 2 && profile.units > 2.5 && profile.revenue[\"USD\"] > 10.0","values":{"profile.orders":2,"profile.units":"3","profile.revenue[\"USD\"]":"12.0000"}}}]`, text(t, changes))
	require.Equal(t, []string{"repeat-buyers"}, s.Document("id").Audiences)

	require.JSONEq(t, `[{"audience":"repeat-buyers","profile":"id","change":"left","at":"2026-03-01T12:05:00.000Z","reason":"merged","into":"other"}]`, text(t, s.Leave("id", "other", at(5))))
	require.Equal(t, []string{"repeat-buyers"}, s.Audiences, "Leave changes nothing")

	changes, _ = s.Settle("id", &Audiences{}, at(6))
	require.JSONEq(t, `[{"audience":"repeat-buyers","profile":"id","change":"left","at":"2026-03-01T12:06:00.000Z","reason":"removed"}]`, text(t, changes))
	require.Empty(t, s.Audiences)
}

func TestAFailedEvaluationIsNotMembership(t *testing.T) {
	s := fold(t, &Rules{}, ev(t, "a", 1, identify(`{"age":"forty","list":[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25]}`)))
	s.Audiences = []string{"absent"}
	as := parse(t, `audiences:
  - {name: absent, when: 'profile.revenue["EUR"] > 1.0'}
  - {name: wrong-type, when: 'profile.traits.age > 18'}
  - {name: endless, when: 'profile.traits.list.all(a, profile.traits.list.all(b, profile.traits.list.all(c, profile.traits.list.all(d, a + b + c + d > 0.0))))'}
`)
	changes, errs := s.Settle("p", as, base)
	require.Len(t, errs, 3)
	require.ErrorIs(t, errs[0], ErrAbsent)
	require.NotErrorIs(t, errs[1], ErrAbsent)
	require.ErrorContains(t, errs[2], "cost limit")
	require.Len(t, changes, 1)
	require.Equal(t, Left, changes[0].Change)
	require.Empty(t, s.Audiences)
	require.Error(t, errors.Join(errs...))
}

func FuzzParseAudiences(f *testing.F) {
	f.Add("audiences:\n  - name: a\n    when: profile.orders > 1")
	f.Add("audiences: [{name: a, when: 'profile.traits.x.y[0] == 1'}]")
	f.Add("a: &a [*a]")
	f.Fuzz(func(t *testing.T, text string) {
		as, err := ParseAudiences("f", []byte(text))
		if err != nil {
			return
		}
		s := fold(t, &Rules{}, ev(t, "a", 1, identify(`{"x":{"y":[1]}}`)))
		s.Settle("p", as, base)
	})
}
