//go:build !nolibchdb

package embedded

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"github.com/ebitengine/purego"
)

const (
	// queryGrace is how long running queries may still take after the signal to stop, before their connections are closed.
	// It is well within a guard's stopGrace.
	queryGrace = 2 * time.Second
	// hangUpPause is the time between closing what is open then, because clients come back.
	hangUpPause = 500 * time.Millisecond
)

// runClickHouse serves ClickHouse's native and HTTP protocols from libchdb.so until SIGTERM or SIGINT.
//
// The library offers clickhouse-local with a server's listeners. It runs as the interactive program on a pseudo-terminal
// of its own, and is fed statements there: when not interactive, one wrong password over the native protocol ends it.
func runClickHouse(args []string) int {
	flags := flag.NewFlagSet(clickHouseCommand, flag.ContinueOnError)
	library := flags.String("library", "", "path of libchdb.so")
	dir := flags.String("data", "", "directory of configuration and data")
	tcp := flags.Int("tcp", 0, "port of the native protocol")
	httpPort := flags.Int("http", 0, "port of the HTTP interface")
	if err := flags.Parse(args); err != nil {
		return exitNotStarted
	}
	if *library == "" || *dir == "" || *tcp == 0 || *httpPort == 0 || flags.NArg() > 0 {
		fmt.Fprintln(os.Stderr, "clickhouse-server: want --library PATH --data DIR --tcp PORT --http PORT")
		return exitNotStarted
	}
	if err := serveClickHouse(*library, *dir, *tcp, *httpPort); err != nil {
		fmt.Fprintln(os.Stderr, "clickhouse-server:", err)
		return 1
	}
	return 0
}

func serveClickHouse(library, dir string, tcp, httpPort int) error {
	configPath, data, err := prepareClickHouse(dir)
	if err != nil {
		return fmt.Errorf("prepare %s: %w", dir, err)
	}
	e, err := loadEngine(library)
	if err != nil {
		return err
	}
	term, err := openTerminal()
	if err != nil {
		return fmt.Errorf("open a terminal: %w", err)
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	signal.Ignore(syscall.SIGPIPE) // a client that has gone is an error to ClickHouse, not its end
	var stopping atomic.Bool
	go func() {
		select {
		case <-signals:
			stopping.Store(true)
		case <-term.failed:
		}
		term.exit()
		time.Sleep(queryGrace)
		for { // until the process ends
			hangUp()
			time.Sleep(hangUpPause)
		}
	}()
	err = e.run(
		"clickhouse", "--config-file", configPath, "--path", data,
		"--listen_host", "127.0.0.1", "--tcp_port", strconv.Itoa(tcp), "--http_port", strconv.Itoa(httpPort),
		"--log-level", "warning", "--interactive", "--disable_suggestion", "--history_file", "/dev/null",
		"--query", startListening,
	)
	if err == nil && !stopping.Load() {
		err = errors.New("ClickHouse ended by itself")
	}
	return err
}

// engine is libchdb.so in this process.
type engine struct {
	query       func(int32, unsafe.Pointer) uintptr
	resultError func(uintptr) string
}

// loadEngine loads the library and leaves the signals to this program, but for faults: one on a thread of ClickHouse's
// must end the process, where Go's handlers would hang.
func loadEngine(library string) (*engine, error) {
	handle, err := purego.Dlopen(library, purego.RTLD_NOW|purego.RTLD_GLOBAL)
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", library, err)
	}
	var e engine
	var setSignalHandlers func(int32)
	var onSignal func(signal int32, action uintptr) uintptr
	for name, fn := range map[string]any{
		"chdb_set_signal_handlers_enabled": &setSignalHandlers,
		"chdb_query_cmdline":               &e.query,
		"chdb_result_error":                &e.resultError,
	} {
		symbol, err := purego.Dlsym(handle, name)
		if err != nil {
			return nil, fmt.Errorf("load %s: %w", library, err)
		}
		purego.RegisterFunc(fn, symbol)
	}
	purego.RegisterLibFunc(&onSignal, purego.RTLD_DEFAULT, "signal")
	setSignalHandlers(0)
	const defaultAction = 0 // SIG_DFL
	for _, s := range []syscall.Signal{syscall.SIGSEGV, syscall.SIGBUS, syscall.SIGFPE, syscall.SIGILL, syscall.SIGABRT, syscall.SIGTRAP} {
		onSignal(int32(s), defaultAction) //nolint:gosec // signals are below 65
	}
	return &e, nil
}

// run hands a command line to ClickHouse and returns when it has ended.
func (e *engine) run(args ...string) error {
	runtime.LockOSThread() // ClickHouse keeps state per thread
	argv := make([]unsafe.Pointer, 0, len(args)+1)
	texts := make([][]byte, 0, len(args))
	for _, arg := range args {
		text := append([]byte(arg), 0)
		texts = append(texts, text)
		argv = append(argv, unsafe.Pointer(&text[0])) //nolint:gosec // C strings, kept alive below
	}
	argv = append(argv, nil)
	result := e.query(int32(len(args)), unsafe.Pointer(&argv[0])) //nolint:gosec // a dozen arguments
	runtime.KeepAlive(texts)
	if result == 0 {
		return nil
	}
	if text := e.resultError(result); text != "" {
		return errors.New(text)
	}
	return nil
}

// hangUp ends every client's connection, so that ClickHouse does not wait for idle ones.
func hangUp() {
	dir, err := os.Open("/proc/self/fd")
	if err != nil {
		return
	}
	defer dir.Close() //nolint:errcheck // read only
	names, err := dir.Readdirnames(-1)
	if err != nil && !errors.Is(err, io.EOF) {
		return
	}
	for _, name := range names {
		fd, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		listens, err := syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_ACCEPTCONN)
		if err == nil && listens == 0 {
			_ = syscall.Shutdown(fd, syscall.SHUT_RDWR) // fails without harm where nothing is connected
		}
	}
}
