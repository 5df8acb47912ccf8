// Package suppression is lists of people who are left out: addresses that are never written to (activator), and
// identifiers whose events are not taken (collector). There are two kinds: files that an operator writes (List), and the
// register of people who were erased, in Redis (Register, Erased).
//
// It owns: the form of such a file and of the register, and reading them again when they have changed. In a file one entry per line, # begins a
// comment; an entry is an identifier as it stands in events (e-mail address, user id, phone number, ...), or
// sha256:HEX of one, so that the file need not hold what it is there to forget. Identifiers are compared without
// regard to letter case and to white space around them, and so hashed. It guarantees that a list, once read, stands
// until a newer one was read whole: a file that is being written, or is gone, changes nothing; and that
// who follows the register takes a change within Bound. It must not know what leaving out means.
package suppression

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"strings"
	"sync/atomic"
	"time"
)

// hashPrefix begins an entry that is a hash.
const hashPrefix = "sha256:"

// Entries is one reading of a list. It is never changed and safe for concurrent use; nil is empty.
type Entries struct {
	plain  map[string]struct{}
	hashed map[[sha256.Size]byte]struct{}
}

// Len is how many entries there are.
func (e *Entries) Len() int {
	if e == nil {
		return 0
	}
	return len(e.plain) + len(e.hashed)
}

// Has says whether an identifier is on the list.
func (e *Entries) Has(identifier string) bool {
	if e.Len() == 0 {
		return false
	}
	identifier = Fold(identifier)
	if identifier == "" {
		return false
	}
	if _, ok := e.plain[identifier]; ok {
		return true
	}
	if len(e.hashed) == 0 {
		return false
	}
	_, ok := e.hashed[sha256.Sum256([]byte(identifier))]
	return ok
}

// Fold is the form in which identifiers are compared: no mail server tells addresses apart by letter case, and
// people who write lists do not either.
func Fold(identifier string) string { return strings.ToLower(strings.TrimSpace(identifier)) }

// Parse reads a list. The error names the line.
func Parse(r io.Reader) (*Entries, error) {
	e := &Entries{plain: map[string]struct{}{}, hashed: map[[sha256.Size]byte]struct{}{}}
	sc := bufio.NewScanner(r)
	n := 0
	for sc.Scan() {
		n++
		line, _, _ := bytes.Cut(sc.Bytes(), []byte("#"))
		entry := Fold(strings.TrimPrefix(string(line), "\ufeff"))
		digits, hashed := strings.CutPrefix(entry, hashPrefix)
		switch {
		case entry == "":
		case !hashed:
			e.plain[entry] = struct{}{}
		default:
			sum, err := hex.DecodeString(digits)
			if err != nil || len(sum) != sha256.Size {
				return nil, fmt.Errorf("line %d: want sha256: and 64 hexadecimal digits", n)
			}
			e.hashed[[sha256.Size]byte(sum)] = struct{}{}
		}
	}
	if err := sc.Err(); err != nil {
		return nil, fmt.Errorf("line %d: %w", n+1, err)
	}
	return e, nil
}

// List is a file that is read again when it has changed. One goroutine calls Refresh; any may call Entries.
type List struct {
	path    string
	stamp   stamp
	entries atomic.Pointer[Entries]
}

// stamp tells whether a file has changed.
type stamp struct {
	modified time.Time
	size     int64
}

// Open reads a list for the first time; with an empty path it is empty for ever.
func Open(path string) (*List, error) {
	l := &List{path: path}
	_, err := l.Refresh()
	if err != nil {
		return nil, err
	}
	return l, nil
}

// Entries is the list as it was read last.
func (l *List) Entries() *Entries { return l.entries.Load() }

// Refresh reads the file if it has changed, and says whether it did. An error leaves the list as it was; the next
// call tries again.
func (l *List) Refresh() (changed bool, err error) {
	if l.path == "" {
		return false, nil
	}
	info, err := os.Stat(l.path)
	if err != nil {
		return false, fmt.Errorf("look at the suppression list: %w", err)
	}
	now := stamp{info.ModTime(), info.Size()}
	if now == l.stamp {
		return false, nil
	}
	f, err := os.Open(l.path)
	if err != nil {
		return false, fmt.Errorf("open the suppression list: %w", err)
	}
	defer func() { _ = f.Close() }() // read only
	entries, err := Parse(f)
	if err != nil {
		return false, fmt.Errorf("read the suppression list %s: %w", l.path, err)
	}
	l.stamp = now
	l.entries.Store(entries)
	return true, nil
}
