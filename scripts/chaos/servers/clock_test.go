package servers

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// askTime makes this binary a child that tells its time for each line it reads.
const askTime = "WEFT_CHAOS_ASK_TIME"

func TestMain(m *testing.M) {
	if os.Getenv(askTime) == "" {
		os.Exit(m.Run())
	}
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		begun := time.Now()
		time.Sleep(time.Millisecond)
		fmt.Println(time.Now().Unix(), time.Since(begun) > 0)
	}
}

// A child's clock steps while it runs, there and back, and its monotonic one goes on.
func TestClockOfOneProcessIsStepped(t *testing.T) {
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), askTime+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	var c Clock
	require.NoError(t, c.launch(cmd))
	require.NoError(t, c.Impossible(), "this machine does not let a test step the clock of its own child")
	answers := bufio.NewReader(out)
	for _, off := range []time.Duration{0, time.Hour, -2 * time.Second, -48 * time.Hour, 0} {
		require.NoError(t, c.Set(cmd.Process.Pid, off))
		before := time.Now().Unix()
		_, err := in.Write([]byte("\n"))
		require.NoError(t, err)
		line, err := answers.ReadString('\n')
		require.NoError(t, err)
		var told int64
		var forward bool
		_, err = fmt.Sscan(strings.TrimSpace(line), &told, &forward)
		require.NoError(t, err)
		require.True(t, forward)
		told -= int64(off / time.Second)
		require.GreaterOrEqual(t, told, before)
		require.LessOrEqual(t, told, time.Now().Unix())
	}
	require.NoError(t, in.Close())
	require.NoError(t, cmd.Wait())
	require.NoError(t, c.Set(cmd.Process.Pid, time.Hour), "it has ended")
}
