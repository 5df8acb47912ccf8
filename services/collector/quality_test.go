package collector

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/event"
	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
)

func fileWith(t testing.TB, name, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	return file
}

func values(recs []stream.Record) []string {
	var out []string
	for _, r := range recs {
		out = append(out, string(r.Value))
	}
	return out
}

func TestTransformationsAtTheDoor(t *testing.T) {
	f := newFixture(t, func(c *config.Collector) {
		c.Sources[0].Transformations = []config.Transformation{
			{Name: "staging", When: `event.context.page.url.startsWith("https://staging.")`, Drop: true},
			{RenameEvent: map[string]string{"Bought": "Order Completed"}},
			{Name: "net", Derive: map[string]string{"properties.net": "event.properties.total - event.properties.tax"}},
			{Remove: []string{"properties.card"}},
		}
	})
	w := f.do("POST", "/v1/batch", basic("wk_demo"), `{"batch":[
		{"type":"track","event":"Bought","userId":"u","messageId":"1","properties":{"total":119.90,"tax":19.90,"card":"4111"}},
		{"type":"track","event":"Bought","userId":"u","messageId":"2","context":{"page":{"url":"https://staging.shop.example/"}}},
		{"type":"track","event":"Bought","userId":"u","messageId":"3","properties":{"total":119.90,"tax":"none","card":"4111"}}]}`)
	require.Equal(t, 200, w.Code)
	require.Equal(t, []string{`{"type":"track","event":"Order Completed","userId":"u","messageId":"1","properties":{"total":119.90,"tax":19.90,"net":100}}`}, values(f.collected.take()))
	rec := one(t, f.rejected.take())
	require.Equal(t, "transformation_failed", header(t, rec, topic.HeaderReason))
	require.Equal(t, "3", header(t, rec, topic.HeaderMessageID))
	require.Contains(t, header(t, rec, topic.HeaderError), "batch[2]: transformation_failed: net: derive: properties.net: 1:")
	require.Contains(t, header(t, rec, topic.HeaderError), "event.properties.total - event.properties.tax", "the expression")
	require.Equal(t, `{"type":"track","event":"Bought","userId":"u","messageId":"3","properties":{"total":119.90,"tax":"none","card":"4111"}}`, string(rec.Value), "the input, as it came")
	for result, n := range map[string]float64{"stored": 1, "rejected": 1, "dropped": 1, "suppressed": 0} {
		require.InDelta(t, n, f.counter(t, "weft_collector_events_total", "web", result), 0, result)
	}
	require.InDelta(t, 1, f.counter(t, "weft_collector_transformations_total", "web", "staging", "dropped"), 0)
	require.InDelta(t, 1, f.counter(t, "weft_collector_transformations_total", "web", "net", "failed"), 0)

	f.do("POST", "/v1/track", basic("wk_server"), `{"event":"Bought","userId":"u"}`)
	require.Contains(t, string(one(t, f.collected.take()).Value), `"Bought"`, "another source")
}

const planForTest = `
unplanned: block
violations: flag
rules:
  - event: Order Completed
    violations: block
    schema: {properties: {properties: {required: [total], properties: {total: {type: number}}}}}
  - event: Product Added
    additional: allow
    schema: {properties: {properties: {properties: {sku: {type: string}}}}}
`

func TestTrackingPlansAtTheDoor(t *testing.T) {
	f := newFixture(t, func(c *config.Collector) { c.Sources[0].Plan = fileWith(t, "plan.yaml", planForTest) })
	w := f.do("POST", "/v1/batch", basic("wk_demo"), `{"batch":[
		{"type":"track","event":"Order Completed","userId":"u","messageId":"1","properties":{"total":1.50,"new":{"field":1}}},
		{"type":"track","event":"Order Completed","userId":"u","messageId":"2","properties":{"total":"1.50"}},
		{"type":"track","event":"Product Added","userId":"u","messageId":"3","properties":{"sku":7}},
		{"type":"track","event":"Novelty","userId":"u","messageId":"4"},
		{"type":"page","userId":"u","messageId":"5"}]}`)
	require.Equal(t, 200, w.Code)
	taken := f.collected.take()
	require.Len(t, taken, 3)
	for i, flags := range []string{"", event.FlagPlanViolation, ""} {
		require.Equal(t, flags, header(t, taken[i], topic.HeaderFlags))
	}
	rejected := f.rejected.take()
	require.Len(t, rejected, 2)
	require.Equal(t, "plan_violation", header(t, rejected[0], topic.HeaderReason))
	require.Equal(t, "batch[1]: plan_violation: properties.total: got string, want number (rule Order Completed of the tracking plan)",
		header(t, rejected[0], topic.HeaderError))
	require.Equal(t, `batch[3]: plan_violation: event: the plan has no event "Novelty" (rule (unplanned) of the tracking plan)`, header(t, rejected[1], topic.HeaderError))
	for _, c := range [][]string{{"Order Completed", "block"}, {"Product Added", "flag"}, {"(unplanned)", "block"}} {
		require.InDelta(t, 1, f.counter(t, "weft_collector_plan_violations_total", "web", c[0], c[1]), 0, c)
	}
	require.InDelta(t, 0, f.counter(t, "weft_collector_plan_violations_total", "web", "Product Added", "block"), 0)
}

// A plan sees events as the transformations made them.
func TestPlansComeBehindTransformations(t *testing.T) {
	f := newFixture(t, func(c *config.Collector) {
		c.Sources[0].Plan = fileWith(t, "plan.yaml", planForTest)
		c.Sources[0].Transformations = []config.Transformation{{RenameEvent: map[string]string{"Bought": "Order Completed"}}}
	})
	f.do("POST", "/v1/track", basic("wk_demo"), `{"event":"Bought","userId":"u","properties":{"total":1}}`)
	require.Len(t, f.collected.take(), 1)
}

func TestSuppressedPeopleAreCountedAndNotStored(t *testing.T) {
	list := fileWith(t, "suppressed", "ann@shop.example\nsha256:5f62dc1a6d3e3ac5fa4ef30a0b0b1cb44fd0b1a3e4c0d2a3d5a0b2a4b6f2b6d1 # not u-9\n"+hashOf("u-2")+"\n")
	f := newFixture(t, func(c *config.Collector) { c.SuppressionFile = list })
	send := func() (stored int) {
		w := f.do("POST", "/v1/batch", basic("wk_demo"), `{"batch":[
			{"type":"track","event":"A","userId":"u-1"},
			{"type":"track","event":"A","userId":"U-2 "},
			{"type":"identify","userId":"u-3","traits":{"email":"Ann@Shop.example"}},
			{"type":"track","event":"A","anonymousId":"a","context":{"externalIds":[{"type":"loyalty_id","id":"u-2"}]}},
			{"type":"track","userId":"u-2"}]}`)
		require.Equal(t, 200, w.Code)
		require.Empty(t, f.rejected.take(), "a faulty event of theirs is not kept either")
		return len(f.collected.take())
	}
	require.Equal(t, 1, send())
	require.InDelta(t, 4, f.counter(t, "weft_collector_events_total", "web", "suppressed"), 0)
	require.InDelta(t, 1, f.counter(t, "weft_collector_events_total", "web", "stored"), 0)

	require.NoError(t, os.WriteFile(list, []byte("u-1\n"), 0o600))
	_, err := f.intake.suppressed.Refresh()
	require.NoError(t, err)
	w := f.do("POST", "/v1/track", basic("wk_demo"), `{"event":"A","userId":"u-1"}`)
	require.Equal(t, 200, w.Code)
	require.Empty(t, f.collected.take())
}

// A running collector takes a changed list by itself, for its topics, too.
func TestAChangedSuppressionListIsTaken(t *testing.T) {
	b := newBroker(t)
	b.cfg.Collector.SuppressionFile = fileWith(t, "suppressed", "nobody\n")
	s := b.prepare()
	s.begin()
	set := b.cfg.Topics.Set()
	b.produce(b.foreign(), set.EventsInbox(), `{"event":"A","userId":"u-1"}`)
	b.caughtUp(set.EventsInbox())
	require.NoError(t, os.WriteFile(b.cfg.Collector.SuppressionFile, []byte("u-1\nu-2\n"), 0o600))
	require.Eventually(t, func() bool { return s.intake.suppressed.Entries().Has("u-1") }, patience, 10*time.Millisecond)
	b.produce(b.foreign(), set.EventsInbox(), `{"event":"A","userId":"u-1"}`, `{"event":"A","userId":"u-3"}`)
	b.caughtUp(set.EventsInbox())
	require.NoError(t, s.stop())
	bodies := strings.Join(values(flat(b.read(set.EventsCollected()))), "\n")
	require.Equal(t, 1, strings.Count(bodies, `"u-1"`))
	require.Equal(t, 1, strings.Count(bodies, `"u-3"`))
}

// What is wrong with the files of a source is told at the start, with the source and the place.
func TestFaultyQualityFilesStopTheStart(t *testing.T) {
	for want, change := range map[string]func(c *config.Collector){
		"source web: read plan: open /none": func(c *config.Collector) { c.Sources[0].Plan = "/none" },
		"rules: a plan has at least one":    func(c *config.Collector) { c.Sources[0].Plan = fileWith(t, "plan.yaml", "rules: []") },
		"source web: transformations[0].remove[0]: path \"a..b\"": func(c *config.Collector) {
			c.Sources[0].Transformations = []config.Transformation{{Remove: []string{"a..b"}}}
		},
	} {
		cfg := settings(t).Collector
		change(&cfg)
		in, err := newIntake(cfg, time.Now, nil)
		require.NoError(t, err)
		_, err = newKeys(in)
		require.ErrorContains(t, err, want)
	}
	cfg := settings(t).Collector
	cfg.SuppressionFile = "/none"
	_, err := newIntake(cfg, time.Now, nil)
	require.ErrorContains(t, err, "collector.suppression_file: ")
}
