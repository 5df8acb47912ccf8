package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// sesame is the hash of the key "sesame".
const sesame = "sha256:d0c04f4b1951e4aeaaec8223ed2039e542f3aae805a6fa7f6d794e5afff5d272"

// inDir writes files into a new directory and goes there.
func inDir(t *testing.T, files map[string]string) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	}
	t.Chdir(dir)
}

func TestSourcesInFiles(t *testing.T) {
	inDir(t, map[string]string{
		"weft.yaml":           "collector:\n  sources_dir: sources\n  sources:\n    - {name: web, write_key: a}\n",
		"sources/b-app.yaml":  "name: app\nkind: app\nwrite_key_hashes: [\"" + sesame + "\"]\norigins: [https://shop.example, 'https://*.shop.example:8443']\nrate: {events_per_second: 100, burst: 500}\n",
		"sources/a-till.yaml": "name: till\nkind: kafka\ntrusted: true\nkafka:\n  topic: till.sales\n  mapping: {event: \"'Order Completed'\"}\n",
		"sources/.b-app.yaml": "an editor's",
		"sources/README.md":   "no source",
	})
	cfg, err := Load("weft.yaml", nil)
	require.NoError(t, err)
	var names []string
	for _, s := range cfg.Collector.Sources {
		names = append(names, s.Name)
	}
	require.Equal(t, []string{"web", "till", "app"}, names)
	require.Equal(t, Source{
		Name: "till", Kind: KindKafka, Trusted: true, File: "sources/a-till.yaml",
		Kafka: KafkaInlet{Topic: "till.sales", Mapping: map[string]string{"event": "'Order Completed'"}},
	}, cfg.Collector.Sources[1])
	require.Equal(t, SourceRate{100, 500}, cfg.Collector.Sources[2].Rate)
	require.Equal(t, cfg.Collector.Sources[1:2], cfg.Collector.KafkaSources())

	one, err := LoadSource("sources/a-till.yaml")
	require.NoError(t, err)
	require.Equal(t, cfg.Collector.Sources[1], one)

	// What Print shows is whole without the files.
	out, err := Print(cfg)
	require.NoError(t, err)
	again, err := load(t, strings.ReplaceAll(string(out), hidden, "a"))
	require.NoError(t, err)
	require.Empty(t, again.Collector.SourcesDir)
	for i := range cfg.Collector.Sources {
		cfg.Collector.Sources[i].File = ""
	}
	require.Equal(t, emptyAsNil(cfg).Collector.Sources, emptyAsNil(again).Collector.Sources)
}

func TestFaultsOfASourceNameFileAndPath(t *testing.T) {
	inDir(t, map[string]string{
		"weft.yaml":        "collector:\n  sources_dir: sources\n  sources:\n    - {name: web, write_key: sesame}\n",
		"sources/app.yaml": "name: web\nwrite_key_hashes: [\"" + sesame + "\", md5:12]\nmode: lax\norigin: [x]\nrate:\n  events_per_second: many\n",
		"sources/two.yaml": "name: a\nwrite_key: k\n---\nname: b\n",
		"sources/not.yaml": "[",
	})
	_, err := Load("weft.yaml", nil)
	var faults Faults
	require.ErrorAs(t, err, &faults)
	require.Equal(t, strings.TrimSpace(`
configuration has 8 faults:
  sources/app.yaml:4: collector.sources_dir[app.yaml].origin: unknown key; did you mean origins?
  sources/app.yaml:6: collector.sources_dir[app.yaml].rate.events_per_second: want a whole number, found "many"
  sources/not.yaml: collector.sources_dir[not.yaml]: line 1: did not find expected node content
  sources/two.yaml:3: collector.sources_dir[two.yaml]: a second document: the configuration is one
  sources/app.yaml:1: collector.sources_dir[app.yaml].name: "web" is the name of collector.sources[0]
  sources/app.yaml:3: collector.sources_dir[app.yaml].mode: want one of ["" "compatible" "strict"], found "lax"
  sources/app.yaml:2: collector.sources_dir[app.yaml].write_key_hashes[0]: the same key as that of collector.sources[0].write_key
  sources/app.yaml:2: collector.sources_dir[app.yaml].write_key_hashes[1]: want "sha256:" and 64 hexadecimal digits`), faults.Error())

	_, err = LoadSource("sources/app.yaml")
	require.ErrorContains(t, err, "sources/app.yaml:3: collector.sources_dir[app.yaml].mode")
	_, err = LoadSource("sources/nowhere.yaml")
	require.ErrorContains(t, err, "read source")
	_, err = Load("", []string{"WEFT_COLLECTOR_SOURCES_DIR=nowhere"})
	require.ErrorContains(t, err, "WEFT_COLLECTOR_SOURCES_DIR: collector.sources_dir: open nowhere")
}

func TestFaultsOfASourceInMeaning(t *testing.T) {
	for path, s := range map[string]Source{
		"write_key":              {Name: "a"},
		"write_key_hashes[0]":    {Name: "a", WriteKey: "sesame", WriteKeyHashes: []string{sesame}},
		"kind":                   {Name: "a", WriteKey: "k", Kind: "desktop"},
		"trusted":                {Name: "a", WriteKey: "k", Kind: KindBrowser, Trusted: true},
		"origins[0]":             {Name: "a", WriteKey: "k", Origins: []string{"https://shop.example/"}},
		"origins[1]":             {Name: "a", WriteKey: "k", Origins: []string{"https://*.shop.example", "shop.example"}},
		"rate.events_per_second": {Name: "a", WriteKey: "k", Rate: SourceRate{EventsPerSecond: -1}},
		"rate.burst":             {Name: "a", WriteKey: "k", Rate: SourceRate{Burst: 5}},
		"max_request_bytes":      {Name: "a", WriteKey: "k", MaxRequestBytes: 5 << 20},
		"max_event_bytes":        {Name: "a", WriteKey: "k", MaxEventBytes: 1 << 20},
		"kafka":                  {Name: "a", WriteKey: "k", Kafka: KafkaInlet{Topic: "t"}},
		"kafka.topic":            {Name: "a", Kind: KindKafka},
		"kafka.mapping.event":    {Name: "a", Kind: KindKafka, Kafka: KafkaInlet{Topic: "t", Mapping: map[string]string{"event": "x"}}},
		"origins":                {Name: "a", Kind: KindKafka, Kafka: KafkaInlet{Topic: "t"}, Origins: []string{"https://a.example"}},
		"rate":                   {Name: "a", Kind: KindKafka, Kafka: KafkaInlet{Topic: "t"}, Rate: SourceRate{EventsPerSecond: 1}},
	} {
		t.Run(path, func(t *testing.T) {
			cfg := Defaults()
			cfg.Collector.Sources = []Source{s}
			var faults Faults
			require.ErrorAs(t, Validate(cfg), &faults)
			require.Len(t, faults, 1, faults)
			require.Equal(t, "collector.sources[0]."+path, faults[0].Path)
			require.NotContains(t, faults.Error(), "sesame")
		})
	}
	cfg := Defaults()
	cfg.Collector.Inlets = []Inlet{{Name: "till", Topic: "sales"}}
	cfg.Collector.Sources = []Source{{Name: "till2", Kind: KindKafka, Kafka: KafkaInlet{Topic: "sales"}}}
	require.ErrorContains(t, Validate(cfg), "collector.sources[0].kafka.topic: read by collector.inlets[0] already")
	cfg.Collector.Sources[0].Disabled, cfg.Collector.Sources[0].Kafka.Topic = true, "other"
	require.NoError(t, Validate(cfg))
	require.Equal(t, []Source{{Name: "till", Kind: KindKafka, Kafka: KafkaInlet{Topic: "sales"}}}, cfg.Collector.KafkaSources(), "a disabled topic is not read")
}

func TestKindByTrust(t *testing.T) {
	require.Equal(t, KindBrowser, Source{}.KindOrDefault())
	require.Equal(t, KindServer, Source{Trusted: true}.KindOrDefault())
	require.Equal(t, KindApp, Source{Kind: KindApp}.KindOrDefault())
}
