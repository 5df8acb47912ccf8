package docs

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/store"
	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/warehouse"
	"github.com/weft-cdp/weft/services/activator"
	"github.com/weft-cdp/weft/services/collector"
	stitcher "github.com/weft-cdp/weft/services/identity-stitcher"
	writer "github.com/weft-cdp/weft/services/journey-writer"
	builder "github.com/weft-cdp/weft/services/profile-builder"
	"github.com/weft-cdp/weft/services/weft/audit"
)

// commands are the words of weft's command line as its source has them: names of commands, and flags.
type commands struct{ names, flags map[string]bool }

func weftCommands(t *testing.T) commands {
	t.Helper()
	found := commands{map[string]bool{"help": true}, map[string]bool{"help": true}}
	files, err := filepath.Glob(filepath.Join(root, "services/weft/*.go"))
	require.NoError(t, err)
	constants := map[string]string{}
	var uses []ast.Expr
	for _, file := range files {
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		require.NoError(t, err)
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.ValueSpec:
				if len(n.Values) == 1 {
					if text, ok := literal(n.Values[0]); ok {
						constants[n.Names[0].Name] = text
					}
				}
			case *ast.KeyValueExpr:
				if key, ok := n.Key.(*ast.Ident); ok && key.Name == "Use" {
					uses = append(uses, n.Value)
				}
			case *ast.CallExpr:
				// f.BoolVar(&x, "name", ...): a flag.
				if s, ok := n.Fun.(*ast.SelectorExpr); ok && regexp.MustCompile(`Var(P)?$`).MatchString(s.Sel.Name) && len(n.Args) > 2 {
					if name, ok := literal(n.Args[1]); ok {
						found.flags[name] = true
					}
				}
			}
			return true
		})
	}
	for _, use := range uses {
		text, ok := literal(use)
		if id, isID := use.(*ast.Ident); isID {
			text, ok = constants[id.Name]
		}
		require.True(t, ok, "a command whose Use cannot be read")
		found.names[strings.Fields(text)[0]] = true
	}
	return found
}

func literal(e ast.Expr) (string, bool) {
	lit, ok := e.(*ast.BasicLit)
	if !ok || lit.Kind != token.STRING {
		return "", false
	}
	text, err := strconv.Unquote(lit.Value)
	return text, err == nil
}

var (
	weftPattern = regexp.MustCompile(`(?:^|[\s/])weft ((?:[a-z][a-z-]*\s?)+)`)
	flagPattern = regexp.MustCompile(`\s--([a-z][a-z-]*)`)
)

func TestCommandsAreThere(t *testing.T) {
	known := weftCommands(t)
	require.True(t, known.names["collector"] && known.names["preview"] && known.flags["resume"], "the source was not understood: %v", known)
	for _, p := range pages(t) {
		for _, line := range inShell(p) {
			line, _, _ = strings.Cut(line, " #")
			m := weftPattern.FindStringSubmatch(line)
			if m == nil {
				continue
			}
			words := strings.Fields(m[1])
			require.True(t, known.names[words[0]], "%s: %s", p.name, line)
			if words[0] == "journey" || words[0] == "config" {
				require.True(t, len(words) == 1 || known.names[words[1]], "%s: %s", p.name, line)
			}
			if strings.Contains(line, "docker") {
				continue // its flags
			}
			for _, f := range flagPattern.FindAllStringSubmatch(line, -1) {
				require.True(t, known.flags[f[1]], "%s: --%s in %s", p.name, f[1], line)
			}
		}
		for _, s := range p.spans {
			if name, ok := strings.CutPrefix(s, "--"); ok {
				require.True(t, known.flags[strings.Fields(name)[0]], "%s: `%s`", p.name, s)
			}
		}
	}
}

// names is a registry that keeps the names of what is registered.
type names map[string]bool

var metricName = regexp.MustCompile(`fqName: "([^"]+)"`)

func (n names) Register(c prometheus.Collector) error {
	descriptions := make(chan *prometheus.Desc)
	go func() {
		c.Describe(descriptions)
		close(descriptions)
	}()
	for d := range descriptions {
		n[metricName.FindStringSubmatch(d.String())[1]] = true
	}
	return nil
}

func (n names) MustRegister(cs ...prometheus.Collector) {
	for _, c := range cs {
		_ = n.Register(c) // cannot be refused
	}
}

func (n names) Unregister(prometheus.Collector) bool { return false }

// registered are the metrics of all services, which start nothing here.
func registered(t *testing.T) names {
	t.Helper()
	dir := t.TempDir()
	cfg := config.Defaults()
	cfg.Kafka.Brokers, cfg.Redis.Addresses, cfg.ClickHouse.Addresses = []string{"127.0.0.1:1"}, []string{"127.0.0.1:1"}, []string{"127.0.0.1:1"}
	cfg.Identity.KeyFile, cfg.Collector.UnsubscribeSecret = filepath.Join(dir, "identity.key"), filepath.Join(dir, "unsubscribe.key")
	cfg.Activator.Journeys = filepath.Join(root, "schemas/journeys")
	log := zap.NewNop()
	n := names{"weft_build_info": true}
	kafka, err := stream.New(cfg.Kafka, log, stream.WithMetrics(n))
	require.NoError(t, err)
	t.Cleanup(kafka.Close)
	redis, err := store.New(cfg.Redis, log, store.WithMetrics(n))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, redis.Close()) })
	clickhouse, err := warehouse.Open(cfg.ClickHouse)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, clickhouse.Close()) })

	cfg.Collector.SpoolDir = filepath.Join(dir, "spool")
	_, err = collector.New(cfg, collector.Deps{Stream: kafka, Store: redis, Log: log, Metrics: n})
	require.NoError(t, err)
	_, err = stitcher.New(cfg, stitcher.Deps{Stream: kafka, Store: redis, Log: log, Metrics: n})
	require.NoError(t, err)
	_, err = builder.New(cfg, builder.Deps{Stream: kafka, Store: redis, Log: log, Metrics: n})
	require.NoError(t, err)
	_, err = activator.New(cfg, activator.Deps{Stream: kafka, Store: redis, Log: log, Metrics: n})
	require.NoError(t, err)
	_, err = writer.New(cfg, writer.Deps{Stream: kafka, Warehouse: clickhouse, Log: log, Metrics: n})
	require.NoError(t, err)
	audit.Report{}.Register(n, time.Now())
	return n
}

func TestMetricsAreThoseOfTheCode(t *testing.T) {
	known := registered(t)
	require.Greater(t, len(known), 40)
	for _, p := range pages(t) {
		for _, s := range p.spans {
			if regexp.MustCompile(`^weft_[a-z_]+$`).MatchString(s) {
				require.True(t, known[s], "%s: `%s`", p.name, s)
			}
		}
	}
	operate, err := os.ReadFile("operate.md")
	require.NoError(t, err)
	for name := range known {
		require.Contains(t, string(operate), "`"+name+"`", "docs/operate.md does not explain a metric")
	}
}
