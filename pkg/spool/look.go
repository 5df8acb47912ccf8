package spool

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
)

// Content is what a spool's directory holds.
type Content struct {
	Dir      string
	ID       string
	InUse    bool // a process has it
	Bytes    int64
	Waiting  map[string]int // records that are not drained, by topic
	Torn     int64          // bytes at the ends of segments that do not read: most likely never acknowledged, or being written now
	Damaged  int            // segments in which something acknowledged does not read any more
	SetAside []string       // such segments whose rest is drained
}

// Look reads the directories below base that hold spools. It changes nothing, and may be called while others use them.
func Look(base string) ([]Content, error) {
	entries, err := os.ReadDir(base)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var all []Content
	for _, e := range entries {
		if _, err := strconv.Atoi(e.Name()); err != nil || !e.IsDir() {
			continue
		}
		c, err := look(filepath.Join(base, e.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue // being made, or drained a moment ago
		}
		if err != nil {
			return nil, err
		}
		all = append(all, c)
	}
	sort.Slice(all, func(i, j int) bool {
		return len(all[i].Dir) < len(all[j].Dir) || len(all[i].Dir) == len(all[j].Dir) && all[i].Dir < all[j].Dir
	})
	return all, nil
}

func look(dir string) (Content, error) {
	who, err := readIdentity(dir)
	if err != nil {
		return Content{}, err
	}
	c := Content{Dir: dir, ID: who.ID, Waiting: map[string]int{}}
	lock, err := takeLock(dir)
	switch {
	case errors.Is(err, ErrLocked):
		c.InUse = true
	case err != nil:
		return Content{}, err
	default: // given back at once, so that a collector which starts now finds it free
		if err := lock.Close(); err != nil {
			return Content{}, err
		}
	}
	done := readPosition(dir)
	segments, err := listSegments(dir)
	if err != nil {
		return Content{}, err
	}
	var buf []byte
	for _, g := range segments {
		if g.number < done.segment {
			continue
		}
		from := int64(0)
		if g.number == done.segment {
			from = min(done.offset, g.end)
		}
		c.Bytes += g.size
		torn, err := g.walk(from, &buf, func(_ int64, parts []byte) error {
			for len(parts) > 0 {
				p, rest, err := nextPart(parts)
				if err != nil {
					return err
				}
				if topic := p.lane / who.Partitions; topic < len(who.Topics) {
					c.Waiting[who.Topics[topic]] += p.count
				}
				parts = rest
			}
			return nil
		})
		if err = errors.Join(err, g.close()); err != nil {
			return Content{}, err
		}
		if c.Torn += torn; g.damaged {
			c.Damaged++
		}
	}
	if c.SetAside, err = setAside(dir); err != nil {
		return Content{}, err
	}
	return c, nil
}

// setAside is the damaged segments of a directory whose rest is drained.
func setAside(dir string) ([]string, error) {
	names, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var found []string
	for _, n := range names {
		if strings.HasSuffix(n.Name(), damagedSuffix) {
			found = append(found, filepath.Join(dir, n.Name()))
		}
	}
	return found, nil
}
