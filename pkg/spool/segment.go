package spool

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// A segment is groups, one behind the other. A group is what one write and one fsync took: a header, and parts. It
// counts whole or not at all.
const (
	groupMagic  = "WSG1"
	groupHeader = 12 // magic, length of what follows, CRC-32C of that
	partHeader  = 10 // lane, records, bytes
	// maxGroupBytes bounds what is believed of a length that was read.
	maxGroupBytes = 4 * maxGroup
)

// castagnoli is the polynomial of the checksum, which processors compute by themselves.
var castagnoli = crc32.MakeTable(crc32.Castagnoli) //nolint:gochecknoglobals // a constant

// File is what a segment is written to.
type File interface {
	io.WriteCloser
	Sync() error
	Truncate(size int64) error
}

func createFile(path string) (File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600) //nolint:gosec // the operator's own
	if err != nil {
		return nil, err
	}
	return f, nil
}

// syncDir makes the names in a directory durable.
func syncDir(dir string) error {
	f, err := os.Open(dir) //nolint:gosec // the operator's own
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// takeLock makes this process the only one in a directory, until the file is closed or the process ends.
func takeLock(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_CREATE|os.O_RDWR, 0o600) //nolint:gosec // the operator's own
	if err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		if errors.Is(err, syscall.EWOULDBLOCK) {
			err = ErrLocked
		}
		return nil, errors.Join(fmt.Errorf("spool %s: %w", dir, err), f.Close())
	}
	return f, nil
}

// segment is one file of groups.
type segment struct {
	number  uint64
	path    string
	size    int64 // on the disk
	end     int64 // behind the last group that counts
	damaged bool  // something in it that was acknowledged does not read any more
	reader  *os.File
}

func segmentPath(dir string, number uint64) string {
	return filepath.Join(dir, fmt.Sprintf("%016d%s", number, segmentSuffix))
}

// listSegments finds the segments of a directory, the oldest first.
func listSegments(dir string) ([]*segment, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var list []*segment
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), segmentSuffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(name, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("%s is not the name of a segment", e.Name())
		}
		info, err := e.Info()
		if err != nil {
			return nil, err
		}
		list = append(list, &segment{number: n, path: segmentPath(dir, n), size: info.Size(), end: info.Size()})
	}
	slices.SortFunc(list, func(a, b *segment) int {
		if a.number < b.number {
			return -1
		}
		return 1
	})
	return list, nil
}

func (g *segment) open() error {
	if g.reader != nil {
		return nil
	}
	f, err := os.Open(g.path)
	if err != nil {
		return err
	}
	g.reader = f
	return nil
}

func (g *segment) close() error {
	if g.reader == nil {
		return nil
	}
	err := g.reader.Close()
	g.reader = nil
	return err
}

// group reads the group at offset into buf, which is used again. It returns its parts and where it ends. Where none
// is that counts, next is 0 and the error nil.
func (g *segment) group(offset, end int64, buf []byte) (parts []byte, next int64, err error) {
	if end-offset < groupHeader {
		return nil, 0, nil
	}
	if err := g.open(); err != nil {
		return nil, 0, err
	}
	var head [groupHeader]byte
	if _, err := g.reader.ReadAt(head[:], offset); err != nil {
		return nil, 0, err
	}
	n := int64(binary.BigEndian.Uint32(head[4:]))
	if string(head[:4]) != groupMagic || n > maxGroupBytes || n > end-offset-groupHeader {
		return nil, 0, nil
	}
	buf = slices.Grow(buf[:0], int(n))[:n]
	if _, err := g.reader.ReadAt(buf, offset+groupHeader); err != nil {
		return nil, 0, err
	}
	if crc32.Checksum(buf, castagnoli) != binary.BigEndian.Uint32(head[8:]) {
		return nil, 0, nil
	}
	return buf, offset + groupHeader + n, nil
}

// resume finds the next group that counts behind a place where none does; 0 if there is none.
func (g *segment) resume(offset, end int64) (int64, error) {
	if err := g.open(); err != nil {
		return 0, err
	}
	rest := make([]byte, end-offset) // at most a segment, and only when one is damaged
	if _, err := g.reader.ReadAt(rest, offset); err != nil {
		return 0, err
	}
	for at := 1; ; {
		i := bytes.Index(rest[min(at, len(rest)):], []byte(groupMagic))
		if i < 0 {
			return 0, nil
		}
		at += i
		_, next, err := g.group(offset+int64(at), end, nil)
		if next > 0 || err != nil {
			return offset + int64(at), err
		}
		at++
	}
}

// part is the records of one lane in a group.
type part struct {
	lane  int
	count int
	data  []byte
}

// nextPart takes the first part off.
func nextPart(parts []byte) (part, []byte, error) {
	if len(parts) < partHeader {
		return part{}, nil, errors.New("group ends within a part")
	}
	p := part{lane: int(binary.BigEndian.Uint16(parts)), count: int(binary.BigEndian.Uint32(parts[2:]))}
	n := int(binary.BigEndian.Uint32(parts[6:]))
	if n > len(parts)-partHeader {
		return part{}, nil, errors.New("group ends within a part")
	}
	p.data = parts[partHeader : partHeader+n]
	return p, parts[partHeader+n:], nil
}

// appendGroup writes items as one group.
func appendGroup(b []byte, items []*item) []byte {
	start := len(b)
	b = append(b, groupMagic...)
	b = append(b, make([]byte, groupHeader-len(groupMagic))...)
	for _, it := range items {
		b = binary.BigEndian.AppendUint16(b, uint16(it.lane))      //nolint:gosec // lanes are few
		b = binary.BigEndian.AppendUint32(b, uint32(it.count))     //nolint:gosec // at most maxItem
		b = binary.BigEndian.AppendUint32(b, uint32(len(it.data))) //nolint:gosec // a little above maxItem
		b = append(b, it.data...)
	}
	body := b[start+groupHeader:]
	binary.BigEndian.PutUint32(b[start+4:], uint32(len(body))) //nolint:gosec // below twice maxGroup
	binary.BigEndian.PutUint32(b[start+8:], crc32.Checksum(body, castagnoli))
	return b
}

// position's file: where everything before is in Kafka. It is not synced: what it misses is handed on twice.
const positionBytes = 20

func readPosition(dir string) position {
	b, err := os.ReadFile(filepath.Join(dir, positionFile)) //nolint:gosec // the operator's own
	if err != nil || len(b) != positionBytes || crc32.Checksum(b[:16], castagnoli) != binary.BigEndian.Uint32(b[16:]) {
		return position{}
	}
	return position{binary.BigEndian.Uint64(b), int64(binary.BigEndian.Uint64(b[8:]))} //nolint:gosec // as it was written
}

func writePosition(dir string, p position) error {
	b := binary.BigEndian.AppendUint64(nil, p.segment)
	b = binary.BigEndian.AppendUint64(b, uint64(p.offset)) //nolint:gosec // not negative
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
	return os.WriteFile(filepath.Join(dir, positionFile), b, 0o600)
}
