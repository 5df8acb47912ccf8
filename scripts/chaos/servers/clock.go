package servers

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Clock is the wall clock that one service reads. A Go program asks the kernel's vDSO, a page of code that every process
// has its own copy of; the copy is replaced, before the program's first instruction, by code that adds a number of
// seconds. So the clock of one process can be stepped while it runs, and that of the machine stays. Safe for
// concurrent use.
type Clock struct {
	mu   sync.Mutex
	pid  int
	at   int64 // where the number of seconds stands
	fail error // why this machine does not allow it
}

// clockCode is __vdso_clock_gettime for amd64: the system call, and for CLOCK_REALTIME the number of seconds behind the
// code added to the answer. It changes only registers that a called function may.
//
//	b8 e4 00 00 00        mov  eax, 228        SYS_clock_gettime
//	0f 05                 syscall
//	85 ff                 test edi, edi        CLOCK_REALTIME is 0
//	75 0a                 jne  end
//	48 8b 0d 06 00 00 00  mov  rcx, [rip+6]    the number below
//	48 01 0e              add  [rsi], rcx      tv_sec
//	c3                    end: ret
var clockCode = [...]byte{
	0xb8, 0xe4, 0, 0, 0, 0x0f, 0x05, 0x85, 0xff, 0x75, 0x0a, 0x48, 0x8b, 0x0d, 6, 0, 0, 0, 0x48, 0x01, 0x0e, 0xc3, 0x90, 0x90,
	0, 0, 0, 0, 0, 0, 0, 0,
}

// clockNumber is where in clockCode the number of seconds stands.
const clockNumber = 24

// launch starts a command with a clock that can be stepped, or, where the machine does not allow it, as it is.
func (c *Clock) launch(cmd *exec.Cmd) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pid = 0
	if runtime.GOARCH != "amd64" {
		c.fail = errors.New("the code is for amd64")
		return cmd.Start()
	}
	// The thread that starts a traced child is its tracer.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd.SysProcAttr.Ptrace = true
	if err := cmd.Start(); err != nil {
		return err
	}
	pid := cmd.Process.Pid
	var status syscall.WaitStatus
	if _, err := syscall.Wait4(pid, &status, 0, nil); err != nil {
		return errors.Join(fmt.Errorf("await the start: %w", err), cmd.Process.Kill())
	}
	at, err := replaceClock(pid)
	if c.fail = err; err == nil {
		c.pid, c.at = pid, at
	}
	if err := syscall.PtraceDetach(pid); err != nil {
		return errors.Join(fmt.Errorf("let it go: %w", err), cmd.Process.Kill())
	}
	return nil
}

// replaceClock writes clockCode over the function of a stopped process, and returns where the number stands.
func replaceClock(pid int) (int64, error) {
	base, size, err := findVDSO(pid)
	if err != nil {
		return 0, err
	}
	mem, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", pid), os.O_RDWR, 0)
	if err != nil {
		return 0, fmt.Errorf("open the memory: %w", err)
	}
	defer mem.Close() //nolint:errcheck // written without a buffer
	image := make([]byte, size)
	if _, err := mem.ReadAt(image, base); err != nil {
		return 0, fmt.Errorf("read the vDSO: %w", err)
	}
	file, err := elf.NewFile(bytes.NewReader(image))
	if err != nil {
		return 0, fmt.Errorf("read the vDSO: %w", err)
	}
	symbols, err := file.DynamicSymbols()
	if err != nil {
		return 0, fmt.Errorf("read the vDSO: %w", err)
	}
	for _, s := range symbols {
		if s.Name != "__vdso_clock_gettime" {
			continue
		}
		if s.Size < uint64(len(clockCode)) {
			return 0, fmt.Errorf("the vDSO's function has %d bytes", s.Size)
		}
		at := base + int64(s.Value) //nolint:gosec // an offset in a few pages
		if _, err := mem.WriteAt(clockCode[:], at); err != nil {
			return 0, fmt.Errorf("write the vDSO: %w", err)
		}
		return at + clockNumber, nil
	}
	return 0, errors.New("the vDSO has no __vdso_clock_gettime")
}

// findVDSO is where a process has it.
func findVDSO(pid int) (base, size int64, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return 0, 0, fmt.Errorf("read the memory map: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		if !strings.HasSuffix(strings.TrimSpace(line), "[vdso]") {
			continue
		}
		var end int64
		if _, err := fmt.Sscanf(line, "%x-%x", &base, &end); err != nil {
			return 0, 0, fmt.Errorf("read the memory map: %w", err)
		}
		return base, end - base, nil
	}
	return 0, 0, errors.New("there is no vDSO")
}

// Impossible says why the clock cannot be stepped on this machine; nil: it can.
func (c *Clock) Impossible() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.fail
}

// Set makes the clock of a process be off by whole seconds. Nothing happens to one that has ended meanwhile.
func (c *Clock) Set(pid int, off time.Duration) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fail != nil {
		return c.fail
	}
	if pid == 0 || pid != c.pid {
		return nil
	}
	mem, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", pid), os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("step the clock of %d: %w", pid, err)
	}
	defer mem.Close() //nolint:errcheck // written without a buffer
	var number [8]byte
	binary.LittleEndian.PutUint64(number[:], uint64(off/time.Second)) //nolint:gosec // two's complement is meant
	if _, err := mem.WriteAt(number[:], c.at); err != nil && !errors.Is(err, syscall.ESRCH) && !errors.Is(err, syscall.EIO) {
		return fmt.Errorf("step the clock of %d: %w", pid, err)
	}
	return nil
}
