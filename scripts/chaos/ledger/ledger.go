// Package ledger is the memory of a run of chaos, outside of the system that is hurt: what was sent, what was
// acknowledged and when, which mails came, and every strike.
//
// It owns: the file, one JSON object a line, and the sums over runs. It guarantees that what Append has returned for
// is on disk, that a ledger whose process was killed is read again (a last line cut short is dropped), and that
// sums change with one rename. It must not know what an action is, nor what is right.
package ledger

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// FileName is the ledger of the run that is under way, or was the last.
const FileName = "ledger.jsonl"

// Kind says what an entry is.
type Kind string

// The kinds of entries.
const (
	Opened Kind = "opened" // a run begins: Plan
	Did    Kind = "did"    // Actions are done, and will be sent: At
	Acked  Kind = "acked"  // Actions were acknowledged
	Mailed Kind = "mailed" // a mail came: Message, To its receiver
	Struck Kind = "struck" // What was done to Target, of Stage
	Noted  Kind = "noted"  // something to be told at the end: What, of Stage
	Fell   Kind = "fell"   // a service of Weft, of Stage, ended by itself: What
	Loaded Kind = "loaded" // everything was sent
	Closed Kind = "closed" // the run was judged
)

// Plan is what a run can be made again from.
type Plan struct {
	Seed     uint64        `json:"seed"`
	Run      string        `json:"run"`
	Visitors int           `json:"visitors"`
	Over     time.Duration `json:"over"`
	Delay    time.Duration `json:"delay"`
	Cluster  bool          `json:"cluster,omitempty"`
	Static   bool          `json:"static,omitempty"` // group membership; every other seed
}

// Entry is one line.
type Entry struct {
	Kind    Kind     `json:"k"`
	At      int64    `json:"t"` // ms; 0: now
	Actions []string `json:"a,omitempty"`
	Message string   `json:"m,omitempty"`
	To      string   `json:"to,omitempty"`
	Stage   string   `json:"stage,omitempty"`
	What    string   `json:"what,omitempty"`
	Target  string   `json:"target,omitempty"`
	Plan    *Plan    `json:"plan,omitempty"`
}

// Ledger is one run's. Safe for concurrent use.
type Ledger struct {
	mu      sync.Mutex
	file    *os.File
	book    Book
	pending bytes.Buffer
	waiting []chan error
	wake    chan struct{}
	closed  chan struct{}
	done    chan struct{}
}

// Open opens the ledger in dir. book says what is in it; fresh drops that.
func Open(dir string, fresh bool) (*Ledger, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open the ledger: %w", err)
	}
	mode := os.O_CREATE | os.O_RDWR
	if fresh {
		mode |= os.O_TRUNC
	}
	f, err := os.OpenFile(filepath.Join(dir, FileName), mode, 0o600) //nolint:gosec // the caller's directory
	if err != nil {
		return nil, fmt.Errorf("open the ledger: %w", err)
	}
	l := &Ledger{file: f, book: newBook(), wake: make(chan struct{}, 1), closed: make(chan struct{}), done: make(chan struct{})}
	if err := l.read(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	go l.write()
	return l, nil
}

// read takes in what is there and cuts off a last line that was not finished.
func (l *Ledger) read() error {
	r := bufio.NewReaderSize(l.file, 1<<20)
	whole := int64(0)
	for {
		line, err := r.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("read the ledger: %w", err)
		}
		var e Entry
		if err := json.Unmarshal(line, &e); err != nil {
			return fmt.Errorf("read the ledger at byte %d: %w", whole, err)
		}
		l.book.apply(e)
		whole += int64(len(line))
	}
	if err := l.file.Truncate(whole); err != nil {
		return fmt.Errorf("cut the ledger: %w", err)
	}
	if _, err := l.file.Seek(whole, io.SeekStart); err != nil {
		return fmt.Errorf("go to the ledger's end: %w", err)
	}
	return nil
}

// Append returns when the entries are on disk. Those of several callers share one fsync.
func (l *Ledger) Append(entries ...Entry) error {
	done := make(chan error, 1)
	l.mu.Lock()
	select {
	case <-l.closed:
		l.mu.Unlock()
		return errors.New("the ledger is closed")
	default:
	}
	enc := json.NewEncoder(&l.pending)
	for _, e := range entries {
		if e.At == 0 {
			e.At = time.Now().UnixMilli()
		}
		if err := enc.Encode(e); err != nil {
			l.mu.Unlock()
			return fmt.Errorf("write the ledger: %w", err)
		}
		l.book.apply(e)
	}
	l.waiting = append(l.waiting, done)
	l.mu.Unlock()
	select {
	case l.wake <- struct{}{}:
	default:
	}
	return <-done
}

// write brings what is pending to disk, in groups.
func (l *Ledger) write() {
	defer close(l.done)
	for over := false; !over; {
		select {
		case <-l.wake:
		case <-l.closed:
			over = true
		}
		l.mu.Lock()
		text, waiting := bytes.Clone(l.pending.Bytes()), l.waiting
		l.pending.Reset()
		l.waiting = nil
		l.mu.Unlock()
		if len(waiting) == 0 {
			continue
		}
		_, err := l.file.Write(text)
		if err == nil {
			err = l.file.Sync()
		}
		if err != nil {
			err = fmt.Errorf("write the ledger: %w", err)
		}
		for _, w := range waiting {
			w <- err
		}
	}
}

// Read calls f with what the ledger says, which f must not keep nor change.
func (l *Ledger) Read(f func(b *Book)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f(&l.book)
}

// Close ends it; what was appended is on disk.
func (l *Ledger) Close() error {
	l.mu.Lock()
	close(l.closed)
	l.mu.Unlock()
	<-l.done
	if err := l.file.Close(); err != nil {
		return fmt.Errorf("close the ledger: %w", err)
	}
	return nil
}
