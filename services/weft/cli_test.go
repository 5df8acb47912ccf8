package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/weft-cdp/weft/pkg/config"
)

// weft runs a command line in an empty environment but for environ.
func weft(t *testing.T, commandLine string, environ ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(t.Context(), strings.Fields(commandLine), environ, &out, &errs)
	return code, out.String(), errs.String()
}

func TestWrongCommandLines(t *testing.T) {
	for line, want := range map[string]string{
		"colector":                    "weft: unknown command \"colector\"; did you mean collector?; see 'weft --help'\n",
		"nothing-like-it":             "weft: unknown command \"nothing-like-it\"; see 'weft --help'\n",
		"--nothing":                   "weft: unknown flag: --nothing; see 'weft --help'\n",
		"topics --nothing":            "weft: unknown flag: --nothing; see 'weft topics --help'\n",
		"collector x":                 "weft: unknown command \"x\" for \"weft collector\"; see 'weft collector --help'\n",
		"journey chek f":              "weft: unknown command \"chek\"; did you mean check?; see 'weft journey --help'\n",
		"journey preview":             "weft: accepts 1 arg(s), received 0; see 'weft journey preview --help'\n",
		"config example with no more": "weft: unknown command \"with\" for \"weft config example\"; see 'weft config example --help'\n",
	} {
		code, stdout, stderr := weft(t, line)
		require.Equal(t, exitUsage, code, line)
		require.Empty(t, stdout, line)
		require.Equal(t, want, stderr, line)
	}
}

// Help must be complete: what it does in one line and in full, and an example.
func TestEveryCommandExplainsItself(t *testing.T) {
	var visit func(c *cobra.Command)
	visit = func(c *cobra.Command) {
		if c.Name() == "completion" || c.Name() == "help" {
			return // cobra's own
		}
		require.NotEmpty(t, c.Short, c.CommandPath())
		require.False(t, strings.HasSuffix(c.Short, "."), "%s: one line, not a sentence", c.CommandPath())
		require.NotEmpty(t, c.Long, c.CommandPath())
		for _, line := range strings.Split(c.Long+"\n"+c.Example, "\n") {
			require.LessOrEqual(t, len(line), 130, "%s: %s", c.CommandPath(), line)
		}
		if !c.HasSubCommands() && !c.Hidden {
			require.Contains(t, c.Example, c.CommandPath(), c.CommandPath())
		}
		for _, sub := range c.Commands() {
			if c.Parent() == nil && !sub.Hidden && sub.Name() != "completion" && sub.Name() != "help" {
				require.NotEmpty(t, sub.GroupID, sub.Name())
			}
			visit(sub)
		}
	}
	visit(newRootCommand(&app{}))

	code, stdout, stderr := weft(t, "help")
	require.Zero(t, code)
	require.Empty(t, stderr)
	for _, name := range []string{nameCollector, nameStitcher, nameBuilder, nameActivator, nameWriter, "up", "demo", "topics", "check", "replay", "audit", "version"} {
		require.Contains(t, stdout, "\n  "+name+" ")
	}
	require.NotContains(t, stdout, "clickhouse-server")
}

func TestVersion(t *testing.T) {
	code, stdout, _ := weft(t, "version")
	require.Zero(t, code)
	require.Regexp(t, `^weft \S+ go1\.\S+ \w+/\w+\n$`, stdout)
}

func TestCheckPrintsWithoutSecrets(t *testing.T) {
	file := filepath.Join(t.TempDir(), "weft.yaml")
	require.NoError(t, os.WriteFile(file, []byte("collector: {sources: [{name: web, write_key: sesame}]}\n"), 0o600))
	code, stdout, stderr := weft(t, "check --print --config "+file, "WEFT_LOG_LEVEL=warn")
	require.Zero(t, code, stderr)
	require.NotContains(t, stdout, "sesame")
	require.Contains(t, stdout, "level: warn")

	code, same, _ := weft(t, "check --print", "WEFT_LOG_LEVEL=warn", "WEFT_CONFIG="+file)
	require.Zero(t, code)
	require.Equal(t, stdout, same)
}

func TestCheckTellsEveryFaultOnce(t *testing.T) {
	code, stdout, stderr := weft(t, "check", "WEFT_LOG_LEVEL=loud", "WEFT_NONSENSE=1")
	require.Equal(t, exitError, code)
	require.Empty(t, stdout)
	require.Equal(t, `weft: configuration has 2 faults:
  WEFT_NONSENSE: unknown variable: no such key
  WEFT_LOG_LEVEL: log.level: want one of ["debug" "info" "warn" "error"], found "loud"
`, stderr)
}

func TestCheckTellsWhatIsNotReached(t *testing.T) {
	// Port 1 is nobody's.
	code, stdout, stderr := weft(t, "check", "WEFT_REDIS_ADDRESSES=127.0.0.1:1", "WEFT_ACTIVATOR_JOURNEYS=../../schemas/journeys")
	require.Equal(t, exitError, code)
	require.Empty(t, stderr)
	lines := strings.Split(strings.TrimSpace(stdout), "\n")
	wants := []string{"ok   configuration", "-    sources", "-    kafka", "FAIL redis", "-    clickhouse", "-    identity rules", "-    audiences", "ok   journeys"}
	require.Len(t, lines, len(wants))
	for i, want := range wants {
		require.True(t, strings.HasPrefix(lines[i], want), lines[i])
	}
	require.Contains(t, lines[3], "127.0.0.1:1")
}

// TestCheckCompilesSources: their mappings, plans and secrets are a collector's first fault otherwise.
func TestCheckCompilesSources(t *testing.T) {
	dir := t.TempDir()
	secret := filepath.Join(dir, "secret")
	require.NoError(t, os.WriteFile(secret, []byte("hush"), 0o600))
	write := func(name, text string) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	check := func() string {
		_, stdout, _ := weft(t, "check", "WEFT_COLLECTOR_SOURCES_DIR="+dir, "WEFT_ACTIVATOR_JOURNEYS=../../schemas/journeys")
		return stdout
	}
	write("till.yaml", "name: till\nkind: kafka\nkafka: {topic: t, mapping: {userId: = record.id}}\n")
	write("shop.yaml", "name: shop\nkind: webhook\nwebhook: {provider: shopify, secret_file: "+secret+"}\n")
	require.Regexp(t, `(?m)^ok   sources +2 without a fault; .* read when a collector starts: restart it after a change$`, check())
	write("till.yaml", "name: till\nkind: kafka\nkafka: {topic: t, mapping: {userId: = recor.id}}\n")
	require.NoError(t, os.Remove(secret))
	said := check()
	require.Regexp(t, `(?m)^FAIL sources .*`, said)
	require.Contains(t, said, "undeclared reference to 'recor'")
	require.Contains(t, said, "secret_file")
}

func TestCheckReadsAudiences(t *testing.T) {
	file := filepath.Join(t.TempDir(), "audiences.yaml")
	require.NoError(t, os.WriteFile(file, []byte("audiences:\n  - name: big\n    when: profile.ordres > 1\n"), 0o600))
	code, stdout, _ := weft(t, "check", "WEFT_BUILDER_AUDIENCES_FILE="+file, "WEFT_ACTIVATOR_JOURNEYS=../../schemas/journeys")
	require.Equal(t, exitError, code)
	require.Regexp(t, `(?m)^FAIL audiences .*audiences.yaml:3`, stdout)
}

// TestCheckMissesAnInlet: a topic of an inlet that does not exist holds the fence, and so every message.
func TestCheckMissesAnInlet(t *testing.T) {
	cfg := config.Defaults()
	var names []string
	for _, s := range cfg.Topics.Set().Specs() {
		names = append(names, s.Name)
	}
	k, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(int32(cfg.Topics.Partitions), names...))
	require.NoError(t, err)
	defer k.Close()
	file := filepath.Join(t.TempDir(), "weft.yaml")
	require.NoError(t, os.WriteFile(file, []byte("collector:\n  inlets:\n    - name: till\n      topic: till.slaes\n      mapping: {type: \"'track'\", event: \"'x'\", userId: $.id}\n"), 0o600))
	code, stdout, stderr := weft(t, "check --config "+file, "WEFT_KAFKA_BROKERS="+k.ListenAddrs()[0], "WEFT_ACTIVATOR_JOURNEYS=../../schemas/journeys")
	require.Equal(t, exitError, code, stderr)
	require.Regexp(t, `(?m)^FAIL kafka .*topic till.slaes of inlet till`, stdout)
}

func TestConfigExampleIsTheShippedFile(t *testing.T) {
	want, err := os.ReadFile("../../weft.example.yaml")
	require.NoError(t, err)
	code, stdout, _ := weft(t, "config example")
	require.Zero(t, code)
	require.Equal(t, string(want), stdout)
}

func TestAServiceWithoutServersSaysWhichKey(t *testing.T) {
	code, _, stderr := weft(t, "topics")
	require.Equal(t, exitError, code)
	require.Equal(t, "weft: kafka.brokers is empty: give it in the file or as WEFT_KAFKA_BROKERS, or let 'weft up' start its own\n", stderr)
}

func TestJourneyFiles(t *testing.T) {
	const shipped = "../../schemas/journeys/abandoned-cart.yaml"
	code, stdout, stderr := weft(t, "journey check "+shipped)
	require.Zero(t, code, stderr)
	require.Regexp(t, `journey abandoned-cart, version [0-9a-f]{12}: no faults\n$`, stdout)

	broken := filepath.Join(t.TempDir(), "broken.yaml")
	require.NoError(t, os.WriteFile(broken, []byte("journey: x\nnonsense: 1\n"), 0o600))
	code, stdout, stderr = weft(t, "journey check "+shipped+" "+broken)
	require.Equal(t, exitError, code)
	require.Contains(t, stdout, "no faults")
	require.Contains(t, stderr, broken+":2: nonsense")
	require.NotContains(t, stderr, "weft:")

	code, stdout, _ = weft(t, "journey preview "+shipped)
	require.Zero(t, code)
	require.True(t, strings.HasPrefix(stdout, "Subject: "), stdout)
	code, stdout, _ = weft(t, "journey preview --html "+shipped)
	require.Zero(t, code)
	require.Contains(t, stdout, "</")

	cart := filepath.Join(t.TempDir(), "cart.json")
	require.NoError(t, os.WriteFile(cart, []byte(`{"cart_id":"c","currency":"PLN","products":[{"product_id":"p","name":"Woven Scarf","price":19.9,"quantity":2}]}`), 0o600))
	code, stdout, _ = weft(t, "journey preview "+shipped+" --cart "+cart)
	require.Zero(t, code)
	require.Contains(t, stdout, "Woven Scarf")
	code, _, stderr = weft(t, "journey preview "+broken)
	require.Equal(t, exitError, code)
	require.Contains(t, stderr, "nonsense")
}

func TestCompleteForOne(t *testing.T) {
	t.Chdir(t.TempDir()) // where no journeys are
	cfg := config.Defaults()
	require.NoError(t, completeForOne(&cfg))
	require.Len(t, cfg.Collector.Sources, 1)
	require.Len(t, cfg.Builder.AccessKeys, 1)
	require.Len(t, cfg.Builder.AdminKeys, 1)
	require.NotEqual(t, cfg.Builder.AccessKeys, cfg.Builder.AdminKeys)
	require.NoError(t, config.Validate(cfg))
	file := filepath.Join(cfg.Activator.Journeys, "abandoned-cart.yaml")
	require.Equal(t, filepath.Join("weft-data", "journeys"), cfg.Activator.Journeys)

	// What is there is kept: keys, and what the user made of the files.
	require.NoError(t, os.WriteFile(file, []byte("mine"), 0o600))
	again := config.Defaults()
	require.NoError(t, completeForOne(&again))
	require.Equal(t, cfg, again)
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, "mine", string(text))

	// What is configured is left alone.
	given := config.Defaults()
	given.Collector.Sources = []config.Source{{Name: "shop", WriteKey: "k"}}
	given.Builder.AdminKeys = []string{"b"}
	given.Builder.AccessKeys, given.Activator.Journeys = []string{"a"}, "elsewhere"
	want := given
	require.NoError(t, completeForOne(&given))
	require.Equal(t, want, given)
}
