//go:build integration

package warehouse

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Suspended links stand there once, with what an operator has said of each since.
func TestSuspendedLinksAreListed(t *testing.T) {
	s := newShop(t)
	suspend := func(a, b, minutes int, limit, source string) {
		at := s.start.Add(time.Duration(minutes) * time.Minute)
		insertOne(s, Suspensions(), Suspension{Origin: s.origin(), Source: source, Brand: "main", A: Named{id(a), "email", fmt.Sprint("e", a)}, B: Named{id(b), "anonymous_id", fmt.Sprint("a", b)},
			Cap: limit, Rule: "same_event", MessageID: fmt.Sprint("m", minutes), Time: at, KnownFrom: at})
	}
	command := func(kind, outcome string, a, b, minutes int) {
		insertOne(s, Commands(), Command{Origin: s.origin(), ID: fmt.Sprint("c", s.offset), Kind: kind, Actor: "ann", Outcome: outcome, A: Named{Node: id(a)}, B: Named{Node: id(b)},
			KnownFrom: s.start.Add(time.Duration(minutes) * time.Minute)})
	}
	suspend(1, 2, 0, "links_per_identifier", "web")
	suspend(1, 2, 5, "members_per_person", "till")
	suspend(1, 3, 1, "links_per_identifier", "web")
	suspend(4, 5, 2, "links_per_identifier", "web")
	suspend(6, 7, 3, "links_per_identifier", "web")
	command("reject", "done", 1, 3, 10)
	command("link", "refused", 1, 2, 11)
	command("reject", "done", 4, 5, 10)
	command("link", "done", 4, 5, 12)
	s.redirect(7, 6, 2)
	require.NoError(t, s.ReloadPersons(t.Context()))
	list := func(f SuspendedFilter) string {
		if f.Limit == 0 {
			f.Limit = 10
		}
		rows, err := s.Suspended(t.Context(), f)
		require.NoError(t, err)
		var out []string
		for _, r := range rows {
			out = append(out, strings.TrimSpace(fmt.Sprint(r.AValue, " ", r.BValue, " ", r.Cap, " ", r.Source, " ", r.Records, " ", r.Answer, " ", r.Joined)))
		}
		return strings.Join(out, "; ")
	}
	require.Equal(t, "e1 a2 members_per_person till 2  false; e6 a7 links_per_identifier web 1  true; e4 a5 links_per_identifier web 1 link false; e1 a3 links_per_identifier web 1 reject false", list(SuspendedFilter{}))
	require.Equal(t, "e1 a2 members_per_person till 2  false", list(SuspendedFilter{Source: "till"}))
	require.Equal(t, "e1 a2 members_per_person till 2  false", list(SuspendedFilter{Cap: "members_per_person"}))
	require.Equal(t, "e1 a2 members_per_person till 2  false; e6 a7 links_per_identifier web 1  true", list(SuspendedFilter{Since: s.start.Add(3 * time.Minute), Type: "email"}))
	require.Equal(t, "e1 a2 members_per_person till 2  false", list(SuspendedFilter{Limit: 1}))
	require.Empty(t, list(SuspendedFilter{Type: "phone"}))
	require.Len(t, s.lines("SELECT a FROM ${database}.suspended_links"), 4)
}
