package demo

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/weft-cdp/weft/pkg/config"
)

func anyPlan() *rapid.Generator[Plan] {
	return rapid.Custom(func(t *rapid.T) Plan {
		return Plan{
			Seed: rapid.Uint64().Draw(t, "seed"), Visitors: rapid.IntRange(1, 60).Draw(t, "visitors"), Run: "t",
			Delay: time.Duration(rapid.IntRange(3, 20).Draw(t, "delay")) * time.Second,
			Over:  time.Duration(rapid.IntRange(1, 60).Draw(t, "over")) * time.Second, Mailbox: rapid.Bool().Draw(t, "mailbox"), List: rapid.Bool().Draw(t, "list"),
		}
	})
}

func TestTheSameSeedTellsTheSameStories(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := anyPlan().Draw(t, "plan")
		require.Equal(t, Generate(p), Generate(p))
	})
}

func TestIdsAreUniqueAndActionsInOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := anyPlan().Draw(t, "plan")
		ids := map[string]int{}
		owner := map[string]int{} // of what belongs to one visitor
		mine := func(v Visitor, what string) {
			if what == "" {
				return
			}
			if n, ok := owner[what]; ok && n != v.N {
				t.Fatalf("%s belongs to %d and %d", what, n, v.N)
			}
			owner[what] = v.N
		}
		for _, v := range Generate(p) {
			require.Less(t, v.Start, p.Over)
			for _, c := range v.Carts {
				ids["cart "+c.ID]++
				mine(v, c.ID)
			}
			for i, part := range v.Parts {
				require.Equal(t, i > 0, part.AfterMail)
				require.NotEmpty(t, part.Actions, v.Story)
				if i > 0 {
					require.True(t, p.Mailbox)
					require.NotEmpty(t, v.Email)
				}
				require.True(t, slices.IsSortedFunc(part.Actions, func(a, b Action) int { return int(a.At - b.At) }), v.Story)
				for _, a := range part.Actions {
					ids["message "+a.ID]++
					mine(v, a.Device)
					mine(v, a.Order)
					require.True(t, a.Cart == "" || slices.ContainsFunc(v.Carts, func(c Cart) bool { return c.ID == a.Cart }))
				}
			}
		}
		for id, n := range ids {
			require.Equal(t, 1, n, id)
		}
	})
}

// The truth of the stories is what Weft's rules say, as long as nothing is late.
func TestEveryStoryEndsAsItSays(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		plan := anyPlan().Draw(t, "plan")
		visitors := Generate(plan)
		p := newPaper(&shell{T: t}, plan, visitors)
		p.play()
		truth := p.ledger.Truth(visitors, plan.Delay)
		v := judge(p.results(truth), truth, p.mails, nil, true)
		require.Empty(t, v.Faults)
		require.True(t, v.OK(), "%+v", v.Checks)
		require.Zero(t, v.Late)
		require.Zero(t, v.Unseen)
	})
}

func TestEveryStoryIsTold(t *testing.T) {
	plan := Plan{Seed: 3, Visitors: 100, Run: "t", Delay: 6 * time.Second, Over: time.Second, Mailbox: true, List: true}
	told := map[string]bool{}
	endings := map[Ending]bool{}
	for _, v := range Generate(plan) {
		told[v.Story] = true
		for _, c := range v.Carts {
			endings[c.Want] = true
		}
	}
	require.Len(t, told, len(stories(plan)))
	require.Len(t, endings, 8, "every ending but 'merged', which may come beside another")
}

// shell is a rapid.T where a testing.TB is wanted.
type shell struct {
	testing.TB
	T *rapid.T
}

func (s *shell) Helper()                        { s.T.Helper() }
func (s *shell) Errorf(format string, a ...any) { s.T.Errorf(format, a...) }
func (s *shell) FailNow()                       { s.T.FailNow() }

// paperRun is a played shop and what was found of it.
func paperRun(t *testing.T, seed uint64, n int) (Truth, Facts, []Mail) {
	t.Helper()
	plan := Plan{Seed: seed, Visitors: n, Run: "t", Delay: 6 * time.Second, Over: 10 * time.Second, Mailbox: true, List: true}
	visitors := Generate(plan)
	p := newPaper(t, plan, visitors)
	p.play()
	truth := p.ledger.Truth(visitors, plan.Delay)
	return truth, p.results(truth), p.mails
}

// sent is the place of a receipt of a mail.
func sent(f *Facts) int {
	return slices.IndexFunc(f.Receipts, func(r receipt) bool { return r.ending() == Sent })
}

func TestJudgeFindsWhatIsWrong(t *testing.T) {
	wrong := map[string]func(tr *Truth, f *Facts, m *[]Mail){
		"a lost event":          func(_ *Truth, f *Facts, _ *[]Mail) { f.Audit.Lines[0].Stored-- },
		"an event too many":     func(_ *Truth, f *Facts, _ *[]Mail) { f.Audit.Lines[0].Stored++; f.Audit.Lines[0].Accepted++ },
		"a duplicate kept":      func(_ *Truth, f *Facts, _ *[]Mail) { f.Audit.Lines[0].Stored++; f.Audit.Lines[0].Duplicate-- },
		"two people for one":    func(_ *Truth, f *Facts, _ *[]Mail) { f.People++ },
		"a profile too few":     func(_ *Truth, f *Facts, _ *[]Mail) { f.Profiles.People-- },
		"an order twice":        func(_ *Truth, f *Facts, _ *[]Mail) { f.Orders.Orders++ },
		"a cent":                func(_ *Truth, f *Facts, _ *[]Mail) { f.Orders.Revenue = "1.0000" },
		"a cent in profiles":    func(_ *Truth, f *Facts, _ *[]Mail) { f.Profiles.Revenue = "1.0000" },
		"a cart without an end": func(_ *Truth, f *Facts, _ *[]Mail) { f.Receipts = slices.Delete(f.Receipts, sent(f), sent(f)+1) },
		"a cart with two ends":  func(_ *Truth, f *Facts, _ *[]Mail) { f.Receipts = append(f.Receipts, f.Receipts[sent(f)]) },
		"a cart of nobody":      func(_ *Truth, f *Facts, _ *[]Mail) { f.Receipts = append(f.Receipts, receipt{Cart: "x"}) },
		"a mail lost":           func(_ *Truth, _ *Facts, m *[]Mail) { *m = (*m)[1:] },
		"a mail twice":          func(_ *Truth, _ *Facts, m *[]Mail) { *m = append(*m, (*m)[0]) },
		"a mail to a stranger":  func(_ *Truth, _ *Facts, m *[]Mail) { *m = append(*m, Mail{To: "x@y"}) },
		"a mail without lines": func(_ *Truth, _ *Facts, m *[]Mail) {
			for i := range *m {
				(*m)[i].Text = "Hello"
			}
		},
		"a visitor without answer": func(tr *Truth, _ *Facts, _ *[]Mail) { tr.Unanswered = []int{7} },
	}
	for name, spoil := range wrong {
		t.Run(name, func(t *testing.T) {
			truth, facts, mails := paperRun(t, 11, 150)
			require.True(t, judge(facts, truth, mails, nil, true).OK())
			spoil(&truth, &facts, &mails)
			require.False(t, judge(facts, truth, mails, nil, true).OK())
		})
	}
}

func TestAMessageAfterAPurchaseIsCounted(t *testing.T) {
	truth, facts, mails := paperRun(t, 5, 200)
	spoilt := 0
	for i := range facts.Receipts {
		r := &facts.Receipts[i]
		if c := truth.Carts[r.Cart]; c.Elsewhere {
			r.Outcome, r.Reason = Sent.Outcome, Sent.Reason
			r.Settled = c.Due.Add(time.Second)
			spoilt++
		}
	}
	require.Positive(t, spoilt)
	v := judge(facts, truth, mails, nil, true)
	require.Equal(t, spoilt, v.AfterPurchase)
	require.False(t, v.OK())
}

func TestWithoutAMailboxThereNeedBeNoMailServer(t *testing.T) {
	truth, facts, mails := paperRun(t, 5, 100)
	for i := range facts.Receipts {
		if r := &facts.Receipts[i]; r.ending() == Sent {
			r.Outcome, r.Reason = ChannelOff.Outcome, ChannelOff.Reason
		}
	}
	require.True(t, judge(facts, truth, nil, nil, true).OK())
	require.False(t, judge(facts, truth, mails, nil, true).OK())
}

func TestNewsThatCameTooLateIsNotJudged(t *testing.T) {
	plan := Plan{Seed: 1, Visitors: 300, Run: "t", Delay: 6 * time.Second, Over: 10 * time.Second}
	visitors := Generate(plan)
	p := newPaper(t, plan, visitors)
	p.play()
	var cart string
	for i := range visitors {
		v := &visitors[i]
		if v.Story != storyTill || cart != "" {
			continue
		}
		cart = v.Carts[0].ID
		v.eachAction(func(a *Action) {
			if a.Order != "" { // Kafka had it two seconds late
				d := p.ledger.done[a]
				d.Acked = d.Acked.Add(2 * time.Second)
				p.ledger.done[a] = d
			}
		})
	}
	truth := p.ledger.Truth(visitors, plan.Delay)
	require.True(t, truth.Carts[cart].Late)
	facts := p.results(truth)
	for i := range facts.Receipts {
		if r := &facts.Receipts[i]; r.Cart == cart {
			r.Outcome, r.Reason, r.Settled = "delivered", "sent", truth.Carts[cart].Due.Add(time.Second)
			r.Due = truth.Carts[cart].Due
		}
	}
	v := judge(facts, truth, nil, nil, true)
	require.Equal(t, 1, v.Late)
	require.Zero(t, v.AfterPurchase, "the purchase became known after the message was due")
	require.True(t, v.OK(), "%v", v.Faults)
}

func TestReportIsForPeople(t *testing.T) {
	truth, facts, mails := paperRun(t, 2, 400)
	var out bytes.Buffer
	box := &Mailbox{mails: mails}
	r := NewRun(Plan{Seed: 2, Delay: 6 * time.Second}, Options{Out: &out, Mailbox: box, Visitors: make([]Visitor, 400), Places: Places{
		Door: "http://door", WriteKey: "k", Profiles: "http://profiles", AccessKey: "a", Admin: "http://admin", ClickHouse: "ch:1", ClickHouseUI: "http://ch", Database: "weft",
	}})
	r.opened = time.Now()
	v := judge(facts, truth, mails, nil, true)
	require.NoError(t, r.print(truth, facts, v, time.Minute))
	text := out.String()
	for _, want := range []string{
		"closes: yes", "people behind", "Messages after a purchase: 0", "your cart is waiting", "curl -u k: http://door/v1/track", "Bearer a' http://profiles/v1/profiles/email/",
		"http://ch/play", "SELECT outcome, reason", "Everything is as it must be.", "bought in time",
	} {
		require.Contains(t, text, want)
	}
	require.NotContains(t, text, "WRONG")
	require.Equal(t, 2, strings.Count(text, "  | To: "))

	facts.People++
	out.Reset()
	require.NoError(t, r.print(truth, facts, judge(facts, truth, mails, nil, true), time.Minute))
	require.Contains(t, out.String(), "NOT everything is as it must be")
}

func TestConfigureIsAnOrdinaryConfiguration(t *testing.T) {
	plan := Plan{Seed: 1, Visitors: 50, Run: "t", Delay: 6 * time.Second, Over: time.Second, List: true}
	cfg := config.Defaults()
	require.NoError(t, Configure(&cfg, t.TempDir(), plan, Generate(plan), "127.0.0.1:2525"))
	require.Equal(t, "http://"+cfg.Collector.Listen, cfg.Activator.PublicURL)
	for _, ch := range []Channel{Web, App, Shop} {
		src, ok := sourceFor(ch, config.Defaults().Collector.Sources)
		require.False(t, ok, "%v", src)
		src, ok = sourceFor(ch, cfg.Collector.Sources)
		require.True(t, ok)
		require.Equal(t, string(ch), src.Name)
	}
	src, ok := sourceFor(App, []config.Source{{Name: "backend", Trusted: true, WriteKey: "b"}, {Name: "app"}, {Name: "shop-web", WriteKey: "w"}})
	require.True(t, ok)
	require.Equal(t, "shop-web", src.Name)
}

func TestMoney(t *testing.T) {
	for cents, want := range map[int64]string{0: "0.00", 5: "0.05", 123456: "1234.56", -7: "-0.07"} {
		require.Equal(t, want, Money(cents))
	}
	for text, want := range map[string]string{"": "0.00", "12": "12.00", "12.3": "12.30", "12.3400": "12.34", "12.3456": "12.3456"} {
		require.Equal(t, want, trim(text))
	}
	require.Equal(t, "1,234,567.80", grouped("1234567.80"))
	require.Equal(t, "-12", number(-12))
	require.Equal(t, "-1,234", number(-1234))
}
