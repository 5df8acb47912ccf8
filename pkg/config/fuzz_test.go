package config

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// atFile writes the fuzzed text where it is read from.
func atFile(t testing.TB, file string, text []byte) {
	require.NoError(t, os.WriteFile(file, text, 0o600))
}

// Any file of a source: a source, or faults; never a panic.
func FuzzSourceFile(f *testing.F) {
	dir := f.TempDir()
	for _, text := range []string{
		"name: app\nkind: app\nwrite_key_hashes: [\"" + sesame + "\"]\norigins: [https://shop.example]\nrate: {events_per_second: 100, burst: 500}\n",
		"name: till\nkind: kafka\ntrusted: true\nkafka:\n  topic: till.sales\n  format: csv\n  csv: {columns: [a, b], separator: ';'}\n  mapping: {event: \"'Order Completed'\"}\n",
		"name: shop\nkind: webhook\nwebhook: {provider: shopify, secret_file: s}\ntransformations: [{remove: [a]}, {file: x, when: y}]\n",
		"a: &a [*a]", "name: {x: y}\n", "- 1\n", "name: x\nname: y\n", "\x00",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		file := filepath.Join(dir, "source.yaml")
		atFile(t, file, text)
		s, err := LoadSource(file)
		again, err2 := LoadSource(file)
		require.Equal(t, err, err2)
		require.Equal(t, s, again)
		if err == nil {
			require.NotEmpty(t, s.Name, "%q", text)
		}
	})
}

// Any file of transformations.
func FuzzTransformationsFile(f *testing.F) {
	dir := f.TempDir()
	for _, text := range []string{
		"- {name: a, when: 'event.event == \"E\"', remove: [properties.card]}\n- rename: {a: b}\n- {hash: [userId], key_file: k}\n", "- drop: true\n- redact: [x]\n  with: y\n", "x: y", "[[", "- null\n",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		file := filepath.Join(dir, "transformations.yaml")
		atFile(t, file, text)
		list, err := LoadTransformations(file)
		if err != nil {
			return
		}
		for _, x := range list {
			x.Kinds()
		}
	})
}

// The configuration itself, file and environment: what loads can be printed.
func FuzzConfig(f *testing.F) {
	dir := f.TempDir()
	f.Add([]byte("collector:\n  listen: :8080\n  sources:\n    - {name: web, write_key: a}\ntopics: {partitions: 3}\n"), "WEFT_KAFKA_BROKERS=a:1,b:2")
	f.Add([]byte("kafka: {brokers: [a:9092]}\nredis: {addresses: x}\n"), "WEFT_COLLECTOR_SOURCES=web")
	f.Add([]byte("collector: {spool_max_bytes: 1g, produce_timeout: 5m}\n"), "WEFT_")
	f.Add([]byte("&a x: *a"), "=")
	f.Fuzz(func(t *testing.T, text []byte, environ string) {
		if bytes.Contains(text, []byte("sources_dir")) || bytes.Contains([]byte(environ), []byte("SOURCES_DIR")) {
			return // would read directories of this machine
		}
		file := filepath.Join(dir, "weft.yaml")
		atFile(t, file, text)
		cfg, err := Load(file, []string{environ})
		if err != nil {
			return
		}
		_, err = Print(cfg)
		require.NoError(t, err)
	})
}
