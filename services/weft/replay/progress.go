package replay

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// progressVersion is the version of the progress file that this binary writes.
const progressVersion = 1

// progress is the progress file: up to where everything was acknowledged or refused for good.
type progress struct {
	Version int    `json:"version"`
	To      string `json:"to"`
	Mapping string `json:"mapping"` // fingerprint; "" if there is none
	Rows    int64  `json:"rows"`    // events done
	Line    int64  `json:"line"`    // first line of the last one
	Offset  int64  `json:"offset"`  // bytes of the file, unpacked, up to its end
	Chain   string `json:"chain"`   // hash over all rows so far
}

// ErrOtherFile means that a progress file belongs to another file, or to one changed before the place it
// names.
var ErrOtherFile = errors.New("the file is not the one that the progress was made with")

// readProgress returns nil if there is no progress file.
func readProgress(path string) (*progress, error) {
	text, err := os.ReadFile(filepath.Clean(path))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read progress: %w", err)
	}
	var p progress
	if err := json.Unmarshal(text, &p); err != nil {
		return nil, fmt.Errorf("read progress %s: %w", path, err)
	}
	if p.Version != progressVersion {
		return nil, fmt.Errorf("read progress %s: version %d, this binary knows %d", path, p.Version, progressVersion)
	}
	return &p, nil
}

// write replaces the progress file: whoever reads it sees the old one or the new one, also after a crash.
func (p progress) write(path string) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("write progress: %w", err)
		}
	}()
	text, err := json.Marshal(p)
	if err != nil {
		return err
	}
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	_, err = f.Write(append(text, '\n'))
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	d, err := os.Open(filepath.Clean(dir))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// tracker finds up to which row everything is done, whatever the order in which rows are. It is for one
// goroutine at a time.
type tracker struct {
	first int64 // number of pending[0]
	rows  []pending
	last  pending // the last of those done without a gap
}

type pending struct {
	line, offset int64
	chain        [chainBytes]byte
	done         bool
}

// add takes the next row in.
func (t *tracker) add(r row) {
	t.rows = append(t.rows, pending{line: r.line, offset: r.offset, chain: r.chain})
}

// done marks rows by their numbers.
func (t *tracker) done(numbers ...int64) {
	for _, n := range numbers {
		t.rows[n-t.first].done = true
	}
	i := 0
	for i < len(t.rows) && t.rows[i].done {
		i++
	}
	if i > 0 {
		t.last = t.rows[i-1]
		t.rows = t.rows[i:]
		t.first += int64(i)
	}
}

// waiting is how many rows are not done, or behind one that is not.
func (t *tracker) waiting() int { return len(t.rows) }

func (t *tracker) progress(to string, format *Format) progress {
	p := progress{Version: progressVersion, To: to, Rows: t.first - 1, Line: t.last.line, Offset: t.last.offset,
		Chain: hex.EncodeToString(t.last.chain[:])}
	p.Mapping = fingerprint(format)
	return p
}

func fingerprint(format *Format) string {
	if format == nil {
		return ""
	}
	return hex.EncodeToString(format.fingerprint[:8])
}
