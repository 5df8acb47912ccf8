// Package replay sends the events of a file in through the HTTP door: Segment-shaped JSON lines, or CSV and
// space-separated files with a mapping file, packed with gzip or not.
//
// It owns: reading rows, their ids, lanes, and the progress file. It guarantees that a row's message id
// depends only on the mapping, the row and the equal rows before it, so that replaying a file twice, or after
// lines were added to it, changes nothing, and equal rows stay distinct; that events of one sender's id
// arrive in the file's order; that what the progress file names was acknowledged (or refused for good, and
// said so); and that memory does not grow with the file, but for about 20 bytes per row without an id of its
// own. It must not know what becomes of events behind the door.
package replay

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"sync"
	"time"

	"github.com/weft-cdp/weft/services/weft/replay/door"
)

const (
	// defaultLanes keeps several requests in flight: enough to keep the door busy, few enough for it.
	defaultLanes = 4
	// maxWaiting bounds the rows read but not acknowledged: a lane whose rows are rare must not hold back
	// the progress of the others for long.
	maxWaiting = 20_000
	// saveEvery is how often progress is written: each time costs two fsyncs.
	saveEvery = time.Second
	// maxNamed bounds the refused rows that a report names.
	maxNamed = 100
)

// Options say what to send where.
type Options struct {
	File       string
	Format     *Format // nil: Segment-shaped JSON lines
	Historical bool    // add context.historical = true to every event
	State      string  // progress file; empty: FILE.progress
	Resume     bool    // go on where the progress file says; else begin anew
	Lanes      int     // requests in flight; 0: a few
	To         string  // the door's address, as it stands in the progress file
	// OnProgress is called now and then, from one goroutine at a time: bytes read of the file as it is on the
	// disk, of its size, and events acknowledged so far.
	OnProgress func(read, size, acknowledged int64)
}

// Report is what became of the file.
type Report struct {
	Rows         int64 // events found in it
	Skipped      int64 // done by a former run
	Acknowledged int64
	Refused      int64
	Named        []Refused // the first of them by line
	Took         time.Duration
}

// Refused is a row that did not become an event.
type Refused struct {
	Line   int64
	Reason string
}

// run is one Run at work.
type run struct {
	opt   Options
	door  *door.Client
	lanes []chan batch

	mu      sync.Mutex
	tracker tracker
	report  Report
	saved   time.Time
}

// batch is what one request takes. refs name its rows.
type batch struct {
	items [][]byte
	refs  []ref
	size  int
}

type ref struct{ number, line int64 }

// Run sends the file. It returns nil in err when every row was acknowledged or refused; the report is filled
// in also if not. Progress is kept whatever the end.
func Run(ctx context.Context, opt Options, d *door.Client) (Report, error) {
	if opt.Lanes <= 0 {
		opt.Lanes = defaultLanes
	}
	if opt.State == "" {
		opt.State = opt.File + ".progress"
	}
	file, err := open(opt.File)
	if err != nil {
		return Report{}, err
	}
	defer func() { _ = file.file.Close() }() // was only read
	in, err := newRows(file, opt.Format, opt.Historical)
	if err != nil {
		return Report{}, err
	}
	r := &run{opt: opt, door: d, tracker: tracker{first: 1}}
	begun := time.Now()
	err = r.all(ctx, file, in)
	r.report.Took = time.Since(begun)
	return r.report, err
}

func (r *run) all(ctx context.Context, file *opened, in *rows) error {
	if err := r.skip(in); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var lanes sync.WaitGroup
	for range r.opt.Lanes {
		lane := make(chan batch, 1)
		r.lanes = append(r.lanes, lane)
		lanes.Go(func() {
			for b := range lane {
				if ctx.Err() != nil {
					continue
				}
				if err := r.sendBatch(ctx, b); err != nil {
					cancel(err)
				}
			}
		})
	}
	err := r.read(ctx, file, in)
	for _, lane := range r.lanes {
		close(lane)
	}
	lanes.Wait()
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return errors.Join(err, r.save())
}

// skip passes over what a former run has done.
func (r *run) skip(in *rows) error {
	if !r.opt.Resume {
		return nil
	}
	p, err := readProgress(r.opt.State)
	if err != nil || p == nil {
		return err
	}
	if p.To != r.opt.To || p.Mapping != fingerprint(r.opt.Format) {
		return fmt.Errorf("resume from %s: it was made for %s with another address or mapping: %w", r.opt.State, p.To, ErrOtherFile)
	}
	for r.tracker.first <= p.Rows {
		row, err := in.next()
		if errors.Is(err, io.EOF) {
			return fmt.Errorf("resume from %s: the file ends after %d of %d events: %w", r.opt.State, row.number, p.Rows, ErrOtherFile)
		}
		if err != nil {
			return fmt.Errorf("read line %d: %w", row.line, err)
		}
		r.tracker.add(row)
		r.tracker.done(row.number)
		r.report.Rows++
		r.report.Skipped++
	}
	if r.tracker.progress(r.opt.To, r.opt.Format).Chain != p.Chain {
		return fmt.Errorf("resume from %s: something changed before line %d: %w", r.opt.State, p.Line, ErrOtherFile)
	}
	return nil
}

// read gives the rows to the lanes until the file ends.
func (r *run) read(ctx context.Context, file *opened, in *rows) error {
	open := make([]batch, len(r.lanes))
	flush := func(i int) {
		if len(open[i].items) == 0 {
			return
		}
		select {
		case r.lanes[i] <- open[i]:
		case <-ctx.Done():
		}
		open[i] = batch{}
	}
	seed := maphash.MakeSeed()
	for ctx.Err() == nil {
		row, err := in.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("read %s after event %d: %w", r.opt.File, in.number, err)
		}
		waiting, err := r.take(row, file)
		if err != nil {
			return err
		}
		if row.fault != nil {
			continue
		}
		i := int(maphash.Bytes(seed, row.key) % uint64(len(r.lanes))) //nolint:gosec // a few lanes
		b := &open[i]
		if len(b.items) > 0 && b.size+len(row.event) > door.MaxBatchBytes {
			flush(i)
		}
		b.items, b.refs, b.size = append(b.items, row.event), append(b.refs, ref{row.number, row.line}), b.size+len(row.event)+1
		if len(b.items) == door.MaxBatchEvents {
			flush(i)
		}
		if waiting >= maxWaiting {
			for i := range open {
				flush(i)
			}
		}
	}
	for i := range open {
		flush(i)
	}
	return nil
}

// take notes a row; one that is no event is done at once.
func (r *run) take(row row, file *opened) (waiting int, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.report.Rows++
	r.tracker.add(row)
	if row.fault != nil {
		r.refuse(row.line, row.fault.Error())
		r.tracker.done(row.number)
	}
	if time.Since(r.saved) >= saveEvery {
		r.saved = time.Now()
		if r.opt.OnProgress != nil {
			r.opt.OnProgress(file.read.n, file.size, r.report.Acknowledged)
		}
		err = r.saveLocked()
	}
	return r.tracker.waiting(), err
}

func (r *run) refuse(line int64, reason string) {
	r.report.Refused++
	at := len(r.report.Named)
	for at > 0 && r.report.Named[at-1].Line > line {
		at--
	}
	if at < maxNamed {
		r.report.Named = append(r.report.Named, Refused{})
		copy(r.report.Named[at+1:], r.report.Named[at:])
		r.report.Named[at] = Refused{line, reason}
		r.report.Named = r.report.Named[:min(len(r.report.Named), maxNamed)]
	}
}

func (r *run) sendBatch(ctx context.Context, b batch) error {
	res, err := r.door.Batch(ctx, b.items)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, x := range res.Refused {
		r.refuse(b.refs[x.Index].line, x.Reason)
	}
	r.report.Acknowledged += int64(len(b.items) - len(res.Refused))
	numbers := make([]int64, len(b.refs))
	for i := range b.refs {
		numbers[i] = b.refs[i].number
	}
	r.tracker.done(numbers...)
	return nil
}

func (r *run) save() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.saveLocked()
}

func (r *run) saveLocked() error {
	return r.tracker.progress(r.opt.To, r.opt.Format).write(r.opt.State)
}
