package servers

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

const (
	// redisDisk and clickHouseDisk are the sizes of the small disks, in bytes: more than a run needs, and little
	// enough to be held in memory.
	redisDisk      = 512 << 20
	clickHouseDisk = 1 << 30
	// ballast is the file that fills a disk.
	ballast = "ballast"
	// fillChunk is how much is written at once.
	fillChunk = 1 << 20
)

// Disk is a small file system of a server's own, in memory, that can be filled. Where none may be mounted it is an
// ordinary directory, and Small is false.
type Disk struct {
	Dir   string // for the server
	Small bool
	root  string
}

// disk mounts one for name, unless it is there from a run that was killed.
func (d *Deployment) disk(name string, size int) (*Disk, error) {
	root := filepath.Join(d.Dir, "data", name)
	k := &Disk{root: root, Dir: filepath.Join(root, "data")}
	if err := os.MkdirAll(root, 0o700); err != nil {
		return nil, fmt.Errorf("disk of %s: %w", name, err)
	}
	mounted, err := isMounted(root)
	if err != nil {
		return nil, err
	}
	k.Small = mounted
	if !mounted {
		k.Small = syscall.Mount("tmpfs", root, "tmpfs", 0, fmt.Sprintf("size=%d,mode=0700", size)) == nil
	}
	if err := os.MkdirAll(k.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("disk of %s: %w", name, err)
	}
	d.disks = append(d.disks, k)
	return k, k.Free()
}

// Fill leaves no byte free.
func (k *Disk) Fill() error {
	f, err := os.OpenFile(filepath.Join(k.root, ballast), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("fill the disk %s: %w", k.root, err)
	}
	chunk := make([]byte, fillChunk)
	for len(chunk) > 0 {
		switch _, err := f.Write(chunk); {
		case errors.Is(err, syscall.ENOSPC):
			chunk = chunk[:len(chunk)/2]
		case err != nil:
			return errors.Join(fmt.Errorf("fill the disk %s: %w", k.root, err), f.Close())
		}
	}
	return f.Close()
}

// Free removes the ballast.
func (k *Disk) Free() error {
	if err := os.Remove(filepath.Join(k.root, ballast)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("free the disk %s: %w", k.root, err)
	}
	return nil
}

// unmount gives the disk and all that is on it back.
func (k *Disk) unmount() error {
	if !k.Small {
		return nil
	}
	if err := syscall.Unmount(k.root, syscall.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount %s: %w", k.root, err)
	}
	k.Small = false
	return nil
}

// isMounted says whether a file system is mounted at dir.
func isMounted(dir string) (bool, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return false, fmt.Errorf("read the mounts: %w", err)
	}
	defer f.Close() //nolint:errcheck // read only
	r := bufio.NewReader(f)
	for {
		line, err := r.ReadString('\n')
		if fields := strings.Fields(line); len(fields) > 4 && fields[4] == dir {
			return true, nil
		}
		if errors.Is(err, io.EOF) {
			return false, nil
		}
		if err != nil {
			return false, fmt.Errorf("read the mounts: %w", err)
		}
	}
}
