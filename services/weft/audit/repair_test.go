package audit

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weft-cdp/weft/pkg/warehouse"
)

// extras is a ClickHouse with rows too many, some of which are moved by merges before they can be removed.
type extras struct {
	rows     []warehouse.Extra
	moves    int // how many removals find nothing where it was
	reloaded int
}

func (x *extras) Extras(_ context.Context, limit int) ([]warehouse.Extra, error) {
	return append([]warehouse.Extra(nil), x.rows[:min(limit, len(x.rows))]...), nil
}

func (x *extras) RemoveExtras(_ context.Context, gone []warehouse.Extra) error {
	if x.moves > 0 {
		x.moves--
		for i := range x.rows {
			x.rows[i].Part += "_merged"
		}
	}
	var left []warehouse.Extra
	for _, r := range x.rows {
		stays := true
		for _, g := range gone {
			stays = stays && r != g
		}
		if stays {
			left = append(left, r)
		}
	}
	x.rows = left
	return nil
}

func (x *extras) ReloadPersons(context.Context) error {
	x.reloaded++
	return nil
}

func someExtras(n int) *extras {
	x := &extras{}
	for i := range n {
		x.rows = append(x.rows, warehouse.Extra{Table: "events", Topic: "t", Partition: 1, Offset: uint64(i / 2), Part: "p", At: uint64(i), InsertedAt: noon}) //nolint:gosec // small
	}
	return x
}

func TestRepairNamesEachRowOnce(t *testing.T) {
	x := someExtras(4)
	x.moves = 3
	var out strings.Builder
	n, err := Repair(t.Context(), x, false, &out)
	require.NoError(t, err)
	require.Equal(t, 4, n)
	require.Empty(t, x.rows)
	require.Equal(t, 1, x.reloaded)
	line := "removed from events: t partition 1 offset %d, inserted at 2026-05-04 12:00:00.000\n"
	require.Equal(t, fmt.Sprintf(line+line+line+line, 0, 0, 1, 1), out.String())

	n, err = Repair(t.Context(), x, false, &out)
	require.NoError(t, err)
	require.Zero(t, n)
	require.Equal(t, 1, x.reloaded, "nothing was removed")
}

func TestRepairOfManyAndDry(t *testing.T) {
	x := someExtras(2*repairBatch + 2)
	var out strings.Builder
	n, err := Repair(t.Context(), x, true, &out)
	require.NoError(t, err)
	require.Equal(t, repairBatch, n)
	require.Len(t, x.rows, 2*repairBatch+2)
	require.Contains(t, out.String(), "would remove from events: t partition 1 offset 0")
	n, err = Repair(t.Context(), x, false, &out)
	require.NoError(t, err)
	require.Equal(t, 2*repairBatch+2, n)
	require.Empty(t, x.rows)
}

func TestRepairThatGetsNowhereSaysSo(t *testing.T) {
	x := someExtras(2)
	x.moves = 1 << 30
	_, err := Repair(t.Context(), x, false, &strings.Builder{})
	require.ErrorContains(t, err, "2 double rows are still there")
	_, err = Repair(t.Context(), someExtras(1), true, broken{})
	require.ErrorIs(t, err, errBroken)
}

var errBroken = errors.New("broken pipe")

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, errBroken }

func TestMetricsOfAReport(t *testing.T) {
	r := Report{
		Lines: []Line{
			{Key: Key{"main", "web", noon}, Accepted: 5, Stored: 3, Rejected: 1},
			{Key: Key{"main", "web", noon.Add(1)}, Accepted: 2, Stored: 2},
			{Key: Key{"main", "web", noon.Add(2)}, Accepted: 9, Open: true},
		},
		Doubles: []warehouse.Double{{Table: "events", Rows: 2}, {Table: "events", Rows: 2}},
		Lags:    []Lag{{"journey-writer", "t", 7}},
	}
	file := filepath.Join(t.TempDir(), "new", "weft.prom")
	require.NoError(t, r.WriteMetrics(file, noon))
	b, err := os.ReadFile(file) //nolint:gosec // the test's own
	require.NoError(t, err)
	var lines []string
	for _, l := range strings.Split(string(b), "\n") {
		if l != "" && l[0] != '#' {
			lines = append(lines, l)
		}
	}
	require.Equal(t, []string{
		`weft_audit_closes 0`, `weft_audit_double_records{table="events"} 2`,
		`weft_audit_events{brand="main",outcome="accepted",source="web"} 7`, `weft_audit_events{brand="main",outcome="duplicate",source="web"} 0`,
		`weft_audit_events{brand="main",outcome="rejected",source="web"} 1`, `weft_audit_events{brand="main",outcome="stored",source="web"} 5`,
		`weft_audit_lag_records{stage="journey-writer",topic="t"} 7`, `weft_audit_missing_events{brand="main",source="web"} 1`,
	}, lines[:8])
	require.Contains(t, lines[8], "weft_audit_timestamp_seconds 1.77")
	require.NoError(t, Report{}.WriteMetrics(file, noon))
	b, err = os.ReadFile(file) //nolint:gosec // the test's own
	require.NoError(t, err)
	require.Contains(t, string(b), "weft_audit_closes 1\n")
}
