package embedded

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"
	"time"
)

// The commands of Child.
const (
	guardCommand      = "guard"
	clickHouseCommand = "clickhouse-server"
)

const (
	// stopGrace is how long a server may take to end by itself.
	stopGrace = 10 * time.Second
	// holdFD and lockFD are what spawn hands to a guard.
	holdFD = 3
	lockFD = 4
	// exitNotStarted is the exit status of a guard that could not start its command, as a shell has it.
	exitNotStarted = 127
)

// Child runs this process as one of the package's helpers if its arguments (without the program's name) say so, and
// returns its exit status. ok is false if they do not. Every binary that calls Start must hand its arguments to
// Child first, tests in TestMain.
//
//	guard -- CMD ARGS...       runs CMD until standard descriptor 3 is closed
//	clickhouse-server ...      runs ClickHouse from libchdb.so
func Child(args []string) (code int, ok bool) {
	if len(args) == 0 {
		return 0, false
	}
	switch args[0] {
	case guardCommand:
		args = args[1:]
		if len(args) > 0 && args[0] == "--" {
			args = args[1:]
		}
		return runGuard(args), true
	case clickHouseCommand:
		return runClickHouse(args[1:]), true
	}
	return 0, false
}

// runGuard runs a command and ends it when descriptor 3, a pipe that the starter holds the other end of, is closed:
// on purpose, or by the kernel when the starter is killed. The kernel kills the command when the guard is killed.
func runGuard(argv []string) int {
	if len(argv) == 0 {
		fmt.Fprintln(os.Stderr, "guard: want a command; see 'weft help guard'")
		return exitNotStarted
	}
	var pipe syscall.Stat_t
	if err := syscall.Fstat(holdFD, &pipe); err != nil || pipe.Mode&syscall.S_IFMT != syscall.S_IFIFO {
		fmt.Fprintln(os.Stderr, "guard: descriptor 3 is no pipe to watch")
		return exitNotStarted
	}
	// The command must not inherit them.
	syscall.CloseOnExec(holdFD)
	syscall.CloseOnExec(lockFD)
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)

	// The parent-death signal comes when the thread ends that started the command, so this one stays.
	runtime.LockOSThread()
	cmd := exec.Command(argv[0], argv[1:]...) //nolint:gosec // what a guard is for
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = dieWithParent()
	if err := cmd.Start(); err != nil {
		fmt.Fprintln(os.Stderr, "guard:", err)
		return exitNotStarted
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	released := make(chan struct{})
	go func() {
		defer close(released)
		_, _ = io.Copy(io.Discard, os.NewFile(holdFD, "hold"))
	}()
	select {
	case err := <-done:
		return exitCode(err)
	case <-released:
	case <-stop:
	}
	_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended just now
	select {
	case err := <-done:
		return exitCode(err)
	case <-time.After(stopGrace):
	}
	_ = cmd.Process.Kill()
	return exitCode(<-done)
}

func exitCode(err error) int {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit) && exit.Exited():
		return exit.ExitCode()
	default:
		return 1
	}
}
