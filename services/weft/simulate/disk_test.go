package simulate

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/weft-cdp/weft/pkg/spool"
)

const (
	// spoolAfter is how long a call waits for Kafka before it is spooled: well below produceTimeout, as in the defaults.
	spoolAfter = 400 * time.Millisecond
	// spoolBytes is the bound of a spool: its segments, an eighth of it, then end within a schedule.
	spoolBytes = 64 << 10
)

// disk is the collector's machine, as far as the spool's segments go: what was not synced is gone when it goes down. The
// directory outlives it, and whoever comes next finds it there.
type disk struct {
	p     *process
	mu    sync.Mutex
	dead  bool
	files []*platter
}

// platter is a segment on it.
type platter struct {
	*os.File
	d      *disk
	path   string
	size   int64
	synced int64
}

var _ spool.File = (*platter)(nil)

// create makes a segment, at once: the spool holds a lock while it does, and virtual time must not wait for one.
func (d *disk) create(path string) (spool.File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.dead {
		return nil, errDisk
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600) //nolint:gosec // of the schedule
	if err != nil {
		return nil, err
	}
	f := &platter{File: file, d: d, path: path}
	d.files = append(d.files, f)
	return f, nil
}

var errDisk = errors.New("input/output error")

// befalls lets the plan say what happens to a step of the disk: the process dies before it, or right behind it, or the disk
// fails. A process that is dead does nothing to it any more.
func (d *disk) befalls(what string, do func() error) error {
	if !d.p.hold() {
		return errDisk
	}
	m := &message{label: "spool " + what, class: disks}
	v := d.p.w.before(d.p, m)
	switch v.fault {
	case crashBefore:
		d.p.crash()
	case cutBefore:
		return errDisk
	}
	d.mu.Lock()
	err := errDisk
	if !d.dead {
		err = do()
	}
	d.mu.Unlock()
	if err == nil && v.fault == crashAfter {
		d.p.crash()
		return errDisk
	}
	return err
}

// Write implements spool.File.
func (f *platter) Write(b []byte) (n int, err error) {
	err = f.d.befalls(filepath.Base(f.path)+" write", func() error {
		n, err = f.File.Write(b)
		f.size += int64(n)
		return err
	})
	return n, err
}

// Sync implements spool.File.
func (f *platter) Sync() error {
	return f.d.befalls(filepath.Base(f.path)+" sync", func() error {
		f.synced = f.size
		return nil
	})
}

// Truncate implements spool.File.
func (f *platter) Truncate(size int64) error {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if f.d.dead {
		return errDisk
	}
	f.size, f.synced = size, min(f.synced, size)
	return f.File.Truncate(size)
}

// goesDown is the instant in which the machine of a process goes down: what its files hold beyond their last sync is lost.
func (d *disk) goesDown() {
	if d == nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.dead {
		return
	}
	d.dead = true
	for _, f := range d.files {
		if f.size == f.synced {
			continue
		}
		if err := os.Truncate(f.path, f.synced); err == nil { // else it is drained, and gone
			d.p.w.mu.Lock()
			d.p.w.injected["bytes that were not synced lost"] += int(f.size - f.synced)
			d.p.w.mu.Unlock()
		}
	}
}

// insert makes a process' disk.
func (p *process) insert() *disk {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.disk = &disk{p: p}
	return p.disk
}

// outage is a time in which Kafka takes nothing from the doors, or nothing for one partition.
type outage struct {
	from, to  time.Duration
	partition int // -1: all
}

// outages are those of the schedule, as the seed has them: one a few seconds in, when the first carts are due, and the
// others anywhere.
func (w *world) outages() []outage {
	var all []outage
	for i := range w.shape.outages {
		n := fmt.Sprint("outage ", i)
		from := w.between(time.Second, w.shape.trouble, n, "from")
		if i == 0 {
			from = w.between(time.Second, 5*time.Second, n, "from")
		}
		all = append(all, outage{from, from + w.between(time.Second, 8*time.Second, n, "for"), w.upTo(partitions+1, n, "of") - 1})
	}
	return all
}

// away says whether a produce request of a door meets an outage.
func (w *world) away(p *process, m *message) bool {
	if p.service != collect || m.class != produces {
		return false
	}
	now := w.now()
	return slices.ContainsFunc(w.outages(), func(o outage) bool {
		return o.from <= now && now < o.to && (o.partition < 0 || strings.HasSuffix(m.label, fmt.Sprintf("/%d", o.partition)))
	})
}

// spools says whether the collectors have spools.
func (w *world) spools() bool { return w.shape.outages > 0 }
