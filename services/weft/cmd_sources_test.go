package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// source writes files and gives the directory.
func writeFiles(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	}
	return dir
}

const tillFile = `
name: till
kind: kafka
brand: shop
trusted: true
kafka:
  topic: till.sales
  mapping:
    event: "'Order Completed'"
    userId: $.customer
    timestamp: $.at
    properties.order_id: $.receipt
    properties.total: "= record.cents / 100"
`

func TestSourcesTest(t *testing.T) {
	dir := writeFiles(t, map[string]string{
		"till.yaml": tillFile,
		"good.json": `{"customer":"u-1","receipt":"r-1","cents":1990,"at":"2026-05-04T10:11:12+02:00"}`,
		"mixed.json": `{"customer":"u-1",
 "receipt":"r-1","cents":1990}
{"customer":"u-2","receipt":"r-2","cents":"?"}
{"receipt":"r-3","cents":100}
{"customer":`,
		"broken.yaml": strings.Replace(tillFile, "record.cents / 100", "record.cents /", 1),
		"empty.json":  "\n",
	})
	at := func(name string) string { return filepath.Join(dir, name) }
	code, stdout, stderr := weft(t, "sources test "+at("till.yaml")+" "+at("good.json"))
	require.Zero(t, code, stderr)
	require.Equal(t, `{"line":1,"result":"stored","key":"u-1","time":"2026-05-04T08:11:12Z","source":"till","brand":"shop","historical":true,`+
		`"event":{"messageId":"till.sales:0:0","event":"Order Completed","properties":{"order_id":"r-1","total":19.9},"timestamp":"2026-05-04T10:11:12+02:00","userId":"u-1","type":"track"}}`+"\n", stdout)

	code, stdout, stderr = weft(t, "sources test "+at("till.yaml")+" "+at("mixed.json"))
	require.Equal(t, exitError, code, stderr)
	lines := strings.Split(strings.TrimSpace(stdout), "\n")
	require.Len(t, lines, 4)
	require.Contains(t, lines[0], `"line":1,"result":"stored"`)
	require.Contains(t, lines[1], `"line":3,"result":"rejected","reason":"expression_failed","error":"expression_failed: properties.total: 1:14: cannot divide a text and a number in \"record.cents / 100\""`)
	require.Contains(t, lines[2], `"line":4,"result":"rejected","reason":"no_user_anon_id"`)
	require.Contains(t, lines[3], `"line":5,"result":"rejected","reason":"invalid_json"`)

	code, _, stderr = weft(t, "sources test "+at("broken.yaml")+" "+at("good.json"))
	require.Equal(t, exitError, code)
	require.Contains(t, stderr, "source till: mapping: properties.total: 1:15: Syntax error")
	code, _, stderr = weft(t, "sources test "+at("till.yaml")+" "+at("empty.json"))
	require.Equal(t, exitError, code)
	require.Contains(t, stderr, "there is no record in the sample")
}

func TestSourcesListAndCheck(t *testing.T) {
	dir := writeFiles(t, map[string]string{
		"sources/till.yaml": tillFile,
		"sources/crm.yaml":  "name: crm\nkind: kafka\ndisabled: true\nkafka: {topic: crm.contacts, preset: crm_contact}\n",
		"weft.yaml":         "collector:\n  sources_dir: SOURCES\n  sources:\n    - {name: web, write_key: k}\n  inlets:\n    - {name: old, topic: old.sales, mapping: {userId: $.id}}\n",
	})
	config := filepath.Join(dir, "weft.yaml")
	text, err := os.ReadFile(config)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(config, []byte(strings.Replace(string(text), "SOURCES", filepath.Join(dir, "sources"), 1)), 0o600))

	code, stdout, stderr := weft(t, "sources list --config "+config)
	require.Zero(t, code, stderr)
	for _, want := range []string{
		`web +browser +main +HTTP, 1 key\(s\) +the configuration`, `crm +kafka +main +nothing: disabled +.*crm.yaml`,
		`till +kafka +shop +json on till.sales +.*till.yaml`, `old +kafka +main +json on old.sales +the configuration`,
	} {
		require.Regexp(t, want, stdout)
	}
	code, stdout, stderr = weft(t, "sources check --config "+config)
	require.Zero(t, code, stderr)
	require.Equal(t, "4 sources: no faults\n", stdout)

	bad := filepath.Join(dir, "bad.yaml")
	require.NoError(t, os.WriteFile(bad, []byte("name: x\nkind: kafka\nkafka: {topic: t, when: 'nosuch > 1', mapping: {userId: '= record.', colour: $.a}}\n"), 0o600))
	code, _, stderr = weft(t, "sources check "+bad)
	require.Equal(t, exitError, code)
	for _, want := range []string{"bad.yaml", "when: 1:1: undeclared reference to 'nosuch'", "userId: 1:8: Syntax error", "colour: is no field of an event"} {
		require.Contains(t, stderr, want)
	}
}
