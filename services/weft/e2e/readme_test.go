//go:build integration

package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const (
	// promised is how soon an event is in ClickHouse, by the README.
	promised = 5 * time.Second
	// attempts at keeping it: other programs may have the machine for a while.
	attempts = 10
	// upLimit bounds building and starting everything.
	upLimit = 4 * time.Minute
	// shellLimit bounds one of the README's other commands.
	shellLimit = 2 * time.Minute
)

// readme is a newcomer's terminal: a checkout of its own, and the commands of README.md, by their marks.
type readme struct {
	t        *testing.T
	dir      string // the checkout
	environ  []string
	snippets map[string]string
	address  string // what replaces the addresses in the README
	up       *terminal
}

// terminal is a shell that runs in the background.
type terminal struct {
	cmd   *exec.Cmd
	ended chan struct{}
	mu    sync.Mutex
	text  bytes.Buffer
}

func (s *terminal) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

func (s *terminal) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// TestFirstUses runs the README's first uses as they stand there, in a copy of the repository, on embedded parts.
func TestFirstUses(t *testing.T) {
	r := openREADME(t)
	r.start()
	t.Run("a line into Kafka, a row in ClickHouse", func(t *testing.T) {
		row := r.within(t, "inbox", "inbox-query", "SELECT count() FROM weft.events WHERE product_id = 'tea-204'")
		require.Contains(t, row, "Product Viewed\ttea-204\t12.9\tEUR")
		person := last(row)
		row = r.within(t, "till", "till-query", "SELECT count() FROM weft.events WHERE order_id = 'r-1001'")
		require.Contains(t, row, "r-1001\t38.7\tEUR")
		require.Equal(t, person, last(row), "the till's customer is the same person")
		require.Equal(t, "Darjeeling", strings.TrimSpace(r.ask(t, "SELECT any(JSONExtractString(properties, 'products', 1, 'name')) FROM weft.events WHERE order_id = 'r-1001'")))
	})
	t.Run("three questions of an analyst", r.analyst)
	t.Run("a marketer changes the journey", r.marketer)
	r.stop()
}

// last is the last column of the first line.
func last(text string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	fields := strings.Split(line, "\t")
	return fields[len(fields)-1]
}

var snippet = regexp.MustCompile("(?s)<!-- test:([a-z-]+) -->\n```sh\n(.*?)\n```")

// openREADME copies the repository and reads the commands.
func openREADME(t *testing.T) *readme {
	t.Helper()
	r := &readme{t: t, dir: filepath.Join(t.TempDir(), "weft"), snippets: map[string]string{}}
	list := exec.CommandContext(t.Context(), "git", "ls-files", "--cached", "--others", "--exclude-standard", "-z")
	list.Dir = root
	names, err := list.Output()
	require.NoError(t, err, "list the files of the repository")
	for _, name := range strings.Split(strings.TrimRight(string(names), "\x00"), "\x00") {
		copyFile(t, filepath.Join(root, name), filepath.Join(r.dir, name))
	}
	text, err := os.ReadFile(filepath.Join(r.dir, "README.md"))
	require.NoError(t, err)
	for _, m := range snippet.FindAllStringSubmatch(string(text), -1) {
		r.snippets[m[1]] = m[2]
	}
	bin := filepath.Join(t.TempDir(), "bin")
	require.NoError(t, os.MkdirAll(bin, 0o700))
	r.consoleProducer(filepath.Join(bin, "kafka-console-producer.sh"))
	// Nobody's ports are taken, and nothing of our own Weft comes in; all else is as the README has it.
	clean := slices.DeleteFunc(os.Environ(), func(entry string) bool { return strings.HasPrefix(entry, "WEFT_") })
	r.environ = append(clean, "PATH="+bin+":"+os.Getenv("PATH"),
		"WEFT_COLLECTOR_LISTEN="+freeAddress(t), "WEFT_BUILDER_LISTEN="+freeAddress(t), "WEFT_ADMIN_LISTEN="+freeAddress(t))
	return r
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	info, err := os.Stat(from)
	if errors.Is(err, fs.ErrNotExist) {
		return // deleted, and not committed yet
	}
	require.NoError(t, err)
	text, err := os.ReadFile(from)
	require.NoError(t, err)
	require.NoError(t, os.MkdirAll(filepath.Dir(to), 0o700))
	require.NoError(t, os.WriteFile(to, text, info.Mode().Perm()))
}

// consoleProducer puts Kafka's own console producer under the name that it has in Kafka's distribution: from the jars
// of scripts/fetch-kafka, or from the image where there is no Java.
func (r *readme) consoleProducer(path string) {
	r.t.Helper()
	script := "#!/bin/sh\n"
	if fetched, err := exec.CommandContext(r.t.Context(), filepath.Join(root, "scripts/fetch-kafka")).CombinedOutput(); err == nil {
		cache, err := os.UserCacheDir()
		require.NoError(r.t, err)
		jars, err := filepath.Glob(filepath.Join(cache, "weft/kafka/*/lib/kafka-tools-*.jar"))
		require.NoError(r.t, err)
		require.NotEmpty(r.t, jars)
		script += fmt.Sprintf("exec java -Dorg.slf4j.simpleLogger.defaultLogLevel=warn -cp '%s/*' org.apache.kafka.tools.ConsoleProducer \"$@\"\n", filepath.Dir(jars[len(jars)-1]))
	} else {
		r.t.Logf("no Kafka from Maven (%s): the console producer of the image", bytes.TrimSpace(fetched))
		compose, err := os.ReadFile(filepath.Join(root, "docker-compose.yml"))
		require.NoError(r.t, err)
		image := regexp.MustCompile(`apache/kafka:[0-9.]+`).FindString(string(compose))
		script += "exec docker run --rm -i --network host " + image + " /opt/kafka/bin/kafka-console-producer.sh \"$@\"\n"
	}
	require.NoError(r.t, os.WriteFile(path, []byte(script), 0o700)) //nolint:gosec // it is to be run
}

// shell prepares a command of the README; after the first it knows the addresses.
func (r *readme) shell(ctx context.Context, name string) *exec.Cmd {
	text, ok := r.snippets[name]
	require.True(r.t, ok, "README.md has no commands marked test:%s", name)
	cmd := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", r.address+text)
	cmd.Dir, cmd.Env = r.dir, r.environ
	return cmd
}

// run runs commands to their end and returns what they print.
func (r *readme) run(t *testing.T, name string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), shellLimit)
	defer cancel()
	cmd := r.shell(ctx, name)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	require.NoError(t, cmd.Run(), "%s:\n%s%s", r.snippets[name], stdout.String(), stderr.String())
	return stdout.String()
}

// start runs the first terminal and reads the addresses that it prints.
func (r *readme) start() {
	r.t.Helper()
	s := &terminal{ended: make(chan struct{})}
	s.cmd = r.shell(context.Background(), "up")
	s.cmd.Stdout, s.cmd.Stderr = s, s
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	begun := time.Now()
	require.NoError(r.t, s.cmd.Start())
	go func() {
		_ = s.cmd.Wait() // by Ctrl-C
		close(s.ended)
	}()
	r.up = s
	r.t.Cleanup(r.end)
	eventually(r.t, upLimit, "weft up prints its addresses", func() error {
		select {
		case <-s.ended:
			r.t.Fatal("weft up has ended")
		default:
		}
		if !strings.Contains(s.String(), "Ctrl-C stops it.") {
			return errors.New("not yet")
		}
		return nil
	})
	r.t.Logf("up after %s", time.Since(begun).Round(time.Second))
	found := func(pattern string) string {
		m := regexp.MustCompile(pattern).FindStringSubmatch(s.String())
		require.NotNil(r.t, m, "%s in what weft up prints", pattern)
		return m[1]
	}
	given := r.snippets["addresses"]
	for name, value := range map[string]string{
		"KAFKA": found(`Kafka +(\S+)`), "CLICKHOUSE": found(`(http://\S+) \(HTTP`), "DOOR": found(`(http://\S+)/v1/track`),
	} {
		require.Regexp(r.t, "(?m)^"+name+"=", given)
		r.address += name + "=" + value + "\n"
	}
}

// end is for a test that has failed: it shows what was said, and leaves nothing running.
func (r *readme) end() {
	if r.t.Failed() {
		text := r.up.String()
		r.t.Logf("weft up said:\n%s", text[max(0, len(text)-shownLog):])
	}
	select {
	case <-r.up.ended:
	default:
		_ = syscall.Kill(-r.up.cmd.Process.Pid, syscall.SIGKILL) // it may just have gone
		<-r.up.ended
	}
}

// stop is Ctrl-C: it reaches every process of the terminal. All are gone soon after, and nothing else is left.
func (r *readme) stop() {
	r.t.Helper()
	require.NoError(r.t, syscall.Kill(-r.up.cmd.Process.Pid, syscall.SIGINT))
	select {
	case <-r.up.ended:
	case <-time.After(stopLimit):
		r.t.Fatalf("still running %s after Ctrl-C", stopLimit)
	}
	eventually(r.t, stopLimit, "nothing is left running", func() error {
		left, err := filepath.Glob("/proc/[0-9]*/cmdline")
		require.NoError(r.t, err)
		for _, path := range left {
			text, err := os.ReadFile(path)
			if err == nil && bytes.Contains(text, []byte(r.dir)) {
				return fmt.Errorf("%s: %q", path, text)
			}
		}
		return nil
	})
}

// ask asks ClickHouse as its owner, past the README.
func (r *readme) ask(t *testing.T, sql string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "bash", "-euc", r.address+`curl -sS --fail-with-body "$CLICKHOUSE/" --data-binary "$1"`, "ask", sql).CombinedOutput()
	require.NoError(t, err, "%s: %s", sql, out)
	return string(out)
}

// within sends by one command and asks by another until the answer is there: in no more than the time promised, in one
// of a few attempts. It returns the answer.
func (r *readme) within(t *testing.T, send, query, count string) string {
	t.Helper()
	for n := 1; ; n++ {
		before := strings.TrimSpace(r.ask(t, count))
		r.run(t, send)
		sent := time.Now()
		answer := ""
		eventually(t, shellLimit, "the answer of "+query, func() error {
			if strings.TrimSpace(r.ask(t, count)) == before {
				return errors.New("no row yet")
			}
			if answer = r.run(t, query); answer == "" {
				return errors.New("no answer yet")
			}
			return nil
		})
		took := time.Since(sent).Round(time.Millisecond)
		t.Logf("%s: queryable after %s (promised: %s)", send, took, promised)
		if took <= promised {
			return answer
		}
		require.Less(t, n, attempts, "took longer than promised every time")
	}
}

// analyst asks the three questions, and tries what an analyst must not.
func (r *readme) analyst(t *testing.T) {
	answer := r.run(t, "analyst")
	t.Logf("the analyst reads:\n%s", answer)
	require.NotContains(t, answer, "Exception")
	require.Contains(t, answer, "main\t", "the funnel")
	require.Contains(t, answer, "Product Viewed", "the timeline")
	require.Contains(t, answer, "Order Completed", "the timeline")
	for _, sql := range []string{
		"SELECT count() FROM weft.events", "SELECT traits FROM weft.profiles", "INSERT INTO weft.events (brand) VALUES ('x')",
		"DROP VIEW weft.people", "SELECT * FROM url('http://127.0.0.1:1/', 'CSV')", "CREATE TABLE weft.mine (a Int8) ENGINE = Memory",
	} {
		out, err := exec.CommandContext(t.Context(), "bash", "-euc", r.address+`curl -sS "$CLICKHOUSE/?user=analyst" --data-binary "$1"`, "ask", sql).Output()
		require.NoError(t, err)
		require.Regexp(t, `ACCESS_DENIED|READONLY|\(readonly`, string(out), sql)
	}
}

// marketer edits the journey while it runs.
func (r *readme) marketer(t *testing.T) {
	said := r.run(t, "journey")
	m := regexp.MustCompile(`version ([0-9a-f]{12})`).FindStringSubmatch(said)
	require.NotNil(t, m, said)
	require.Contains(t, said, "your tea is waiting", "the preview")
	eventually(t, shellLimit, "the running service takes the new version", func() error {
		for _, line := range strings.Split(r.up.String(), "\n") {
			if strings.Contains(line, "journey loaded") && strings.Contains(line, m[1]) {
				return nil
			}
		}
		return errors.New("not loaded")
	})
	r.run(t, "cart")
	left := time.Now()
	answer := ""
	eventually(t, shellLimit, "the cart has its receipt", func() error {
		if answer = r.run(t, "cart-query"); answer == "" {
			return errors.New("none yet")
		}
		return nil
	})
	t.Logf("receipt %s after the cart was left: %s", time.Since(left).Round(time.Second), strings.TrimSpace(answer))
	require.Equal(t, "abandoned-cart\t"+m[1]+"\tsuppressed\tchannel_off\t25.8\tEUR\n", answer)
}

var _ io.Writer = (*terminal)(nil)
