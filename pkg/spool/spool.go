// Package spool keeps records on local disk while Kafka does not take them, and hands them on when it does.
//
// It owns: a directory, its lock, the segments in it, the registration at the fence, and the draining of directories
// beside it that no process uses any more. It guarantees:
//
//   - A nil from Sender.SendAll means that each record is in all in-sync replicas of Kafka, or synced to this disk
//     and registered where the fence looks (package registry). A full or broken disk, a spool at its bound, or a
//     registration that does not come through is an error, and nothing was acknowledged.
//   - Once a partition has spooled records, later ones of that partition go behind them, until all are in Kafka:
//     the order of those who wait for their acknowledgement is kept.
//   - What was acknowledged survives the process, and the machine as far as its disk does. A torn end is
//     recognized by its checksum. Draining may hand on a record again that Kafka has already, after a crash or a lost
//     answer: with the same message id, by which the stage behind drops it.
//   - One process at a time uses a directory.
//   - The registration is taken away only when Kafka has acknowledged everything.
//
// Records are encoded once, as they stand in a batch of Kafka's (stream.Encoded); one write and one fsync serve all
// calls that came while the former was on its way. Memory does not grow with what is spooled.
//
// It must not know what a record means.
package spool

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/weft-cdp/weft/pkg/spool/registry"
	"github.com/weft-cdp/weft/pkg/stream"
)

const (
	// maxSegment is where a segment ends: what is drained is freed a segment at a time.
	maxSegment = 64 << 20
	// minSegments is how many segments a spool at its bound has at least, so that draining soon makes room.
	minSegments = 8
	// maxGroup is how many bytes of records are written and synced at once: what a disk takes in some ten
	// milliseconds.
	maxGroup = 4 << 20
	// maxItem is where the records of one call are parted, so that a group stays below twice maxGroup.
	maxItem = 1 << 20
	// maxDirs is how many processes with the same configuration may have spools on one machine.
	maxDirs = 64
)

// Why nothing was spooled.
var (
	// ErrFull: the spool has reached its bound.
	ErrFull = errors.New("spool is full")
	// ErrDisk: the disk has not taken it.
	ErrDisk = errors.New("spool's disk fails")
	// ErrUnregistered: the fence cannot be told.
	ErrUnregistered = errors.New("spool cannot be registered at the fence")
	// ErrLocked: another process uses the directory.
	ErrLocked = errors.New("spool is used by another process")
)

// Registry is where the fence looks. *registry.Registry is one.
type Registry interface {
	Register(ctx context.Context, e registry.Entry) error
	Unregister(ctx context.Context, id string) error
	List(ctx context.Context) ([]registry.Entry, error)
}

// Producer takes what is drained. *stream.Client is one.
type Producer interface {
	ProduceEncoded(ctx context.Context, topicName string, partition int, e *stream.Encoded, from int) error
}

// Options is what a spool is made of. All but Metrics, Refused, Now and Create are required.
type Options struct {
	Dir        string // its own; see OpenFree
	MaxBytes   int64
	Topics     []string // whose records it may get
	Partitions int      // of each
	Registry   Registry
	Producer   Producer
	// Refused takes a record that Kafka refuses for good when it is drained: it is acknowledged already, so it must
	// be put somewhere. Without it, or after its error, the partition waits.
	Refused func(ctx context.Context, topicName string, partition int, r stream.Record, why *stream.RecordError) error
	Log     *zap.Logger
	Metrics prometheus.Registerer
	Now     func() time.Time

	// Create makes the file of a segment; nil: on the disk. Tests put one in that breaks, or loses what was not synced.
	Create func(path string) (File, error)

	adoptEvery time.Duration // tests do not wait that long
}

// Spool is one directory in use. It is safe for concurrent use. Make it with Open, end it with Close.
type Spool struct {
	opt     Options
	base    string // of OpenFree, "" without
	id      string
	lock    *os.File
	metrics *metrics

	wake    chan struct{} // for the writer: there is something to write
	moved   chan struct{} // for the drainer: the writer has written
	emptied chan struct{} // for the keeper: everything is drained

	mu      sync.Mutex
	closed  bool
	queue   []*item
	queued  int64 // bytes
	writing bool
	lanes   []lane        // by topic and partition
	behind  int           // records of all lanes
	turning chan struct{} // closed when the lanes that turn are decided

	segments []*segment // the oldest first; the last may be active
	active   File       // of the last segment; nil: the next write begins one
	next     uint64     // number of the next segment
	broken   time.Time  // no write is tried before
	cause    error      // why

	episode    string // id of the registration in use; "" if there is none
	registered bool   // Redis has confirmed it

	adopted map[string]*Spool // by directory: left by other processes, and being drained
}

// lane is one partition of one topic.
type lane struct {
	behind  int      // records that are queued or written, and not drained
	turning bool     // new calls wait, so that the last of its records can be drained
	from    position // groups before it hold nothing more of this lane
}

// item is records of one call for one lane.
type item struct {
	lane  int
	count int
	data  []byte
	done  chan error // has room for the answer
}

// position is a place in a spool.
type position struct {
	segment uint64
	offset  int64
}

func (p position) before(o position) bool {
	return p.segment < o.segment || p.segment == o.segment && p.offset < o.offset
}

// identity is the file that tells whose a directory is.
type identity struct {
	Version    int      `json:"version"`
	ID         string   `json:"id"`
	Topics     []string `json:"topics"`
	Partitions int      `json:"partitions"`
}

const (
	layoutVersion = 1
	identityFile  = "spool.json"
	lockFile      = "lock"
	positionFile  = "position"
	segmentSuffix = ".spool"
	damagedSuffix = ".damaged"
)

// OpenFree opens the first directory of opt.Dir/0, opt.Dir/1 and so on that no other process uses, so that several
// processes of one configuration each have their own. Those in which something was left go first: what comes then
// stands behind it. Run drains those, too, that nobody takes.
func OpenFree(opt Options) (*Spool, error) {
	base := opt.Dir
	for _, empty := range []bool{false, true} {
		for i := range maxDirs {
			opt.Dir = filepath.Join(base, fmt.Sprint(i))
			if segments, err := listSegments(opt.Dir); !empty && (err != nil || len(segments) == 0) {
				continue // Open tells the error
			}
			s, err := Open(opt)
			if err == nil {
				s.base = base
			}
			if !errors.Is(err, ErrLocked) {
				return s, err
			}
		}
	}
	return nil, fmt.Errorf("%s: %d processes have a spool here already: %w", base, maxDirs, ErrLocked)
}

// Open takes a directory, makes it if it is not there, and reads what an earlier process has left in it. The error
// wraps ErrLocked if another process uses it.
func Open(opt Options) (*Spool, error) {
	if opt.Now == nil {
		opt.Now = time.Now
	}
	if opt.Create == nil {
		opt.Create = createFile
	}
	if opt.adoptEvery == 0 {
		opt.adoptEvery = adoptEvery
	}
	if err := os.MkdirAll(opt.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	lock, err := takeLock(opt.Dir)
	if err != nil {
		return nil, err
	}
	s := &Spool{
		opt: opt, lock: lock, wake: make(chan struct{}, 1), moved: make(chan struct{}, 1), emptied: make(chan struct{}, 1),
		lanes: make([]lane, len(opt.Topics)*opt.Partitions),
	}
	if err := s.open(); err != nil {
		return nil, errors.Join(fmt.Errorf("spool %s: %w", opt.Dir, err), lock.Close())
	}
	return s, nil
}

func (s *Spool) open() error {
	who, err := readIdentity(s.opt.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		who = identity{Version: layoutVersion, ID: uuid.NewString(), Topics: s.opt.Topics, Partitions: s.opt.Partitions}
		err = writeIdentity(s.opt.Dir, who)
	}
	if err != nil {
		return err
	}
	s.id = who.ID
	if who.Partitions != s.opt.Partitions || fmt.Sprint(who.Topics) != fmt.Sprint(s.opt.Topics) {
		return fmt.Errorf("it holds records of %d partitions of %v, the configuration has %d of %v",
			who.Partitions, who.Topics, s.opt.Partitions, s.opt.Topics)
	}
	if err := s.recover(); err != nil {
		return err
	}
	s.metrics, err = newMetrics(s.opt.Metrics, s)
	return err
}

func readIdentity(dir string) (identity, error) {
	b, err := os.ReadFile(filepath.Join(dir, identityFile)) //nolint:gosec // the operator's own
	if err != nil {
		return identity{}, err
	}
	var who identity
	if err := json.Unmarshal(b, &who); err != nil {
		return identity{}, fmt.Errorf("%s: %w", identityFile, err)
	}
	if who.Version != layoutVersion {
		return identity{}, fmt.Errorf("%s: version %d, this binary knows %d", identityFile, who.Version, layoutVersion)
	}
	return who, nil
}

func writeIdentity(dir string, who identity) error {
	b, err := json.Marshal(who)
	if err != nil {
		return err
	}
	tmp := filepath.Join(dir, identityFile+".new")
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600) //nolint:gosec // the operator's own
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp, filepath.Join(dir, identityFile)); err != nil {
		return err
	}
	return syncDir(dir)
}

// ID names the directory wherever it stands.
func (s *Spool) ID() string { return s.id }

// Behind is how many records wait to be drained.
func (s *Spool) Behind() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.behind
}

// Close ends the use of the directory. Run must have returned. It may be called again.
func (s *Spool) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lock == nil {
		return nil
	}
	s.closed = true
	var err error
	if s.active != nil {
		err = s.active.Close()
		s.active = nil
	}
	for _, g := range s.segments {
		err = errors.Join(err, g.close())
	}
	err = errors.Join(err, s.lock.Close())
	s.lock = nil
	return err
}

// Run writes, drains and keeps the registration, and drains what others have left beside it, until ctx ends. What is queued then is refused. It returns nil.
func (s *Spool) Run(ctx context.Context) error {
	var parts sync.WaitGroup
	parts.Go(func() { s.write(ctx) })
	parts.Go(func() { s.drain(ctx) })
	parts.Go(func() { s.keep(ctx) })
	if s.base != "" {
		parts.Go(func() { s.adopt(ctx) })
	}
	parts.Wait()
	return nil
}

func (s *Spool) lane(topicIndex, partition int) int { return topicIndex*s.opt.Partitions + partition }

func (s *Spool) topicOf(lane int) (string, int) {
	return s.opt.Topics[lane/s.opt.Partitions], lane % s.opt.Partitions
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
