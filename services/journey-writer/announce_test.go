package writer

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/topic"
)

func TestAnnouncementIsReadBackAsWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		start := rapid.Int64Range(0, 1<<60).Draw(t, "start")
		at := rapid.Int64Range(0, 4e12).Draw(t, "at")
		a := announcement{
			Start: start, End: start + rapid.Int64Range(0, 1<<30).Draw(t, "length"),
			At: time.UnixMilli(at).UTC(), First: time.UnixMilli(at - rapid.Int64Range(0, at).Draw(t, "revived")).UTC(),
			Positions: positions{},
		}
		for _, stage := range rapid.SliceOfDistinct(rapid.StringMatching(`[a-z/.-]{1,30}`), rapid.ID).Draw(t, "stages") {
			if len(a.Positions) == 4 {
				break
			}
			a.Positions[stage] = rapid.SliceOfN(rapid.Int64Range(0, 1<<62), 1, 12).Draw(t, stage)
		}
		text, err := a.encode()
		require.NoError(t, err)
		got, err := decodeAnnouncement(start, text)
		require.NoError(t, err)
		require.Equal(t, a, got)
		for i := range text { // what is cut or not ours is refused, never half understood
			if _, err := decodeAnnouncement(start, text[:i]); i > 0 && err == nil {
				t.Fatalf("cut to %d of %d bytes it is still read", i, len(text))
			}
		}
	})
}

func TestDecodeAnnouncement(t *testing.T) {
	a, err := decodeAnnouncement(7, "")
	require.NoError(t, err)
	require.Equal(t, announcement{Start: 7, End: 7, Positions: positions{}}, a)
	for _, bad := range []string{"x", "%%%", "Ag", "AQ", "////////////////////////////////"} {
		_, err := decodeAnnouncement(0, bad)
		require.ErrorIs(t, err, errMetadata, bad)
	}
}

func FuzzDecodeAnnouncement(f *testing.F) {
	f.Add("AQAAAAA")
	f.Fuzz(func(t *testing.T, s string) {
		if a, err := decodeAnnouncement(0, s); err == nil && a.End < a.Start {
			t.Fatal("ends before it starts")
		}
	})
}

func TestMetadataThatOutgrowsKafkasLimitIsAnError(t *testing.T) {
	a := announcement{Positions: positions{}}
	for range 700 {
		a.Positions["stage"] = append(a.Positions["stage"], 1<<40)
	}
	_, err := a.encode()
	require.ErrorContains(t, err, "offset.metadata.max.bytes is 4096")
}

func TestPositionsKnowWhatWasPublishedTwice(t *testing.T) {
	ps := positions{}
	at := func(stage string, part int, seq int64) bool {
		return ps.above(topic.Position{Stage: stage, Partition: part, Seq: seq})
	}
	require.True(t, at("a", 3, 0))
	require.False(t, at("a", 3, 0))
	require.True(t, at("a", 3, 7), "a gap is no duplicate")
	require.False(t, at("a", 3, 6))
	require.True(t, at("a", 0, 0), "partitions count by themselves")
	require.True(t, at("b", 3, 0), "stages count by themselves")
	c := ps.clone()
	require.True(t, c.above(topic.Position{Stage: "a", Partition: 3, Seq: 8}))
	require.True(t, at("a", 3, 8), "a clone is its own")
}

func TestLimitsRefuseWhatCannotBeKept(t *testing.T) {
	cfg := config.Defaults()
	set := topic.Set{Prefix: "weft.", Partitions: 12}
	l, err := newLimits(cfg.Writer, 12)
	require.NoError(t, err)
	// All inserts of a topic's partitions between an announcement and its last possible insert fit the window.
	worst := time.Duration(12) * (l.deadline + l.insert + l.skew) / l.spacing
	require.LessOrEqual(t, int(worst)*tokenReserve, tokenWindow)
	for _, in := range inputs(cfg, set) {
		require.NoError(t, checkMetadata(in, 12, nil), in.topic)
	}
	require.ErrorContains(t, checkMetadata(inputs(cfg, set)[0], 1000, nil), "use fewer partitions")
	cfg.Collector.Inlets = []config.Inlet{{Topic: "till.sales"}}
	rejected := inputs(cfg, set)[1]
	require.NoError(t, checkMetadata(rejected, 12, map[string]int{"collector/till.sales": 12}))
	require.ErrorContains(t, checkMetadata(rejected, 12, map[string]int{"collector/till.sales": 600}), "collector/till.sales:600")
	cfg.Writer.BatchRows = 0
	_, err = newLimits(cfg.Writer, 12)
	require.ErrorContains(t, err, "batch_rows")
}

func TestWorstMetadataIsAboveWhatIsWritten(t *testing.T) {
	stages := []string{topic.StageDecide, topic.StageDeliver}
	a := announcement{Start: 0, End: 1 << 40, At: time.UnixMilli(4e12), First: time.UnixMilli(0), Positions: positions{}}
	for _, s := range stages {
		for range 100 {
			a.Positions[s] = append(a.Positions[s], 1<<42-1)
		}
	}
	text, err := a.encode()
	require.NoError(t, err)
	require.LessOrEqual(t, len(text), worstMetadata(map[string]int{stages[0]: 100, stages[1]: 100}))
	require.False(t, strings.ContainsAny(text, " \n"))
}

// A writer without partitions, because there are more writers than partitions, is ready.
func TestReadyOnceAMemberAndCaughtUp(t *testing.T) {
	m, err := newMetrics(nil)
	require.NoError(t, err)
	p := m.partition("t", 0, time.Now)
	s := &Service{migrated: true, owned: map[*partitionMetrics]bool{}, given: map[string]int{}}
	require.ErrorContains(t, s.Ready(), "not yet a member")
	s.given["t"] = 1
	require.ErrorContains(t, s.Ready(), "1 of 1 partitions are not taken over yet")
	s.owned[p] = true
	require.ErrorContains(t, s.Ready(), "not read yet")
	p.behind.Store(readyLag + 1)
	require.ErrorContains(t, s.Ready(), "records behind")
	p.behind.Store(0)
	require.NoError(t, s.Ready())
	delete(s.owned, p)
	s.given["t"] = 0
	require.NoError(t, s.Ready())
}
