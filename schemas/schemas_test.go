package schemas_test

import (
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"iter"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/shopspring/decimal"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/weft-cdp/weft/pkg/commerce"
	"github.com/weft-cdp/weft/pkg/event"
	"github.com/weft-cdp/weft/pkg/identity"
	"github.com/weft-cdp/weft/pkg/journey"
	"github.com/weft-cdp/weft/pkg/profile"
	"github.com/weft-cdp/weft/pkg/topic"
	"github.com/weft-cdp/weft/schemas"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	ada  = "10000000-0000-8000-8000-000000000001"
	eve  = "e0000000-0000-8000-8000-000000000002"
	uuid = "7c1d3b52-9f0e-5c1a-8a55-2f6d0f6a4b01"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func newSet(t *testing.T) *schemas.Set {
	t.Helper()
	s, err := schemas.New()
	require.NoError(t, err)
	return s
}

// The schemas say of every topic what the code makes of it.
func TestEveryTopicHasASchema(t *testing.T) {
	s := newSet(t)
	var names []string
	for _, spec := range (topic.Set{Partitions: 1}).Specs() {
		names = append(names, spec.Name)
		about, ok := s.About(spec.Name)
		require.True(t, ok, spec.Name)
		cleanup := "delete"
		if spec.Compact {
			cleanup = "compact"
		}
		require.Equal(t, cleanup, about.Cleanup, spec.Name)
		require.Equal(t, topic.SchemaVersion, about.Version, spec.Name)
		require.NotEmpty(t, about.Key, spec.Name)
		require.NotEmpty(t, about.Writers, spec.Name)
	}
	require.ElementsMatch(t, names, s.Topics())
	_, ok := s.About("events.nowhere")
	require.False(t, ok)
}

func TestFilesNameThemselves(t *testing.T) {
	entries, err := schemas.Files.ReadDir(".")
	require.NoError(t, err)
	for _, e := range entries {
		text, err := schemas.Files.ReadFile(e.Name())
		require.NoError(t, err)
		var head struct {
			ID          string `json:"$id"`
			Draft       string `json:"$schema"`
			Title       string `json:"title"`
			Description string `json:"description"`
		}
		require.NoError(t, json.Unmarshal(text, &head), e.Name())
		require.Equal(t, "https://github.com/weft-cdp/weft/schemas/"+e.Name(), head.ID)
		require.Equal(t, "https://json-schema.org/draft/2020-12/schema", head.Draft, e.Name())
		require.NotEmpty(t, head.Title, e.Name())
		require.NotEmpty(t, head.Description, e.Name())
	}
}

// constants reads the values of the text constants of a package's file that begin with prefix.
func constants(t *testing.T, file, prefix string) []string {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	require.NoError(t, err)
	var values []string
	ast.Inspect(f, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || !strings.HasPrefix(spec.Names[0].Name, prefix) || len(spec.Values) == 0 {
			return true
		}
		if lit, ok := spec.Values[0].(*ast.BasicLit); ok {
			v, err := strconv.Unquote(lit.Value)
			require.NoError(t, err)
			values = append(values, v)
		}
		return true
	})
	require.NotEmpty(t, values, "%s: %s", file, prefix)
	return values
}

// enum reads the list of allowed texts at a path of a schema file.
func enum(t *testing.T, file string, path ...string) []string {
	t.Helper()
	text, err := schemas.Files.ReadFile(file)
	require.NoError(t, err)
	var v any
	require.NoError(t, json.Unmarshal(text, &v))
	for _, p := range path {
		v = v.(map[string]any)[p]
	}
	var values []string
	for _, x := range v.(map[string]any)["enum"].([]any) {
		values = append(values, x.(string))
	}
	return values
}

// A constant added in the code must come into the schema, or this fails.
func TestClosedSetsAreThoseOfTheCode(t *testing.T) {
	receipts := "../pkg/journey/receipt.go"
	require.ElementsMatch(t, constants(t, receipts, "Reason"), enum(t, "activations.settled.schema.json", "properties", "reason"))
	require.ElementsMatch(t, []string{journey.Delivered, journey.Failed, journey.Suppressed, journey.HeldOut, journey.Unknown},
		enum(t, "activations.settled.schema.json", "properties", "outcome"))
	require.ElementsMatch(t, constants(t, "../pkg/journey/file.go", "Channel"), enum(t, "activations.settled.schema.json", "properties", "channel"))
	require.ElementsMatch(t, constants(t, "../pkg/profile/settle.go", "Because"), enum(t, "audiences.changed.schema.json", "properties", "reason"))
	require.ElementsMatch(t, constants(t, "../pkg/identity/merge.go", "Rule"),
		enum(t, "identities.linked.schema.json", "$defs", "merge", "properties", "cause", "properties", "rule"))
	require.ElementsMatch(t, constants(t, "../pkg/identity/policy.go", "Cap"),
		enum(t, "identities.linked.schema.json", "$defs", "suspend", "properties", "cap"))
	commands := slices.DeleteFunc(constants(t, "../pkg/identity/command.go", "Command"), func(s string) bool { return s == identity.CommandsKey })
	require.ElementsMatch(t, commands, enum(t, "identities.commands.schema.json", "properties", "kind"))
	stages := slices.DeleteFunc(constants(t, "../pkg/topic/topic.go", "Stage"), func(s string) bool { return s == topic.StageWriter })
	require.ElementsMatch(t, stages, enum(t, "headers.schema.json", "properties", "weft-service"))

	text, err := schemas.Files.ReadFile("headers.schema.json")
	require.NoError(t, err)
	var headers struct {
		Properties    map[string]any `json:"properties"`
		PropertyNames struct {
			AnyOf []struct {
				Enum []string `json:"enum"`
			} `json:"anyOf"`
		} `json:"propertyNames"`
	}
	require.NoError(t, json.Unmarshal(text, &headers))
	named := slices.Collect(maps.Keys(headers.Properties))
	require.ElementsMatch(t, constants(t, "../pkg/topic/header.go", "Header"), named)
	require.ElementsMatch(t, named, headers.PropertyNames.AnyOf[0].Enum)
}

func headers(hs ...topic.Header) []schemas.Header {
	out := make([]schemas.Header, len(hs))
	for i, h := range hs {
		out[i] = schemas.Header(h)
	}
	return out
}

func h(key, value string) topic.Header { return topic.Header{Key: key, Value: []byte(value)} }

func meta() event.Meta {
	return event.Meta{Source: "web", Brand: "main", MessageID: "m1", ReceivedAt: noon, SentAt: noon, Historical: true}
}

var (
	schemaHeader   = h(topic.HeaderSchema, "1")
	positionHeader = h(topic.HeaderPosition, "profile-builder:3:17")
)

func profileState(t *testing.T) *profile.State {
	t.Helper()
	var s profile.State
	for _, body := range []string{
		`{"type":"identify","userId":"u1","traits":{"email":"ada@example.com","tier":"gold","nested":{"a":[1,null]}}}`,
		`{"type":"track","event":"Order Completed","userId":"u1","properties":{"order_id":"o1","total":123456789.12,"currency":"EUR"}}`,
		`{"type":"track","event":"Product Added","userId":"u1","properties":{"cart_id":"c1","product_id":"p1","variant":"red","name":"Tea","price":"12.90","quantity":3,"url":"https://x.example"}}`,
		`{"type":"page","name":"Home","userId":"u1"}`,
	} {
		e, err := event.Decode([]byte(body), event.Meta{Brand: "main", MessageID: "m", ReceivedAt: noon})
		require.NoError(t, err)
		require.Empty(t, s.Apply(e, &profile.Rules{BrandTraits: []string{"tier"}}))
	}
	return &s
}

// What the packages write is what the schemas promise.
func TestWhatIsWrittenFits(t *testing.T) {
	s := newSet(t)
	audiences, err := profile.ParseAudiences("a.yaml", []byte("audiences:\n  - name: buyers\n    when: profile.orders > 0\n"))
	require.NoError(t, err)
	st := profileState(t)
	changes, errs := st.Settle(ada, audiences, noon)
	require.Empty(t, errs)
	require.Len(t, changes, 1)
	changes = append(changes, profile.AudienceChange{Audience: "buyers", Profile: eve, Change: profile.Left, At: profile.Time{Time: noon}, Reason: profile.BecauseMerged, Into: ada})
	document, err := st.Encode(ada)
	require.NoError(t, err)
	big := st.Document(ada)
	big.Capped = profile.CappedCarts.Names()
	big.Traits = map[string]json.RawMessage{"long": json.RawMessage(`"` + strings.Repeat("x", profile.MaxDocument) + `"`)}
	truncated, err := big.Encode()
	require.NoError(t, err)
	link, err := identity.Merge{
		Loser: eve, Winner: ada, Members: []string{eve}, Version: 2,
		Cause:    identity.Cause{Source: "collector/till.sales:0:12", MessageID: "m1", Rule: identity.RuleSameEvent, Time: noon},
		Evidence: []identity.Evidence{{Type: "user_id", Value: "u1", Node: ada}, {Type: "anonymous_id", Value: "a1", Node: eve}},
	}.Encode()
	require.NoError(t, err)
	stopped := identity.Suspension{
		Evidence: []identity.Evidence{{Type: "user_id", Value: "u1", Node: ada}, {Type: "anonymous_id", Value: "a1", Node: eve}},
		Cap:      identity.CapMembers, Cause: identity.Cause{Source: "collector:0:1", MessageID: "m1", Rule: identity.RuleAlias, Time: noon},
	}
	suspension, err := stopped.Encode()
	require.NoError(t, err)
	body, err := event.Complete([]byte(`{"event":"Tea Drunk","userId":7,"properties":[],"context":null,"extra":{"b":1e400}}`),
		event.Filling{MessageID: func() string { return "m1" }, Context: []byte(`{"ip":"1.2.3.4"}`)}, meta())
	require.NoError(t, err)

	mergeHeaders := headers(schemaHeader, h(topic.HeaderKind, "merge"), h(topic.HeaderMessageID, "m1"), h(topic.HeaderReceivedAt, "1"), h(topic.HeaderPosition, "identity-stitcher:0:0"))
	suspendHeaders := headers(schemaHeader, h(topic.HeaderKind, "suspend"), h(topic.HeaderMessageID, "m1"), h(topic.HeaderReceivedAt, "1"), h(topic.HeaderPosition, "identity-stitcher:0:1"))
	eventHeaders := headers(append(topic.MetaHeaders(meta()), h(topic.HeaderKind, "event"), h(topic.HeaderSetAside, "email:limit,loyalty:card:governor"), h(topic.HeaderPosition, "identity-stitcher:0:0"))...)
	ours := headers(schemaHeader, positionHeader)
	records := []schemas.Record{
		{Topic: "events.inbox", Value: []byte(`{"event":"Tea Drunk","userId":"u1"}`)},
		{Topic: "events.collected", Key: []byte("u1"), Headers: headers(topic.MetaHeaders(meta())...), Value: body.Body},
		{Topic: "events.identified", Key: []byte(ada), Headers: eventHeaders, Value: body.Body},
		{Topic: "events.identified", Key: []byte(eve), Headers: mergeHeaders, Value: link},
		{Topic: "identities.linked", Key: []byte(eve), Headers: mergeHeaders, Value: link},
		{Topic: "identities.linked", Key: []byte(stopped.Key()), Headers: suspendHeaders, Value: suspension},
		{Topic: "profiles.changed", Key: []byte(ada), Headers: ours, Value: document},
		{Topic: "profiles.changed", Key: []byte(ada), Headers: ours, Value: truncated},
		{Topic: "profiles.changed", Key: []byte(eve), Headers: ours},
		{Topic: "events.rejected", Headers: headers(append(topic.MetaHeaders(meta()), h(topic.HeaderReason, "invalid_json"),
			h(topic.HeaderError, "no"), h(topic.HeaderService, "collector"), h(topic.HeaderOrigin, "/v1/track"))...), Value: []byte("\xff{")},
		{Topic: "events.rejected", Headers: headers(h("weft-received-at", "soon"), h(topic.HeaderReason, "invalid_header"),
			h(topic.HeaderError, "no"), h(topic.HeaderService, "activator"), h(topic.HeaderOrigin, "t:1:2"))},
	}
	command := identity.Command{ID: "c1", Kind: identity.CommandBlock, Actor: "ada", Reason: "the till's own card", At: time.UnixMilli(1).UTC(),
		Identifiers: []identity.Evidence{{Type: "email", Value: "till@example.com", Node: ada}}}
	said, err := command.Encode()
	require.NoError(t, err)
	records = append(records, schemas.Record{Topic: "identities.commands", Key: []byte("commands"), Headers: headers(schemaHeader), Value: said})
	for _, ch := range changes {
		b, err := json.Marshal(ch)
		require.NoError(t, err)
		records = append(records, schemas.Record{Topic: "audiences.changed", Key: []byte(ada), Headers: ours, Value: b})
	}
	for _, r := range records {
		require.NoError(t, s.Check(r))
	}
	fit, err := s.CheckAll(each(records))
	require.NoError(t, err)
	require.Equal(t, map[string]int{
		"events.inbox": 1, "events.collected": 1, "events.identified": 2, "identities.linked": 2, "profiles.changed": 3,
		"events.rejected": 2, "audiences.changed": 2, "identities.commands": 1,
	}, fit)
}

func request() journey.Request {
	d := decimal.RequireFromString
	return journey.Request{
		ID: uuid, Receipt: uuid, Journey: "abandoned-cart", Version: "0123456789ab", Brand: "main", Profile: ada,
		Channel: journey.ChannelEmail, Purpose: "marketing", From: "Shop <s@example.com>", To: "ada@example.com", Subject: "Cart", Text: "Tea",
		Headers: map[string]string{"List-Unsubscribe": "<https://x>"},
		Cart: journey.RequestCart{
			ReceiptCart: journey.ReceiptCart{ID: "c1", Value: d("38.7000"), Currency: "EUR", Items: d("3")},
			Lines:       []commerce.Line{{ProductID: "p1", Price: d("12.9000"), Quantity: d("3"), Currency: "EUR"}},
		},
		ArmedAt: 1, DueAt: 2, DecidedAt: 3,
	}
}

func TestActivationsFit(t *testing.T) {
	s := newSet(t)
	hs := headers(schemaHeader, positionHeader, h(topic.HeaderBrand, "main"))
	r := request()
	webhook := request()
	webhook.Channel, webhook.From, webhook.To, webhook.Subject, webhook.Text, webhook.Headers = journey.ChannelWebhook, "", "", "", "", nil
	bare := r.Settle(journey.Suppressed, journey.ReasonPurchased, "", 4)
	bare.Message, bare.Cart = "", journey.ReceiptCart{}
	for topicName, values := range map[string][]any{
		"activations.requested": {r, webhook},
		"activations.settled": {
			r.Settle(journey.Delivered, journey.ReasonSent, "250 ok", 4), r.Settle(journey.Unknown, journey.ReasonCrash, "", 4),
			r.Settle(journey.Failed, journey.ReasonRefused, strings.Repeat("é", 400), 4), bare,
		},
	} {
		for _, v := range values {
			b, err := journey.Encode(v)
			require.NoError(t, err)
			require.NoError(t, s.Check(schemas.Record{Topic: topicName, Key: []byte(ada), Headers: hs, Value: b}))
		}
	}
}

func TestWhatDoesNotFitIsNamed(t *testing.T) {
	s := newSet(t)
	collected := headers(topic.MetaHeaders(meta())...)
	ours := headers(schemaHeader, positionHeader)
	receipt, err := json.Marshal(journey.Receipt{
		Receipt: uuid, Journey: "j", Version: "0123456789ab", Profile: ada, Channel: "email", Outcome: journey.Delivered, Reason: journey.ReasonPurchased,
	})
	require.NoError(t, err)
	for name, c := range map[string]struct {
		record schemas.Record
		says   string
	}{
		"topic":          {schemas.Record{Topic: "events.nowhere"}, "no schema"},
		"no value":       {schemas.Record{Topic: "events.collected", Key: []byte("k"), Headers: collected}, "value: there is none"},
		"no JSON":        {schemas.Record{Topic: "events.collected", Key: []byte("k"), Headers: collected, Value: []byte("{")}, "value"},
		"no key":         {schemas.Record{Topic: "events.collected", Headers: collected, Value: []byte(`{"type":"identify","messageId":"m"}`)}, "key"},
		"no headers":     {schemas.Record{Topic: "profiles.changed", Key: []byte(ada)}, "weft-schema"},
		"strange header": {schemas.Record{Topic: "profiles.changed", Key: []byte(ada), Headers: append(slices.Clone(ours), schemas.Header{Key: "weft-colour"})}, "weft-colour"},
		"foreign header": {schemas.Record{Topic: "events.collected", Key: []byte("k"), Headers: append(slices.Clone(collected), schemas.Header{Key: "x"}),
			Value: []byte(`{"type":"identify","messageId":"m"}`)}, "headers"},
		"header twice":  {schemas.Record{Topic: "profiles.changed", Key: []byte(ada), Headers: append(slices.Clone(ours), ours[0])}, "stands twice"},
		"newer schema":  {schemas.Record{Topic: "profiles.changed", Key: []byte(ada), Headers: headers(h(topic.HeaderSchema, "2"), positionHeader)}, "weft-schema"},
		"key of a name": {schemas.Record{Topic: "profiles.changed", Key: []byte("ada"), Headers: ours}, "key"},
		"track without event": {schemas.Record{Topic: "events.collected", Key: []byte("k"), Headers: collected,
			Value: []byte(`{"type":"track","messageId":"m"}`)}, "event"},
		"delivered but purchased": {schemas.Record{Topic: "activations.settled", Key: []byte(ada), Headers: ours, Value: receipt}, "reason"},
		"member of no schema":     {schemas.Record{Topic: "audiences.changed", Key: []byte(ada), Headers: ours, Value: []byte(`{"more":1}`)}, "more"},
	} {
		err := s.Check(c.record)
		require.ErrorContains(t, err, c.says, name)
	}
	require.ErrorIs(t, s.Check(schemas.Record{Topic: "x"}), schemas.ErrUnknownTopic)
}

func each(records []schemas.Record) iter.Seq2[schemas.Record, error] {
	return func(yield func(schemas.Record, error) bool) {
		for _, r := range records {
			if !yield(r, nil) {
				return
			}
		}
	}
}

func TestCheckAllTellsTheFirstFaults(t *testing.T) {
	s := newSet(t)
	bad := slices.Repeat([]schemas.Record{{Topic: "nowhere"}}, 25)
	_, err := s.CheckAll(each(bad))
	require.ErrorContains(t, err, "and 5 more")
	broken := errors.New("connection lost")
	_, err = s.CheckAll(func(yield func(schemas.Record, error) bool) { yield(schemas.Record{}, broken) })
	require.ErrorIs(t, err, broken)
}
