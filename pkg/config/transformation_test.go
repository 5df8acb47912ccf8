package config

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTransformationsAreOneThingEach(t *testing.T) {
	write := func(text string) string {
		file := filepath.Join(t.TempDir(), "weft.yaml")
		require.NoError(t, os.WriteFile(file, []byte("collector: {sources: [{name: web, write_key: k, transformations: ["+text+"]}]}\n"), 0o600))
		return file
	}
	for _, good := range []string{"{drop: true}", "{hash: [a], key_file: k}", "{redact: [a], with: x, when: 'true', name: n}", "{file: f}", "{rename: {a: b}}"} {
		_, err := Load(write(good), nil)
		require.NoError(t, err, good)
	}
	for bad, want := range map[string]string{
		"{}":                                "collector.sources[0].transformations[0]: want exactly one of file, drop, remove, rename, rename_event, derive, hash, redact, found none",
		"{drop: true, remove: [a]}":         "found drop and remove",
		"{hash: [a]}":                       "transformations[0].key_file: hash needs one",
		"{drop: true, key_file: k}":         "transformations[0].key_file: is for hash",
		"{drop: true, with: k}":             "transformations[0].with: is for redact",
		"{file: f, when: x}":                "transformations[0]: file stands alone",
		"{drop: true}, {remov: [a]}":        "transformations[1].remov: unknown key; did you mean remove?",
		"{drop: true}, {rename: [a]}":       "transformations[1].rename: want keys with values, found a list",
		"{drop: true, rename: {a: {b: c}}}": "transformations[0].rename.a: want text",
	} {
		_, err := Load(write(bad), nil)
		require.ErrorContains(t, err, want, bad)
	}
}

func TestTransformationFilesAreReadStrictly(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pii.yaml")
	require.NoError(t, os.WriteFile(file, []byte("- remove: [properties.card]\n- {redact: [context.ip], with: x}\n"), 0o600))
	list, err := LoadTransformations(file)
	require.NoError(t, err)
	require.Equal(t, []Transformation{{Remove: []string{"properties.card"}}, {Redact: []string{"context.ip"}, With: "x"}}, list)
	require.NoError(t, os.WriteFile(file, []byte("- {redac: [context.ip]}\n"), 0o600))
	_, err = LoadTransformations(file)
	require.ErrorContains(t, err, "pii.yaml:1: transformations[0].redac: unknown key; did you mean redact?")
}
