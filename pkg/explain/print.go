package explain

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
)

// timeText is how times are shown: UTC, to the second.
const timeText = "2006-01-02 15:04:05"

// JSON writes an answer as one indented object.
func JSON(out io.Writer, answer any) error {
	e := json.NewEncoder(out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(answer)
}

// Print writes a person for a terminal.
func (p *Person) Print(out io.Writer) error {
	fmt.Fprintf(out, "person %s: %s, %s, %s", p.ID, count(len(p.Identifiers), "identifier"), count(p.Merges, "merge"), count(int(p.Events), "event")) //nolint:gosec // a count of rows
	if p.FirstEvent != nil {
		fmt.Fprintf(out, " from %s to %s UTC", moment(p.FirstEvent), moment(p.LastEvent))
	}
	fmt.Fprintln(out)
	fmt.Fprintln(out)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "IDENTIFIER\tFIRST SEEN\tLINKED\tTO\tBY")
	for _, k := range p.Identifiers {
		linked, to, by := "-", "-", "-"
		if k.Linked != nil {
			linked, by = moment(&k.Linked.Time), k.Linked.by()
			to = Plain(k.Linked.other(k.ID).String())
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", Plain(k.String()), moment(k.FirstSeen), linked, to, by)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if len(p.FormerIDs) > 0 {
		fmt.Fprintln(out)
		fmt.Fprintln(w, "FORMER ID\tUNTIL\tBECAME\tEVENTS")
		for _, f := range p.FormerIDs {
			fmt.Fprintf(w, "%s\t%s\t%s\t%d\n", f.ID, moment(&f.Until), f.Into, f.Events)
		}
		if err := w.Flush(); err != nil {
			return err
		}
	}
	for _, s := range p.Splits {
		fmt.Fprintf(out, "\n%s\n", s.text())
	}
	if len(p.SetAside) > 0 {
		fmt.Fprintln(out)
		fmt.Fprintln(w, "SET ASIDE\tWHY\tEVENTS\tLAST\tOF")
		for _, a := range p.SetAside {
			fmt.Fprintf(w, "%s\t%s\t%d\t%s\t%s\n", Plain(a.Type), Plain(a.Reason), a.Events, moment(&a.Last), Plain(a.Source))
		}
		if err := w.Flush(); err != nil {
			return err
		}
	}
	return printPending(out, p.Pending)
}

// text is a split in a line.
func (s *Split) text() string {
	return fmt.Sprintf("%s  split off as %s (%s) by %s, command %s", s.Time.Format(timeText), s.Part, count(s.Members, "identifier"), s.by(), Plain(s.Command))
}

// by is who has said it, and why.
func (s *Said) by() string { return Plain(s.Actor) + ": " + Plain(s.Reason) }

// Print writes a chain for a terminal.
func (c *Chain) Print(out io.Writer) error {
	from, to := Plain(c.From.String()), Plain(c.To.String())
	if !c.SamePerson {
		fmt.Fprintf(out, "%s and %s are not one person:\n  %s is %s\n  %s is %s\n", from, to, from, c.PersonFrom, to, c.PersonTo)
		if c.Split != nil {
			fmt.Fprintf(out, "  split at %s by %s, command %s\n", c.Split.Time.Format(timeText), c.Split.by(), Plain(c.Split.Command))
		}
		return nil
	}
	fmt.Fprintf(out, "%s and %s are one person, %s", from, to, c.PersonFrom)
	if c.Pending != "" {
		fmt.Fprintln(out)
		return printPending(out, c.Pending)
	}
	fmt.Fprintf(out, ", by %s:\n\n  %s\n", count(len(c.Links), "link"), from)
	for _, s := range c.Links {
		fmt.Fprintf(out, "    %s  %s\n      message %s, came in at %s\n", s.Time.Format(timeText), s.by(), Plain(s.Event.MessageID), Plain(s.Event.Position))
		fmt.Fprintf(out, "  %s\n", Plain(s.To.String()))
	}
	return nil
}

// Print writes a past for a terminal.
func (p *Past) Print(out io.Writer) error {
	fmt.Fprintf(out, "person %s: %s\n", p.ID, count(len(p.Merges), "merge"))
	if len(p.Merges) > 0 {
		fmt.Fprintln(out)
	}
	for _, l := range p.Merges {
		fmt.Fprintf(out, "%s  %s (%s) became %s\n  by %s and %s, %s\n  message %s, came in at %s", l.Time.Format(timeText), l.Loser, count(l.Moved, "identifier"), l.Winner,
			Plain(l.Between[0].String()), Plain(l.Between[1].String()), l.by(), Plain(l.Event.MessageID), Plain(l.Event.Position))
		if l.KnownFrom != nil {
			fmt.Fprintf(out, ", known from %s", moment(l.KnownFrom))
		}
		fmt.Fprintln(out)
	}
	for _, s := range p.Splits {
		fmt.Fprintln(out, s.text())
	}
	return printPending(out, p.Pending)
}

// by is the rule and the event of a link.
func (l *Link) by() string {
	if l.Actor != "" { // an operator has said so
		return Plain(l.Rule) + ": " + l.Said.by()
	}
	what := l.Event.Type
	if l.Event.Name != "" {
		what = fmt.Sprintf("%s %q", what, l.Event.Name)
	}
	if what == "" {
		what = "an event that is not stored"
	}
	if l.Event.Source != "" {
		what += " of " + Plain(l.Event.Source)
	}
	return Plain(l.Rule) + ": " + what
}

// other is the identifier at the other end.
func (l *Link) other(id string) Identifier {
	if l.Between[0].ID == id {
		return l.Between[1]
	}
	return l.Between[0]
}

func printPending(out io.Writer, pending string) error {
	if pending == "" {
		return nil
	}
	_, err := fmt.Fprintln(out, "\n"+pending)
	return err
}

func moment(t *time.Time) string {
	if t == nil {
		return "-"
	}
	return t.UTC().Format(timeText)
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// Plain takes from text what a terminal would obey: values are what somebody has sent.
func Plain(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, text)
}
