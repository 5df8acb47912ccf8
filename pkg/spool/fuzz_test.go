package spool

import (
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/zap"

	"github.com/weft-cdp/weft/pkg/stream"
)

// Whatever a machine that went down has left in a directory: it opens and counts what reads, or says what is wrong; what
// stood whole at its head is counted, and drained with what else reads.
func FuzzSegment(f *testing.F) {
	r := stream.Record{Key: []byte("k"), Value: []byte("v")}
	it := func(lane int) *item { return &item{lane: lane, count: 1, data: stream.AppendEncoded(nil, &r)} }
	group := appendGroup(nil, []*item{it(0), it(1)})
	f.Add(group, []byte{}, false)
	f.Add(append(append([]byte{}, group...), group[:len(group)-1]...), group, true)
	f.Add([]byte(groupMagic+"\xff\xff\xff\xff\x00\x00\x00\x00"), []byte("x"), true)
	f.Add(appendGroup(nil, []*item{it(2 * partitions)}), []byte{}, true)
	f.Fuzz(func(t *testing.T, segment, place []byte, whole bool) {
		dir, head := t.TempDir(), 0
		if whole {
			segment, head = append(append([]byte{}, group...), segment...), 2
		}
		who := identity{Version: layoutVersion, ID: "fuzzed", Topics: []string{"a", "b"}, Partitions: partitions}
		if err := writeIdentity(dir, who); err != nil {
			t.Fatal(err)
		}
		for name, b := range map[string][]byte{filepath.Base(segmentPath(dir, 1)): segment, positionFile: place} {
			if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		s, err := Open(Options{Dir: dir, MaxBytes: 1 << 20, Topics: []string{"a", "b"}, Partitions: partitions, Log: zap.NewNop()})
		if err != nil {
			return // a person must look
		}
		defer s.Close() //nolint:errcheck // it was only read
		if n := s.Behind(); n < head && readPosition(dir) == (position{}) {
			t.Fatalf("%d of %d records are counted", n, head)
		}
		p := pass{s: s, windows: make([]stream.Encoded, len(s.lanes)), left: map[int]bool{}, names: map[int]bool{}, limit: window}
		for _, g := range s.segments {
			_ = p.segment(t.Context(), g, 0, g.end) // an error holds the draining, and is told
		}
	})
}
