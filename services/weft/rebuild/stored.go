package rebuild

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/weft-cdp/weft/pkg/event"
	"github.com/weft-cdp/weft/pkg/stored"
	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
)

// Selection says which stored events are looked at.
type Selection struct {
	Since, Until time.Time // of their receipt; a zero Until: now
	Sources      []string  // empty: all
	PerKind      int       // the newest so many of each kind of event: a call, or a track's name
}

// maxKinds bounds how many kinds of events are read: more track names than this are ids where names belong.
const maxKinds = 2000

// kindRow is one kind of event that came.
type kindRow struct {
	Type  string `ch:"type"`
	Track string `ch:"track"`
}

// Stored calls each for the newest events of every kind in ClickHouse, made again of their rows: what is kept of an
// event in columns, and no member that Weft does not know. The event is valid during the call only. It returns how many
// there were.
func Stored(ctx context.Context, w stored.Warehouse, s Selection, each func(e *event.Event)) (n int, err error) {
	if s.Until.IsZero() {
		s.Until = time.Now()
	}
	where, args := s.condition()
	var kinds []kindRow
	err = w.Select(ctx, &kinds, `SELECT type, if(type = 'track', name, '') AS track FROM ${database}.events`+where+
		` GROUP BY type, track ORDER BY count() DESC, type, track LIMIT `+fmt.Sprint(maxKinds), args...)
	if err != nil {
		return 0, fmt.Errorf("ask which events are stored: %w", err)
	}
	for _, k := range kinds {
		read, err := s.kind(ctx, w, k, where, args, each)
		n += read
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// kind reads the newest events of one kind.
func (s *Selection) kind(ctx context.Context, w stored.Warehouse, k kindRow, where string, args []any, each func(e *event.Event)) (int, error) {
	where, args = where+` AND type = ?`, append(args[:len(args):len(args)], k.Type)
	if k.Type == string(event.Track) {
		where, args = where+` AND name = ?`, append(args, k.Track)
	}
	var rows []stored.Event
	if err := w.Select(ctx, &rows, stored.EventColumns+where+` ORDER BY received_at DESC LIMIT `+fmt.Sprint(s.PerKind), args...); err != nil {
		return 0, fmt.Errorf("read stored events %s %q: %w", k.Type, k.Track, err)
	}
	for i := range rows {
		r, err := rows[i].Record()
		if err == nil {
			err = decoded(&r, each)
		}
		if err != nil {
			return i, fmt.Errorf("make stored event %s again: %w", rows[i].MessageID, err)
		}
	}
	return len(rows), nil
}

func decoded(r *stream.Record, each func(e *event.Event)) error {
	m, err := topic.ParseMeta(r.Headers)
	if err != nil {
		return err
	}
	e, err := event.Decode(r.Value, m)
	if err != nil {
		return err
	}
	each(e)
	return nil
}

// condition is the WHERE of a selection.
func (s *Selection) condition() (string, []any) {
	where, args := ` WHERE received_at >= ? AND received_at < ?`, []any{s.Since.UTC(), s.Until.UTC()}
	if len(s.Sources) > 0 {
		where += ` AND source IN (?` + strings.Repeat(`, ?`, len(s.Sources)-1) + `)`
		for _, name := range s.Sources {
			args = append(args, name)
		}
	}
	return where, args
}
