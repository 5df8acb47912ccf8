package docs

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
	"go.uber.org/zap"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/services/collector"
)

// patience is how long a snippet may take on a slow machine.
const patience = 2 * time.Minute

// doorInSnippets is where the pages say that the collector is.
const doorInSnippets = "http://127.0.0.1:8080"

// snippet is a fenced block. Behind its language may stand what it is for:
//
//	file=PATH   it is written to that file, for the snippets behind it; a YAML file in sources/ must load as a source
//	replay=FILES what it makes an SDK send is in these files (parted by commas), and is sent to the door with the snippet's write key
//	output      it is what the shell block in front of it prints; "..." stands for anything
//
// Blocks of sh are run, others of yaml are loaded as a whole configuration.
type snippet struct {
	lang, file, replay string
	output             bool
	text               string
	line               int
}

func snippets(t *testing.T, text string) []snippet {
	var list []snippet
	in := false
	for i, line := range strings.Split(text, "\n") {
		info, fence := strings.CutPrefix(line, "```")
		switch {
		case fence && in:
			in = false
		case fence:
			in = true
			words := strings.Fields(info)
			require.NotEmpty(t, words, "line %d: a block without a language", i+1)
			s := snippet{lang: words[0], line: i + 1}
			for _, w := range words[1:] {
				name, value, _ := strings.Cut(w, "=")
				switch name {
				case "file":
					s.file = value
				case "replay":
					s.replay = value
				case "output":
					s.output = true
				default:
					t.Fatalf("line %d: %q says nothing to this test", i+1, w)
				}
			}
			list = append(list, s)
		case in:
			list[len(list)-1].text += line + "\n"
		}
	}
	require.False(t, in, "a block without an end")
	return list
}

// Every snippet of sources.md does what the page says, at a real door.
func TestSnippetsOfSources(t *testing.T) {
	list := snippets(t, read(t, "docs/sources.md"))
	require.Greater(t, len(list), 10)
	here, err := os.Getwd()
	require.NoError(t, err)
	dir := t.TempDir()
	for _, s := range list {
		if s.file != "" {
			path := filepath.Join(dir, s.file)
			require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
			require.NoError(t, os.WriteFile(path, []byte(s.text), 0o600))
		}
	}
	p := player{t: t, here: here, dir: dir, path: os.Getenv("PATH")}
	for _, s := range list {
		if s.lang == "sh" && regexp.MustCompile(`(?m)^weft `).MatchString(s.text) {
			p.build()
			break
		}
	}
	t.Chdir(dir)
	p.door = p.open()
	for i, s := range list {
		var output *snippet
		if i+1 < len(list) && list[i+1].output {
			output = &list[i+1]
		}
		p.play(s, output)
	}
}

// player plays snippets.
type player struct {
	t               *testing.T
	here, dir, path string
	door            string
}

// build puts the weft of this tree in front of the path.
func (p *player) build() {
	bin := p.t.TempDir()
	out, err := exec.CommandContext(p.t.Context(), "go", "build", "-o", filepath.Join(bin, "weft"), "../services/weft").CombinedOutput()
	require.NoError(p.t, err, string(out))
	p.path = bin + string(os.PathListSeparator) + p.path
}

// open starts a collector with the page's own configuration and sources, on a Kafka in this process.
func (p *player) open() string {
	t := p.t
	cfg, err := config.Load("weft.yaml", nil)
	require.NoError(t, err)
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1))
	require.NoError(t, err)
	t.Cleanup(cluster.Close)
	cfg.Kafka.Brokers, cfg.Collector.Listen, cfg.Topics.Partitions = cluster.ListenAddrs(), "127.0.0.1:0", 1
	cfg.Collector.ProduceTimeout = patience
	client, err := stream.New(cfg.Kafka, zap.NewNop())
	require.NoError(t, err)
	t.Cleanup(client.Close)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	require.NoError(t, client.EnsureTopics(ctx, cfg.Topics.Set().Specs(), cfg.Topics))
	s, err := collector.New(cfg, collector.Deps{Stream: client, Log: zap.NewNop(), Metrics: prometheus.NewRegistry(), Now: time.Now})
	require.NoError(t, err)
	require.NoError(t, s.Listen())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-done)
	})
	return s.Addr()
}

func (p *player) play(s snippet, output *snippet) {
	p.t.Run(fmt.Sprintf("%s of line %d", s.lang, s.line), func(t *testing.T) {
		switch {
		case s.output:
		case s.lang == "sh":
			p.shell(t, s, output)
		case s.replay != "":
			p.replayed(t, s)
		case s.file != "" && s.lang == "yaml" && filepath.Dir(s.file) == "sources":
			_, err := config.LoadSource(s.file)
			require.NoError(t, err)
		case s.file != "":
		case s.lang == "yaml":
			file := filepath.Join(t.TempDir(), "weft.yaml")
			require.NoError(t, os.WriteFile(file, []byte(s.text), 0o600))
			_, err := config.Load(file, nil)
			require.NoError(t, err)
		default:
			t.Fatalf("nothing runs a block of %s", s.lang)
		}
	})
}

// shell runs a block in the directory of the page's files.
func (p *player) shell(t *testing.T, s snippet, output *snippet) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-euc", strings.ReplaceAll(s.text, doorInSnippets, "http://"+p.door)) //nolint:gosec // our own page
	cmd.Dir, cmd.Env = p.dir, append(os.Environ(), "PATH="+p.path)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	require.NoError(t, cmd.Run(), "%s%s", out.String(), errs.String())
	require.NotNil(t, output, "the page does not say what this prints: %s", out.String())
	var pattern strings.Builder
	for i, part := range strings.Split(strings.TrimSpace(output.text), "...") {
		if i > 0 {
			pattern.WriteString(`(?s:.*)`)
		}
		pattern.WriteString(regexp.QuoteMeta(part))
	}
	require.Regexp(t, "^"+pattern.String()+"$", strings.TrimSpace(out.String()))
}

var keyPattern = regexp.MustCompile(`(?i)(?:write_?key\W+|Analytics\(["']|NewWithConfig\("|builder\(")([\w-]+)`)

// replayed sends what the snippet's SDK sends, with the snippet's key.
func (p *player) replayed(t *testing.T, s snippet) {
	m := keyPattern.FindStringSubmatch(s.text)
	require.NotNil(t, m, "no write key in the snippet")
	var lines string
	for file := range strings.SplitSeq(s.replay, ",") {
		path := filepath.Join(p.here, "testdata", file)
		if _, err := os.Stat(path); err != nil {
			path = filepath.Join(p.here, root, "services/collector/testdata", file)
		}
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		lines += string(text)
	}
	for line := range strings.Lines(strings.ReplaceAll(lines, "wk_demo", m[1])) {
		var r struct {
			Method, Path string
			Headers      map[string]string
			Gzip         bool
			Body         json.RawMessage
		}
		require.NoError(t, json.Unmarshal([]byte(line), &r))
		var body bytes.Buffer
		if r.Gzip {
			z := gzip.NewWriter(&body)
			_, err := z.Write(r.Body)
			require.NoError(t, err)
			require.NoError(t, z.Close())
		} else {
			body.Write(r.Body)
		}
		req, err := http.NewRequestWithContext(t.Context(), r.Method, "http://"+p.door+r.Path, &body)
		require.NoError(t, err)
		for k, v := range r.Headers {
			switch http.CanonicalHeaderKey(k) {
			case "Content-Length", "Transfer-Encoding", "Host", "Connection", "Accept-Encoding":
			case "Authorization":
				req.Header.Set(k, "Basic "+base64.StdEncoding.EncodeToString([]byte(m[1]+":")))
			default:
				req.Header.Set(k, v)
			}
		}
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
		resp, err := client.Do(req)
		require.NoError(t, err)
		answer, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, 2, resp.StatusCode/100, "%s %s: %s", r.Method, r.Path, answer)
		require.NotContains(t, string(answer), `"rejected"`, r.Path)
	}
}
