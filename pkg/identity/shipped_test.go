package identity

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weft-cdp/weft/pkg/event"
)

// extract gives what an event's identifiers are, "type=value", and why others are ignored, "type=value reason".
func extract(t testing.TB, r *Rules, body string, m event.Meta) (ids, ignored []string) {
	t.Helper()
	found, left := r.Extract(decoded(t, body, m))
	for _, id := range found {
		ids = append(ids, id.Type+"="+id.Value)
	}
	for _, x := range left {
		ignored = append(ignored, x.Type+"="+x.Value+" "+string(x.Reason))
	}
	return ids, ignored
}

func TestShippedRules(t *testing.T) {
	r := newTestRules(t, Options{})
	var got []string
	for _, x := range r.types {
		kind := map[bool]string{true: "known"}[x.Known] + map[bool]string{true: "device"}[x.Device] + map[bool]string{true: "weak"}[x.Weak]
		got = append(got, fmt.Sprintf("%s %#x %d %d/%d %s", x.Name, x.Rank, x.Priority, x.Limit.Values, int(x.Limit.Per.Hours()/24), kind))
		require.Same(t, &x.Type, r.TypeOf(Node{x.Rank}))
		require.Equal(t, ScopeShared, x.Scope)
		require.Equal(t, TrustAny, x.Trust)
	}
	// Name, rank, priority (Segment's: user_id, email, then by the alphabet), values per days.
	require.Equal(t, []string{
		"user_id 0x10 1 1/0 known", "email 0x20 2 5/365 known", "phone 0x30 12 5/365 known",
		"android.id 0x80 3 5/365 device", "android.idfa 0x81 4 5/365 device", "android.push_token 0x82 5 5/365 device",
		"ios.id 0x90 9 5/365 device", "ios.idfa 0x91 10 5/365 device", "ios.push_token 0x92 11 5/365 device",
		"ga_client_id 0xd0 8 5/7 device", "fingerprint 0xd8 7 5/0 weak", "anonymous_id 0xe0 6 5/7 device",
	}, got)
	require.Equal(t, Type{Rank: rankOther, Priority: 13, Limit: Limit{Values: 5}}, *r.TypeOf(Node{rankOther}))
	require.Nil(t, r.env, "the shipped rules have paths only: no expression runs")
}

// What Segment documents as its default identifiers is found where its SDKs put it. Its group_id is none here: a group is
// no person.
func TestSegmentDefaultIdentifiers(t *testing.T) {
	r := newTestRules(t, Options{})
	ids, ignored := extract(t, r, phoneEvent, event.Meta{})
	require.Equal(t, []string{"user_id=019mr8mf4r", "ios.id=b5372db0-c21e-11e4-8dfc-aa07a5b093db", "ios.idfa=7a3cbea0-bdf5-11e4-8dfc-aa07a5b093db",
		"ios.push_token=ff15bc0c20c4aa6cd50854ff165fd265c838e5405bfeb9571066395b8c9da449", "anonymous_id=8F2D0F0E-6F0A-4B1C-9D42-0A4BB3A1F0C7"}, ids)
	require.Empty(t, ignored)
	ids, _ = extract(t, r, strings.Replace(phoneEvent, `"type":"ios"`, `"type":"Android"`, 1), event.Meta{})
	require.Equal(t, []string{"user_id", "android.id", "android.idfa", "android.push_token", "anonymous_id"}, typesOf(ids))
	ids, _ = extract(t, r, strings.Replace(phoneEvent, `"type":"ios"`, `"type":"tv"`, 1), event.Meta{})
	require.Equal(t, []string{"user_id", "anonymous_id"}, typesOf(ids))

	ids, _ = extract(t, r, `{"type":"page","anonymousId":"a","context":{"integrations":{"Google Analytics":{"clientId":"33.44"}},"traits":{"email":"J@X.com"}}}`, event.Meta{})
	require.Equal(t, []string{"email=j@x.com", "ga_client_id=33.44", "anonymous_id=a"}, ids)
}

func typesOf(ids []string) (types []string) {
	for _, id := range ids {
		typ, _, _ := strings.Cut(id, "=")
		types = append(types, typ)
	}
	return types
}

// Segment's onboarding page suggests these values to be blocked: the expression ^[0-]*$, and three constants.
func TestSegmentOnboardingBlocked(t *testing.T) {
	requireBlocked(t, "0", "000000", "-", "---", "00-00", "00000000-0000-0000-0000-000000000000", "-1", "null", "anonymous")
}

// PostHog refuses these as distinct ids: the first in any letter case, the others as they stand; and blanks of any length.
func TestPostHogForbidden(t *testing.T) {
	forbidden := []string{"anonymous", "guest", "distinctid", "distinct_id", "id", "not_authenticated", "email", "undefined", "true", "false",
		"[object Object]", "NaN", "None", "none", "null", "0"}
	requireBlocked(t, forbidden...)
	for _, v := range forbidden {
		requireBlocked(t, strings.ToUpper(v), " "+v+" ")
	}
	r := newTestRules(t, Options{})
	for n := range 5 {
		_, why := r.Identify(event.Identifier{Type: event.UserID, Value: strings.Repeat(" ", n)})
		require.Equal(t, IgnoredBlank, why)
	}
}

// Constants that made giants, or that many devices share: features 3.4 and 3.8.
func TestConstantsThatMadeGiants(t *testing.T) {
	requireBlocked(t, "unknown", "not set", "(not set)", "n/a", "xxx", "????", "{{ user.id }}", "${userId}", "%user_id%", "device_id")
	r := newTestRules(t, Options{DefaultRegion: "PL"})
	for typ, values := range map[string][]string{
		"ios.id": {"00000000-0000-0000-0000-000000000000"}, "ios.idfa": {"00000000-0000-0000-0000-000000000000", "02:00:00:00:00:00"},
		"android.id": {"9774d56d682e549c", "9774D56D682E549C", "0123456789abcdef", "default"},
		event.Email:  {"test@test.com", "Null@shop.example", "no-reply@shop.example", "none@none.com", "undefined@undefined.com"},
		event.Phone:  {"123456789", "000000000", "+48 111 111 111", "999999999"},
	} {
		for _, v := range values {
			_, why := r.Identify(event.Identifier{Type: typ, Value: v})
			require.Equal(t, IgnoredBlocked, why, "%s %s", typ, v)
		}
	}
	for typ, v := range map[string]string{event.Email: "ann.null@shop.example", event.Phone: "601 234 567", "android.id": "9774d56d682e549d", event.UserID: "x"} {
		_, why := r.Identify(event.Identifier{Type: typ, Value: v})
		require.Empty(t, why, "%s %s names somebody", typ, v)
	}
}

// requireBlocked is for values that name nobody whatever their type.
func requireBlocked(t *testing.T, values ...string) {
	t.Helper()
	r := newTestRules(t, Options{})
	types := []string{"loyalty_id"}
	for _, x := range r.types {
		types = append(types, x.Name)
	}
	for _, v := range values {
		for _, typ := range types {
			_, why := r.Identify(event.Identifier{Type: typ, Value: v})
			require.Equal(t, IgnoredBlocked, why, "%s %q", typ, v)
		}
	}
}

// A sender that fills two fields the wrong way round would join everybody who shares either value.
func TestSwappedFields(t *testing.T) {
	r := newTestRules(t, Options{DefaultRegion: "PL"})
	for body, want := range map[string][2][]string{
		`{"userId":"u1","traits":{"email":"601 234 567","phone":"ann@x.pl"}}`: {{"user_id=u1"}, {"email=601 234 567 format", "phone=ann@x.pl format"}},
		`{"userId":"u1","traits":{"email":"Ann","firstName":"ann@x.pl"}}`:     {{"user_id=u1"}, {"email=Ann format"}},
		`{"userId":"u1","traits":{"email":"u-17","phone":"Warszawa"}}`:        {{"user_id=u1"}, {"email=u-17 format", "phone=Warszawa format"}},
		`{"userId":"ann@x.pl","traits":{"email":"ann@x.pl"}}`:                 {{"user_id=ann@x.pl", "email=ann@x.pl"}, nil}, // many shops do
	} {
		ids, ignored := extract(t, r, `{"type":"identify",`+body[1:], event.Meta{})
		require.Equal(t, want[0], ids, body)
		require.Equal(t, want[1], ignored, body)
	}
}

func TestNullAsText(t *testing.T) {
	r := newTestRules(t, Options{})
	for _, null := range []string{`"null"`, `"NULL"`, `" null "`, `"undefined"`, `"None"`, `"(null)"`, `"nil"`, `"NaN"`} {
		ids, ignored := extract(t, r, `{"type":"identify","userId":`+null+`,"anonymousId":`+null+`,"traits":{"email":`+null+`,"phone":`+null+`},
			"context":{"device":{"type":"ios","id":`+null+`},"externalIds":[{"type":"loyalty_id","id":`+null+`}]}}`, event.Meta{})
		require.Empty(t, ids, null)
		require.Len(t, ignored, 6, null)
		for _, x := range ignored {
			require.True(t, strings.HasSuffix(x, " blocked"), x)
		}
	}
	ids, ignored := extract(t, r, `{"type":"identify","userId":null,"anonymousId":"","traits":{"email":null,"phone":false},"context":{"externalIds":[{"type":"x","id":null}]}}`, event.Meta{})
	require.Empty(t, ids)
	require.Empty(t, ignored, "what is not there is not worth a count")
}

// As Segment documents context.externalIds: id, type, collection users or accounts, encoding none.
func TestExternalIDsAsDocumented(t *testing.T) {
	ids, ignored := extract(t, newTestRules(t, Options{}), `{"type":"track","event":"E","context":{"externalIds":[
		{"id":"+48 601 234 567","type":"phone","collection":"users","encoding":"none"},{"id":"L1","type":"loyalty_id"},
		{"id":"acme","type":"account_id","collection":"accounts","encoding":"none"},{"id":"aGFzaA","type":"email","collection":"users","encoding":"base64"},
		{"id":"x","type":"no type"},{"id":"ann","type":"Email"},{"id":"f7","type":"fingerprint"}]}}`, event.Meta{})
	require.Equal(t, []string{"phone=+48601234567", "loyalty_id=L1", "fingerprint=f7"}, ids)
	require.Equal(t, []string{"account_id=acme collection", "email=aGFzaA encoding", "no type=x type", "email=ann format"}, ignored)
}

func TestAliasAndGroup(t *testing.T) {
	r := newTestRules(t, Options{})
	for body, want := range map[string][]string{
		`{"type":"alias","userId":"new","previousId":"old"}`:                                                                 {"user_id=new", "user_id=old"},
		`{"type":"alias","userId":"new","anonymousId":"a-1","previousId":"a-1"}`:                                             {"user_id=new", "anonymous_id=a-1"},
		`{"type":"alias","userId":"same","previousId":"same"}`:                                                               {"user_id=same"},
		`{"type":"track","event":"E","userId":"u","previousId":"old"}`:                                                       {"user_id=u"},
		`{"type":"group","userId":"u","groupId":"g","traits":{"email":"office@firm.com","phone":"+48601234567"}}`:            {"user_id=u"},
		`{"type":"group","userId":"u","groupId":"g","traits":{"email":"o@firm.com"},"context":{"traits":{"email":"a@b.c"}}}`: {"user_id=u", "email=a@b.c"},
	} {
		ids, ignored := extract(t, r, body, event.Meta{})
		require.ElementsMatch(t, want, ids, body)
		require.Empty(t, ignored, body)
	}
}
