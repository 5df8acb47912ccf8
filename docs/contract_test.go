package docs

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// testNames are all tests and fuzz targets of the repository.
func testNames(t *testing.T) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	declared := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`)
	for _, top := range []string{"pkg", "services", "schemas", "docs", "scripts"} {
		err := filepath.WalkDir(filepath.Join(root, top), func(path string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, "_test.go") {
				return err
			}
			text, err := os.ReadFile(path) //nolint:gosec // files of this repository
			for _, m := range declared.FindAllStringSubmatch(string(text), -1) {
				names[m[1]] = true
			}
			return err
		})
		require.NoError(t, err)
	}
	return names
}

// Every rule of a table "rule | held by" names tests, and they are there.
func TestRulesAreHeldByTests(t *testing.T) {
	known := testNames(t)
	require.Greater(t, len(known), 500)
	spans := regexp.MustCompile("^(?: *`(\\w+)`)+ *$")
	rows := 0
	for line := range strings.Lines(read(t, "docs/contract.md")) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "|") || strings.HasPrefix(line, "|---") || line == "| rule | held by |" {
			continue
		}
		cells := strings.Split(strings.Trim(line, "|"), "|")
		held := cells[len(cells)-1]
		require.Regexp(t, spans, held, "a rule that no test holds: %s", line)
		for name := range strings.FieldsSeq(strings.ReplaceAll(held, "`", "")) {
			require.True(t, known[name], "docs/contract.md: there is no %s", name)
		}
		rows++
	}
	require.Greater(t, rows, 40, "the test has gone blind")
	// A test that is named as one anywhere is there.
	each(t, `^((?:Test|Fuzz)[A-Z]\w+)$`, func(p page, m []string) {
		for name := range known {
			if strings.HasPrefix(name, m[1]) {
				return
			}
		}
		t.Errorf("%s: there is no test `%s`", p.name, m[1])
	})
}

// Every fuzz target stands in the table of what comes from outside, so that a parser without one is seen to be missing.
func TestEveryFuzzTargetIsListed(t *testing.T) {
	_, section, found := strings.Cut(read(t, "docs/reliability.md"), "## Fuzzing")
	require.True(t, found)
	section, _, _ = strings.Cut(section, "\n## ")
	for name := range testNames(t) {
		if strings.HasPrefix(name, "Fuzz") {
			require.Contains(t, section, "`"+name+"`", "docs/reliability.md, Fuzzing")
		}
	}
}
