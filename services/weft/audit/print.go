package audit

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// Print writes a report for people: a line per source, the minutes that do not balance (all of them with
// minutes), what was stored twice, and the verdict.
func (r Report) Print(w io.Writer, minutes bool) error {
	var b strings.Builder
	if !r.From.IsZero() {
		fmt.Fprintf(&b, "Received since %s (UTC):\n", r.From.UTC().Format("2006-01-02 15:04"))
	}
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "brand\tsource\taccepted\t=\tstored\t+\trejected\t+\tduplicate\tmissing\t")
	row := func(brand, source string, l Line) {
		fmt.Fprintf(t, "%s\t%s\t%d\t\t%d\t\t%d\t\t%d\t%s\t\n", brand, source, l.Accepted, l.Stored, l.Rejected, l.Duplicate, missing(l))
	}
	for _, l := range r.Sources() {
		row(named(l.Brand), named(l.Source), l)
	}
	row("", "all", r.Total())
	for _, l := range r.Lines {
		if minutes || l.Missing() != 0 {
			row(named(l.Brand), named(l.Source)+" "+minute(l.Minute), l)
		}
	}
	if err := t.Flush(); err != nil {
		return fmt.Errorf("print the audit: %w", err)
	}
	if n := r.Total().Later; n > 0 {
		fmt.Fprintf(&b, "%d of the stored events were refused by a later stage; see events_rejected.\n", n)
	}
	for _, d := range r.Doubles {
		fmt.Fprintf(&b, "stored %d times in %s: %s partition %d offset %d\n", d.Rows, d.Table, d.Topic, d.Partition, d.Offset)
	}
	for _, l := range r.Lags {
		fmt.Fprintf(&b, "%s is %d records behind on %s\n", l.Stage, l.Records, l.Topic)
	}
	verdict := "no"
	if r.Closes() {
		verdict = "yes"
		if r.Total().Open {
			verdict = "yes, but for the minutes marked open, whose events were still arriving"
		}
	}
	fmt.Fprintf(&b, "closes: %s\n", verdict)
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("print the audit: %w", err)
	}
	return nil
}

func missing(l Line) string {
	n := l.Missing()
	text := ""
	if n != 0 {
		text = strconv.FormatInt(n, 10)
	}
	if l.Open {
		text += " open"
	}
	return text
}

func named(s string) string {
	if s == "" {
		return "(unknown)"
	}
	return s
}

func minute(t time.Time) string {
	if t.Unix() == 0 {
		return "(time unknown)"
	}
	return t.UTC().Format("2006-01-02 15:04")
}
