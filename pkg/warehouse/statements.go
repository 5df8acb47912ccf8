package warehouse

import "strings"

// splitStatements cuts SQL text into its statements, at semicolons outside of quotes and comments. Comments
// that stand before a statement fall away; an empty statement is none.
func splitStatements(text string) []string {
	var out []string
	var cur strings.Builder
	flush := func() {
		if s := strings.TrimSpace(cur.String()); s != "" {
			out = append(out, s)
		}
		cur.Reset()
	}
	for i := 0; i < len(text); {
		switch c := text[i]; {
		case strings.HasPrefix(text[i:], "--"):
			i += lengthTo(text[i:], "\n")
		case strings.HasPrefix(text[i:], "/*"):
			i += lengthTo(text[i:], "*/")
		case c == '\'' || c == '"' || c == '`':
			n := quoted(text[i:])
			cur.WriteString(text[i : i+n])
			i += n
		case c == ';':
			flush()
			i++
		default:
			cur.WriteByte(c)
			i++
		}
	}
	flush()
	return out
}

// lengthTo is how long s is up to and with end; all of s if end does not come.
func lengthTo(s, end string) int {
	if i := strings.Index(s, end); i >= 0 {
		return i + len(end)
	}
	return len(s)
}

// quoted is the length of the quoted text that s begins with: ends at the same quote, unless that is
// doubled or escaped by a backslash.
func quoted(s string) int {
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case s[0]:
			if i+1 < len(s) && s[i+1] == s[0] {
				i++
				continue
			}
			return i + 1
		}
	}
	return len(s)
}

// sqlEscaper makes text safe inside single quotes.
var sqlEscaper = strings.NewReplacer(`\`, `\\`, `'`, `\'`)
