package event

import "strings"

// Flags of an event: what the collector found or did about it, without refusing it. The set is closed: they are
// words of a column in ClickHouse, and analysts filter by them.
const (
	FlagLateClamped   = "late_clamped"   // it claimed to be later than its receipt plus MaxFuture: its time is the receipt
	FlagSkewCorrected = "skew_corrected" // the sender's clock was off: its time was moved by the difference
	FlagBot           = "bot"            // the user agent is that of a program, not of a person
	FlagPlanViolation = "plan_violation" // it does not fit the source's tracking plan, which lets it pass
)

// AllFlags lists every flag there is.
func AllFlags() []string {
	return []string{FlagLateClamped, FlagSkewCorrected, FlagBot, FlagPlanViolation}
}

const flagSeparator = ","

// AddFlag sets a flag; one that is set already stays once.
func (m *Meta) AddFlag(flag string) {
	switch {
	case m.Flags == "":
		m.Flags = flag
	case !m.HasFlag(flag):
		m.Flags += flagSeparator + flag
	}
}

// HasFlag says whether a flag is set.
func (m *Meta) HasFlag(flag string) bool {
	for f := range strings.SplitSeq(m.Flags, flagSeparator) {
		if f == flag && f != "" {
			return true
		}
	}
	return false
}

// AppendFlags adds the flags that are set to dst; the texts alias Flags.
func (m *Meta) AppendFlags(dst []string) []string {
	for f := range strings.SplitSeq(m.Flags, flagSeparator) {
		if f != "" {
			dst = append(dst, f)
		}
	}
	return dst
}
