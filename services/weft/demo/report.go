package demo

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// page is a report on its way to the screen.
type page struct{ strings.Builder }

func (p *page) line(format string, args ...any) { fmt.Fprintf(p, format+"\n", args...) }

func (p *page) title(text string) { p.line("\n%s\n%s", text, strings.Repeat("-", len([]rune(text)))) }

// table aligns rows: words to the left, numbers to the right.
func (p *page) table(rows [][]string) {
	w := tabwriter.NewWriter(p, 0, 0, 2, ' ', 0)
	widths := map[int]int{}
	for _, r := range rows {
		for i, cell := range r {
			widths[i] = max(widths[i], len([]rune(cell)))
		}
	}
	for _, r := range rows {
		for i, cell := range r {
			if i > 0 && numeric(rows, i) {
				cell = strings.Repeat(" ", widths[i]-len([]rune(cell))) + cell
			}
			_, _ = fmt.Fprint(w, "  "[min(i, 1)*2:], cell, "\t") // into memory
		}
		_, _ = fmt.Fprintln(w)
	}
	_ = w.Flush() // into memory
}

// numeric says whether a column holds numbers, apart from its title.
func numeric(rows [][]string, column int) bool {
	for _, r := range rows[1:] {
		if column < len(r) && r[column] != "" && !strings.ContainsAny(r[column][:1], "0123456789-") {
			return false
		}
	}
	return len(rows) > 1
}

func number[T int | int64 | uint64](n T) string {
	text := strconv.FormatInt(int64(n), 10)
	for i := len(text) - 3; i > 0 && text[i-1] != '-'; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

func percent(part, whole uint64) string {
	if whole == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f %%", 100*float64(part)/float64(whole))
}

// print writes the page of results.
func (r *Run) print(t Truth, f Facts, v Verdict, sent time.Duration) error {
	var p page
	p.line("\n=== What Weft made of the shop " + strings.Repeat("=", 60))
	r.events(&p, t, f)
	r.people(&p, t, f)
	r.funnel(&p, f)
	r.cartsOf(&p, t, f)
	r.messages(&p, t, f, v)
	r.twoMails(&p)
	r.explore(&p, t)
	r.verdict(&p, v)
	p.line("(%d visitors, seed %d; sent in %s, all done after %s)", len(r.opt.Visitors), r.plan.Seed,
		sent.Round(time.Second), time.Since(r.opened).Round(time.Second))
	if _, err := io.WriteString(r.opt.Out, p.String()); err != nil {
		return fmt.Errorf("print the report: %w", err)
	}
	return nil
}

func (r *Run) events(p *page, t Truth, f Facts) {
	p.title("Events: nothing is lost, nothing counts twice")
	sum := f.Audit.Total()
	p.line("  %s accepted  =  %s stored  +  %s rejected  +  %s duplicate     closes: %s",
		number(sum.Accepted), number(sum.Stored), number(sum.Rejected), number(sum.Duplicate), yes(f.Audit.Closes()))
	rows := [][]string{{"source", "accepted", "stored", "rejected", "duplicate"}}
	for _, l := range f.Audit.Sources() {
		rows = append(rows, []string{l.Source, number(l.Accepted), number(l.Stored), number(l.Rejected), number(l.Duplicate)})
	}
	p.table(rows)
	if len(f.Rejected) > 0 {
		var why []string
		for _, x := range f.Rejected[:min(len(f.Rejected), 4)] {
			why = append(why, fmt.Sprintf("%s %s from %s", number(x.Rows), x.Reason, x.Source))
		}
		p.line("  Rejected, kept with the reason: %s.", strings.Join(why, "; "))
	}
	p.line("  The shop sent %s events twice on purpose, as senders do whose answer got lost.", number(t.Resent))
}

func (r *Run) people(p *page, t Truth, f Facts) {
	p.title("People")
	p.line("  %s people behind %s identifiers (cookies, app installations, log-ins, e-mail addresses, cards):",
		number(f.People), number(t.Nodes))
	p.line("  %s times two of them turned out to be one person. The simulator knows of %s people.", number(f.Joins), number(t.People))
}

func (r *Run) funnel(p *page, f Facts) {
	p.title("The funnel, in people, by the device they began on")
	rows := [][]string{{"device", "viewed", "added", "checkout", "ordered", "conversion"}}
	for _, s := range f.Funnel {
		rows = append(rows, []string{
			cmp.Or(s.Device, "(till, shop)"), number(s.Viewed), number(s.Added), number(s.Checkout), number(s.Ordered), percent(s.Ordered, s.Viewed),
		})
	}
	p.table(rows)
	p.line("  Orders: %s, worth %s %s.", number(f.Orders.Orders), grouped(trim(f.Orders.Revenue)), Currency)
}

// grouped puts separators into an amount.
func grouped(text string) string {
	whole, frac, _ := strings.Cut(text, ".")
	n, err := strconv.ParseInt(whole, 10, 64)
	if err != nil {
		return text
	}
	return number(n) + "." + frac
}

func (r *Run) cartsOf(p *page, t Truth, f Facts) {
	p.title("Carts")
	byStatus := map[string]carts{}
	for _, c := range f.Carts {
		byStatus[c.Status] = c
	}
	left, bought := byStatus["abandoned"], byStatus["ordered"]
	p.line("  %s carts: %s ordered, %s abandoned (no order within %d s of the last activity), %s emptied.",
		number(sumOf(f.Carts, func(c carts) uint64 { return c.Carts })), number(bought.Carts), number(left.Carts), r.within(), number(byStatus["emptied"].Carts))
	p.line("  Abandonment rate %s; %s %s were left lying.", percent(left.Carts, left.Carts+bought.Carts), grouped(trim(left.Value)), Currency)
	won := first(f.Recovered)
	p.line("  Recovered after a reminder: %s carts, worth %s %s.", number(won.Carts), grouped(trim(won.Revenue)), Currency)
	p.line("  %s carts were bought on another device or at the till about %s before their reminder was due.", number(t.Close), Margin)
}

func (r *Run) messages(p *page, t Truth, f Facts, v Verdict) {
	p.title("Reminders: one end for every cart, and why")
	count := map[Ending]int{}
	for _, x := range f.Receipts {
		count[x.ending()]++
	}
	list := make([]Ending, 0, len(count))
	for e := range count {
		list = append(list, e)
	}
	slices.SortFunc(list, func(a, b Ending) int { return cmp.Or(cmp.Compare(count[b], count[a]), cmp.Compare(a.Reason, b.Reason)) })
	rows := [][]string{{"outcome", "reason", "carts", ""}}
	for _, e := range list {
		rows = append(rows, []string{e.Outcome, e.Reason, number(count[e]), meaning(e)})
	}
	p.table(rows)
	if v.Unseen > 0 {
		p.line("  %d carts have none: news of their purchase was faster than of themselves, so nothing was open.", v.Unseen)
	}
	p.line("  Messages after a purchase: %d   (checked against the simulator's own record of %s carts)", v.AfterPurchase, number(len(t.Carts)))
}

func meaning(e Ending) string {
	switch e {
	case Sent:
		return "the reminder went out"
	case Purchased:
		return "bought in time: on any device, or at the till"
	case Emptied:
		return "nothing was left in the cart"
	case NoConsent:
		return "nobody has asked this person, or it is nobody known"
	case Denied:
		return "the person said no"
	case Unsubscribed:
		return "the person used the link of an earlier mail"
	case OnList:
		return "the address is on the suppression list"
	case Historical:
		return "an imported cart of last year"
	case ChannelOff:
		return "no mail server is configured"
	case Merged:
		return "the same cart on two devices of one person"
	}
	return ""
}

// maxMailLines is how much of a mail is shown.
const maxMailLines = 16

func (r *Run) twoMails(p *page) {
	mails, _ := r.mails()
	if len(mails) == 0 {
		return
	}
	p.title("Two of the mails, as they were received")
	for _, i := range []int{0, len(mails) / 2}[:min(2, len(mails))] {
		m := mails[i]
		p.line("  | From: %s", m.From)
		p.line("  | To: %s", m.To)
		p.line("  | Subject: %s", m.Subject)
		p.line("  |")
		lines := strings.Split(strings.TrimSpace(m.Text), "\n")
		for _, l := range lines[:min(len(lines), maxMailLines)] {
			if runes := []rune(l); len(runes) > 100 {
				l = string(runes[:97]) + "..."
			}
			p.line("  | %s", l)
		}
		if len(lines) > maxMailLines {
			p.line("  | ...")
		}
		p.line("")
	}
}

func (r *Run) explore(p *page, t Truth) {
	at := r.opt.Places
	p.title("Look around yourself")
	if !at.Kept {
		p.line("  These go away now; 'weft demo --keep' (make demo ARGS=--keep) leaves everything up.")
	}
	if at.Door != "" {
		p.line("  Send an event:     curl -u %s: %s/v1/track -d '{\"userId\":\"me\",\"event\":\"Product Viewed\",\"properties\":{\"product_id\":\"tea-204\"}}'", at.WriteKey, at.Door)
	}
	if at.Profiles != "" && t.SampleKnown != "" {
		p.line("  Who is somebody?   curl -H 'Authorization: Bearer %s' %s/v1/profiles/email/%s", at.AccessKey, at.Profiles, t.SampleKnown)
	}
	if at.Journeys != "" {
		p.line("  Edit the reminder: %s (the running service takes it within a second or two)", at.Journeys)
	}
	if at.Admin != "" {
		p.line("  Health, metrics:   %s/readyz  %s/metrics", at.Admin, at.Admin)
	}
	if at.ClickHouse != "" {
		p.line("  ClickHouse:        %s (native), database %s, user analyst reads the views", at.ClickHouse, at.Database)
	}
	if at.ClickHouseUI != "" {
		p.line("                     %s/play in a browser, or: curl '%s/?user=analyst&database=%s' -d 'QUERY'", at.ClickHouseUI, at.ClickHouseUI, at.Database)
	}
	if at.Logs != "" {
		p.line("  What it said:      %s", at.Logs)
	}
	p.line("\n  Three questions to ask ClickHouse:")
	p.line("    SELECT outcome, reason, carts, people FROM messages_by_outcome ORDER BY carts DESC")
	p.line("    SELECT device, viewed, added, checkout, ordered FROM funnel(from = '%s', to = '%s', brand = '', window = 86400)",
		r.opened.UTC().Format("2006-01-02"), r.opened.UTC().AddDate(0, 0, 1).Format("2006-01-02"))
	p.line("    SELECT time, what, device, amount FROM person_timeline(person = (SELECT toString(any(person_id)) FROM recovered_carts(from = '%s', to = '%s', brand = '', within = 86400)))",
		r.opened.UTC().Format("2006-01-02"), r.opened.UTC().AddDate(0, 0, 1).Format("2006-01-02"))
}

func (r *Run) verdict(p *page, v Verdict) {
	p.title("Against the simulator's truth")
	rows := [][]string{{"", "found", "truth", ""}}
	for _, c := range v.Checks {
		mark := "ok"
		if !c.OK {
			mark = "WRONG"
		}
		rows = append(rows, []string{c.What, c.Found, c.Truth, mark})
	}
	p.table(rows)
	if v.Late > 0 {
		p.line("  %d carts cannot be judged: this machine was so busy that visitors' actions arrived after their reminder was due.", v.Late)
	}
	for _, f := range v.Faults {
		p.line("  WRONG: %s", f)
	}
	if v.OK() {
		p.line("\nEverything is as it must be.")
	} else {
		p.line("\nNOT everything is as it must be: see the lines marked WRONG.")
	}
}
