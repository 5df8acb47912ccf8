//go:build !nolibchdb

package embedded

import (
	"bytes"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

const (
	startListening = "SYSTEM START LISTEN TCP; SYSTEM START LISTEN HTTP"
	// confirmations is how often ClickHouse prints confirmation when startListening has succeeded.
	confirmations = 2
	confirmation  = "Ok."
	// prompt is what ClickHouse prints when it wants the next statement.
	prompt = ":) "
)

// terminal is the far end of the pseudo-terminal that ClickHouse sits at.
type terminal struct {
	master *os.File
	failed chan struct{} // closed when ClickHouse prompts without having opened its listeners
}

// openTerminal makes a new pseudo-terminal this process's standard input and output.
func openTerminal() (*terminal, error) {
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	fd := int(master.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		return nil, os.NewSyscallError("unlock terminal", err)
	}
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		return nil, os.NewSyscallError("name terminal", err)
	}
	near, err := os.OpenFile("/dev/pts/"+strconv.Itoa(number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	for _, std := range []int{unix.Stdin, unix.Stdout} {
		if err := unix.Dup2(int(near.Fd()), std); err != nil {
			return nil, os.NewSyscallError("dup2", err)
		}
	}
	t := &terminal{master: master, failed: make(chan struct{})}
	go t.watch()
	return t, nil
}

// watch reads all that is printed, as otherwise ClickHouse would block in the end, and finds out whether the listeners
// are open by the time of the first prompt.
func (t *terminal) watch() {
	var seen []byte
	prompted := false
	buffer := make([]byte, 4096)
	for {
		n, err := t.master.Read(buffer)
		if err != nil {
			return // closed with the process
		}
		if prompted {
			continue
		}
		seen = append(seen, buffer[:n]...)
		prompted = bytes.Contains(seen, []byte(prompt))
		if prompted && bytes.Count(seen, []byte(confirmation)) < confirmations {
			_, _ = os.Stderr.Write(seen) // says why; lost if the log is
			close(t.failed)
		}
	}
}

// exit asks ClickHouse to end, as a person at the prompt would.
func (t *terminal) exit() { _, _ = t.master.WriteString("exit\n") }
