package activator

import (
	"bufio"
	"fmt"
	"os"
	"strings"
)

// readList reads the suppression list if it has changed: one address per line, # begins a comment. The
// list is nil if it stands as it was read last.
func (b *rulebook) readList() (map[string]bool, stamp, error) {
	if b.suppressionFile == "" {
		return nil, stamp{}, nil
	}
	info, err := os.Stat(b.suppressionFile)
	if err != nil {
		return nil, stamp{}, fmt.Errorf("activator.suppression_file: %w", err)
	}
	at := stamp{info.ModTime(), info.Size()}
	if at == b.listStamp {
		return nil, at, nil
	}
	f, err := os.Open(b.suppressionFile)
	if err != nil {
		return nil, stamp{}, fmt.Errorf("activator.suppression_file: %w", err)
	}
	defer func() { _ = f.Close() }() // read only
	list := map[string]bool{}
	sc := bufio.NewScanner(f)
	for sc.Scan() {
		line, _, _ := strings.Cut(sc.Text(), "#")
		if a := foldAddress(strings.TrimPrefix(line, "\ufeff")); a != "" {
			list[a] = true
		}
	}
	if err := sc.Err(); err != nil {
		return nil, stamp{}, fmt.Errorf("activator.suppression_file: %w", err)
	}
	return list, at, nil
}

// foldAddress is the form in which addresses are compared: no server tells them apart by letter case.
func foldAddress(a string) string { return strings.ToLower(strings.TrimSpace(a)) }
