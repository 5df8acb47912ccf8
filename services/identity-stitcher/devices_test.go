package stitcher

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weft-cdp/weft/pkg/event"
	"github.com/weft-cdp/weft/pkg/identity"
	"github.com/weft-cdp/weft/pkg/topic"
	rules "github.com/weft-cdp/weft/schemas/identity"
)

// shop is a browser, an app and a server of one shop, whose events go through the whole stitcher under the shipped rules.
type shop struct {
	*env
	n    int
	stop func()
	key  string // of the records: one partition, so one order
}

func newShop(t *testing.T) *shop {
	e := newEnv(t)
	e.cfg.Identity.RulesFile = ""
	return &shop{env: e, key: "k"}
}

// openShop is newShop, running.
func openShop(t *testing.T) *shop {
	s := newShop(t)
	s.stop = s.start()
	t.Cleanup(s.stop)
	return s
}

// answer is whose an event is, and what it was resolved without.
type answer struct {
	profile string
	aside   string
}

// play sends events, and returns what became of each.
func (s *shop) play(bodies ...string) []answer {
	s.t.Helper()
	first := s.n
	for _, body := range bodies {
		s.send(s.key, "web", fmt.Sprint("m", s.n), "", body)
		s.n++
	}
	s.settled()
	events := ofKind(s.read(s.topics.EventsIdentified()), topic.KindEvent)
	require.Len(s.t, events, s.n)
	var out []answer
	for _, r := range events[first:] {
		out = append(out, answer{string(r.Key), header(r, topic.HeaderSetAside)})
	}
	return out
}

func (s *shop) user(id string) string { return s.node(event.UserID, id).String() }

// isSlice says whether a profile is that of a slice of a device's time.
func (s *shop) isSlice(profile string) bool {
	n, err := identity.ParseNode(profile)
	require.NoError(s.t, err)
	return s.rules().TypeOf(n).Name == identity.TypeDeviceSlice
}

// at gives an event a time: minutes behind the one at which the day began, hours before it is received.
func at(minute int, body string) string {
	stamp := receivedAt().Truncate(time.Minute).Add(-24 * time.Hour).Add(time.Duration(minute) * time.Minute)
	return strings.Replace(body, "{", fmt.Sprintf(`{"timestamp":%q,`, stamp.Format(time.RFC3339)), 1)
}

// The cells of the table in docs/identity.md, one test each.

func TestAnonymousBrowsesThenLogsIn(t *testing.T) {
	s := openShop(t)
	got := s.play(`{"type":"page","anonymousId":"a1"}`, `{"type":"identify","userId":"u1","anonymousId":"a1"}`,
		`{"type":"page","anonymousId":"a1"}`, `{"type":"track","event":"Order Completed","userId":"u1"}`)
	before := s.node(event.AnonymousID, "a1")
	known := answer{profile: s.user("u1")}
	require.Equal(t, []answer{{profile: before.String()}, known, known, known}, got)
	merges := ofKind(s.read(s.topics.EventsIdentified()), topic.KindMerge)
	require.Len(t, merges, 1)
	m, err := identity.ParseMerge(merges[0].Value)
	require.NoError(t, err)
	require.Equal(t, []string{before.String(), known.profile}, []string{m.Loser, m.Winner}, "the history of the browser is that of the person")
}

func TestSecondPersonLogsInOnTheSameBrowser(t *testing.T) {
	s := openShop(t)
	got := s.play(`{"type":"identify","userId":"ann","anonymousId":"a1","traits":{"email":"ann@x.pl"}}`,
		`{"type":"identify","userId":"ben","anonymousId":"a1","traits":{"email":"ben@x.pl"}}`,
		`{"type":"track","event":"Order Completed","userId":"ben"}`, `{"type":"identify","traits":{"email":"ben@x.pl"}}`,
		`{"type":"identify","traits":{"email":"ann@x.pl"}}`, `{"type":"page","userId":"ann","anonymousId":"a1"}`)
	ann, ben := answer{profile: s.user("ann")}, answer{profile: s.user("ben")}
	const aside = "anonymous_id:shared_device"
	require.Equal(t, []answer{ann, {ben.profile, aside}, ben, ben, ann, {ann.profile, aside}}, got)
	require.Equal(t, map[string]float64{"shared_device": 2}, s.counts("weft_stitcher_set_aside_total"))
	require.Equal(t, map[string]float64{"shared": 1}, s.counts("weft_stitcher_devices_total"))
}

func TestAnonymousAgainAfterBoth(t *testing.T) {
	s := openShop(t)
	const page = `{"type":"page","anonymousId":"a1"}`
	got := s.play(at(0, `{"type":"identify","userId":"ann","anonymousId":"a1"}`), at(1, page), at(2, `{"type":"identify","userId":"ben","anonymousId":"a1"}`),
		at(3, page), at(4, page), at(5, `{"type":"page","userId":"ann","anonymousId":"a1"}`), at(6, page))
	require.Equal(t, s.user("ann"), got[1].profile)
	for _, i := range []int{3, 4, 6} {
		require.True(t, s.isSlice(got[i].profile), "nobody is guessed")
		require.Equal(t, "anonymous_id:shared_device", got[i].aside)
	}
	require.Equal(t, got[3].profile, got[4].profile, "one stretch of time, one profile")
	require.NotEqual(t, got[3].profile, got[6].profile, "somebody else has logged in meanwhile")
}

func TestSharedTablet(t *testing.T) {
	s := openShop(t)
	const browse, out = `{"type":"track","event":"Product Viewed","context":{"device":{"type":"ios","id":"TABLET"}}}`, `{"type":"track","event":"Signed Out","context":{"device":{"type":"ios","id":"TABLET"}}}`
	in := func(who string) string {
		return fmt.Sprintf(`{"type":"identify","userId":%q,"context":{"device":{"type":"ios","id":"TABLET"}}}`, who)
	}
	got := s.play(
		at(0, in("ann")), at(1, in("ben")), // 0, 1
		at(2, browse), at(3, out), at(4, browse), // 2, 3, 4
		at(5, in("cy")), at(6, browse), at(30, browse), at(70, browse), // 5, 6, 7, 8
		at(3, browse), at(71, browse)) // 9: late, 10
	of := func(i int) string { return got[i].profile }
	require.Equal(t, []string{s.user("ann"), s.user("ben"), s.user("cy")}, []string{of(0), of(1), of(5)})
	for _, i := range []int{2, 3, 4, 6, 7, 8, 9, 10} {
		require.True(t, s.isSlice(of(i)), "event %d", i)
		require.Equal(t, "ios.id:shared_device", got[i].aside)
	}
	require.Equal(t, of(2), of(3), "the log-out ends the slice that it lies in")
	require.NotEqual(t, of(2), of(4), "behind the log-out")
	require.NotEqual(t, of(4), of(6), "behind a log-in")
	require.Equal(t, of(6), of(7))
	require.NotEqual(t, of(7), of(8), "behind an hour of silence")
	require.Equal(t, of(8), of(10))
	require.NotContains(t, []string{of(6), of(8)}, of(9), "what comes late changes nothing, and is none of today's")
}

func TestAnonymousAfterALogOut(t *testing.T) {
	for choice, wanted := range map[string]bool{"nobody": true, "owner": false} {
		s := newShop(t)
		s.cfg.Identity.RulesFile = filepath.Join(t.TempDir(), "rules.yaml")
		text := regexp.MustCompile(`after_log_out: \w+`).ReplaceAllString(string(rules.Rules()), "after_log_out: "+choice)
		require.NoError(t, os.WriteFile(s.cfg.Identity.RulesFile, []byte(text), 0o600))
		stop := s.start()
		got := s.play(at(0, `{"type":"identify","userId":"ann","anonymousId":"a1"}`), at(1, `{"type":"track","event":"Signed Out","anonymousId":"a1"}`),
			at(2, `{"type":"page","anonymousId":"a1"}`), at(3, `{"type":"identify","userId":"ann","anonymousId":"a1"}`), at(4, `{"type":"page","anonymousId":"a1"}`))
		stop()
		ann := answer{profile: s.user("ann")}
		require.Equal(t, wanted, s.isSlice(got[2].profile), choice)
		if wanted {
			require.Equal(t, "anonymous_id:logged_out", got[2].aside)
			got[2] = ann
		}
		require.Equal(t, []answer{ann, ann, ann, ann, ann}, got, choice)
	}
}

// analytics.js and the SDKs have reset(), which is no event: it gives the browser another anonymous id, and that is enough.
func TestAnonymousAfterReset(t *testing.T) {
	s := openShop(t)
	const device = `"context":{"device":{"type":"android","id":"KIOSK"}}`
	got := s.play(`{"type":"identify","userId":"ann","anonymousId":"a1",`+device+`}`, `{"type":"page","anonymousId":"a2"}`,
		`{"type":"identify","userId":"ben","anonymousId":"a2",`+device+`}`, `{"type":"page","anonymousId":"a2",`+device+`}`, `{"type":"page","anonymousId":"a3",`+device+`}`)
	require.Equal(t, s.user("ann"), got[0].profile)
	require.Equal(t, s.node(event.AnonymousID, "a2").String(), got[1].profile)
	require.Equal(t, answer{s.user("ben"), "android.id:shared_device"}, got[2])
	require.Equal(t, answer{s.user("ben"), "android.id:shared_device"}, got[3], "a2 is his alone")
	require.Equal(t, answer{s.node(event.AnonymousID, "a3").String(), "android.id:shared_device"}, got[4])
}

func TestTwoAddressesOnTwoDevices(t *testing.T) {
	s := openShop(t)
	got := s.play(`{"type":"identify","anonymousId":"a1","traits":{"email":"ann@x.pl"}}`, `{"type":"identify","anonymousId":"a2","traits":{"email":"ann@work.pl"}}`,
		`{"type":"identify","userId":"ann","traits":{"email":"ann@x.pl"}}`, `{"type":"identify","userId":"ann","traits":{"email":"ann@work.pl"}}`,
		`{"type":"page","anonymousId":"a2"}`, `{"type":"page","anonymousId":"a1"}`)
	require.NotEqual(t, got[0].profile, got[1].profile, "nothing says that they are one person")
	ann := answer{profile: s.user("ann")}
	require.Equal(t, []answer{ann, ann, ann, ann}, got[2:])
}

// The event of a server that comes before the browser has said who it is ends in the right person, without waiting.
func TestServersEventBeforeTheIdentify(t *testing.T) {
	s := openShop(t)
	got := s.play(`{"type":"track","event":"Order Completed","userId":"ann"}`, `{"type":"page","anonymousId":"a1"}`,
		`{"type":"identify","userId":"ann","anonymousId":"a1"}`, `{"type":"page","anonymousId":"a1"}`)
	ann := answer{profile: s.user("ann")}
	require.Equal(t, []answer{ann, ann, ann}, []answer{got[0], got[2], got[3]})
}

// Which brands' people meet is a matter of types: a shared one joins them, a brand's does not.
func TestOnlySharedTypesJoinBrands(t *testing.T) {
	s := newShop(t)
	s.cfg.Identity.RulesFile = filepath.Join(t.TempDir(), "rules.yaml")
	require.NoError(t, os.WriteFile(s.cfg.Identity.RulesFile, []byte("types:\n  user_id: {rank: 0x10, find: userId, scope: brand, known: true, limit: {values: 1}}\n"+
		"  email: {rank: 0x20, find: traits.email, known: true}\n  card: {rank: 0x30, find: traits.card, scope: brand}\n"), 0o600))
	s.stop = s.start()
	t.Cleanup(s.stop)
	of := func(brand, body string) string {
		s.brand = brand
		return s.play(body)[0].profile
	}
	require.NotEqual(t, of("shoes", `{"type":"identify","userId":"7","traits":{"card":"12"}}`), of("bags", `{"type":"identify","userId":"7","traits":{"card":"12"}}`),
		"number 7 of one brand is not number 7 of the other")
	of("shoes", `{"type":"identify","userId":"7","traits":{"email":"ann@x.pl"}}`)
	one := of("bags", `{"type":"identify","userId":"9","traits":{"email":"ann@x.pl"}}`)
	require.Equal(t, one, of("shoes", `{"type":"track","event":"E","userId":"7"}`), "one address, shared, is one person, with one user id in each brand")
}
