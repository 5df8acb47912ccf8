package identity

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Judgement writes down what a policy judges by, a line "name = value" for each thing: what all who work on a graph must have
// alike. What says only which identifiers an event has does not belong to it.
func (r *Rules) Judgement(p Policy) string {
	var names, lines []string
	add := func(name, format string, args ...any) { lines = append(lines, name+" = "+fmt.Sprintf(format, args...)) }
	for _, t := range r.types {
		names = append(names, fmt.Sprintf("%s %#x %s", t.Name, t.Rank, t.Scope))
		at := "types." + t.Name + "."
		add(at+"priority", "%d", t.Priority)
		add(at+"limit", "%s", t.Limit)
		add(at+"known", "%t", t.Known)
		add(at+"device", "%t", t.Device)
		add(at+"weak", "%t", t.Weak)
		add(at+"trust", "%s", t.Trust)
	}
	slices.Sort(names)
	add("types", "%s", strings.Join(names, ", "))
	add("default_limit", "%s", r.other.Limit)
	claims := p.Claims
	if claims == "" {
		claims = ClaimsNew
	}
	add("identity.claims", "%s", claims)
	for name, n := range map[Cap]int{
		CapMembers: p.Caps.Members, CapMerges: p.Caps.Merges, CapDegree: p.Caps.Degree, CapPerMinute: p.Caps.PerMinute,
		CapPerMinuteSource: p.Caps.PerMinutePerSource,
	} {
		add("identity.governor."+string(name), "%d", n)
	}
	if d := p.Devices; d != nil {
		after := "nobody"
		if d.KeepOwner {
			after = "owner"
		}
		add("devices.inactivity", "%s", d.Idle)
		add("devices.after_log_out", "%s", after)
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// Differences says what two judgements have differently, of what both know: a newer version may know more.
func Differences(stands, mine string) []string {
	read := func(text string) map[string]string {
		m := map[string]string{}
		for line := range strings.SplitSeq(text, "\n") {
			name, value, _ := strings.Cut(line, " = ")
			m[name] = value
		}
		return m
	}
	was, is := read(stands), read(mine)
	var out []string
	for name, value := range is {
		if old, ok := was[name]; ok && old != value {
			out = append(out, fmt.Sprintf("%s is %s there, %s here", name, old, value))
		}
	}
	slices.Sort(out)
	return out
}

func (l Limit) String() string {
	switch {
	case l.Values == 0:
		return "any number"
	case l.Per == 0:
		return fmt.Sprintf("%d ever", l.Values)
	}
	return fmt.Sprintf("%d in %d days", l.Values, l.Per/(24*time.Hour))
}

func (t Trust) String() string {
	if t == TrustTrusted {
		return "trusted"
	}
	return "any"
}
