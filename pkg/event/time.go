package event

import (
	"strconv"
	"strings"
	"time"
)

// MaxFuture is how far ahead of its receipt an event may claim to have happened; later ones are clamped to
// the receipt (field facts 5.6).
const MaxFuture = 5 * time.Minute

// Bounds that tell seconds from milliseconds and finer units in a bare number: each covers 1970 to 5138.
const (
	maxUnixSeconds = 100_000_000_000
	maxUnixMillis  = maxUnixSeconds * 1000
	maxUnixMicros  = maxUnixMillis * 1000
)

// ParseTime reads a time as senders write it: RFC 3339 with any number of decimals and any offset, with 'T'
// or a space, without an offset (then UTC), a bare date, or Unix seconds (decimals allowed), milliseconds
// or microseconds as digits. It returns UTC, cut to milliseconds. Times before 1970 are not times: several
// languages send their zero value (0001-01-01) for "none".
func ParseTime(s string) (time.Time, bool) {
	if t, ok := parseUsual(s); ok {
		return t, true
	}
	s = strings.TrimSpace(s)
	if s == "" {
		return time.Time{}, false
	}
	if len(s) < 8 || len(s) > 40 {
		if _, err := strconv.ParseFloat(s, 64); err != nil || len(s) > 40 {
			return time.Time{}, false
		}
	}
	var t time.Time
	var ok bool
	if len(s) < 8 || s[4] != '-' { // 2006-01-02, the usual form, is no number
		if t, ok = parseCompact(s); !ok {
			t, ok = parseUnix(s)
		}
	}
	if !ok {
		t, ok = parseText(s)
	}
	if !ok || t.Unix() < 0 || t.UTC().Year() > 9999 { // of UTC: behind an offset 9999 may be 10000, which is no RFC 3339
		return time.Time{}, false
	}
	return t.UTC().Truncate(time.Millisecond), true
}

// parseUsual reads what JavaScript's toISOString writes, 2006-01-02T15:04:05.000Z, from 1970 on: nearly every time that
// comes, and time.Parse takes a tenth of the time that an event takes.
func parseUsual(s string) (time.Time, bool) {
	const usual = "2006-01-02T15:04:05.000Z"
	if len(s) != len(usual) {
		return time.Time{}, false
	}
	var part [7]int // year to millisecond
	at := 0
	for i := range len(usual) {
		digit := s[i] - '0'
		switch {
		case usual[i] >= '0' && usual[i] <= '9':
			if digit > 9 {
				return time.Time{}, false
			}
			part[at] = 10*part[at] + int(digit)
		case usual[i] != s[i]:
			return time.Time{}, false
		default:
			at++
		}
	}
	if part[0] < 1970 || part[1] < 1 || part[1] > 12 || part[2] < 1 || part[3] > 23 || part[4] > 59 || part[5] > 59 {
		return time.Time{}, false
	}
	t := time.Date(part[0], time.Month(part[1]), part[2], part[3], part[4], part[5], part[6]*int(time.Millisecond), time.UTC)
	return t, part[2] <= 28 || t.Day() == part[2] // Date takes 30 February for 2 March
}

// parseCompact reads 8 or 14 digits that begin with the century: as a number they would be seconds of
// August 1970 or milliseconds of the 26th century.
func parseCompact(s string) (time.Time, bool) {
	if !strings.HasPrefix(s, "19") && !strings.HasPrefix(s, "20") || len(s) != 8 && len(s) != 14 {
		return time.Time{}, false
	}
	t, err := time.Parse("20060102150405"[:len(s)], s)
	return t, err == nil
}

func parseUnix(s string) (time.Time, bool) {
	if strings.Trim(s, "0123456789.") != "" { // what follows allocates for its error
		return time.Time{}, false
	}
	whole, fraction, _ := strings.Cut(s, ".")
	n, err := strconv.ParseInt(whole, 10, 64)
	if err != nil || n < 0 {
		return time.Time{}, false
	}
	switch {
	case n < maxUnixSeconds:
		if fraction == "" {
			return time.Unix(n, 0), true
		}
		f, err := strconv.ParseFloat("0."+fraction, 64)
		if err != nil {
			return time.Time{}, false
		}
		return time.Unix(n, int64(f*1e9)), true
	case n < maxUnixMillis:
		return time.UnixMilli(n), true
	case n < maxUnixMicros:
		return time.UnixMicro(n), true
	}
	return time.Time{}, false
}

func parseText(s string) (time.Time, bool) {
	if len(s) > 10 && (s[10] == ' ' || s[10] == 't') {
		s = s[:10] + "T" + s[11:]
	}
	if n := len(s); n > 10 && s[n-1] == 'z' {
		s = s[:n-1] + "Z"
	}
	for _, layout := range []string{
		time.RFC3339, // reads any number of decimals
		"2006-01-02T15:04:05Z0700",
		"2006-01-02T15:04:05",
		"2006-01-02T15:04Z07:00",
		"2006-01-02T15:04",
		"2006-01-02",
		"20060102T150405Z0700",
	} {
		if t, err := time.Parse(layout, s); err == nil {
			return t, true
		}
	}
	return time.Time{}, false
}
