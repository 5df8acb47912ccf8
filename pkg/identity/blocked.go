package identity

import "strings"

// DefaultBlocked are the values, in lower case, that are no identifier whatever their type: what programs
// send when they have none, and constants seen to make one giant person of a whole shop. Sources: the lists
// that Segment suggests and that PostHog refuses, and Tealium's advice (features 3.1, 3.3, 3.4). Besides
// these, anything made of zeros, dashes, dots and plus signs alone is blocked: 0, 000, the all-zero UUID and
// advertising id, +000.
func DefaultBlocked() []string {
	return []string{
		"-1", "null", "(null)", "<null>", "nil", "<nil>", "none", "undefined", "nan", "[object object]", "{}", "[]", `""`, "''",
		"true", "false", "n/a", "not set", "(not set)", "not_set", "not provided", "not_provided",
		"anonymous", "anon", "guest", "unknown", "not_authenticated",
		"id", "user_id", "userid", "distinct_id", "distinctid", "anonymous_id", "anonymousid", "email", "phone",
	}
}

// isBlocked says whether a trimmed value names nobody.
func (r *Rules) isBlocked(value string) bool {
	if strings.Trim(value, "0-.+") == "" {
		return true
	}
	_, ok := r.blocked[strings.ToLower(value)]
	return ok
}
