// Package docs holds the pages, and this test that what they name is there: files, make targets, commands and
// flags, configuration keys, metrics, topics, headers, tables, receipt reasons and error codes.
package docs

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/topic"
)

const root = ".."

// page is one Markdown file in parts.
type page struct {
	name  string
	text  string
	spans []string // inline code outside of fenced blocks
	shell []string // lines of blocks marked sh
	sql   string   // blocks marked sql, and shell
	links []string
}

var (
	spanPattern = regexp.MustCompile("`([^`\n]+)`")
	linkPattern = regexp.MustCompile(`\]\(([^)\s]+)\)`)
)

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, path))
	require.NoError(t, err)
	return string(b)
}

func pages(t *testing.T) []page {
	t.Helper()
	names := []string{"README.md", "CONTRIBUTING.md", "CHANGELOG.md"}
	for _, pattern := range []string{"docs/*.md", "docs/adr/*.md"} {
		found, err := filepath.Glob(filepath.Join(root, pattern))
		require.NoError(t, err)
		for _, f := range found {
			rel, err := filepath.Rel(root, f)
			require.NoError(t, err)
			names = append(names, rel)
		}
	}
	var list []page
	for _, name := range names {
		list = append(list, parse(name, read(t, name)))
	}
	return list
}

func parse(name, text string) page {
	p := page{name: name, text: text}
	lang, in := "", false
	var prose strings.Builder
	for _, line := range strings.Split(text, "\n") {
		if rest, ok := strings.CutPrefix(strings.TrimSpace(line), "```"); ok {
			in = !in
			lang = rest
			continue
		}
		switch {
		case !in:
			prose.WriteString(line + "\n")
		case lang == "sh":
			p.shell = append(p.shell, line)
			p.sql += line + "\n"
		case lang == "sql":
			p.sql += line + "\n"
		}
	}
	for _, m := range spanPattern.FindAllStringSubmatch(prose.String(), -1) {
		p.spans = append(p.spans, m[1])
	}
	for _, m := range linkPattern.FindAllStringSubmatch(prose.String(), -1) {
		p.links = append(p.links, m[1])
	}
	return p
}

// each calls check with every inline code of every page that fits pattern.
func each(t *testing.T, pattern string, check func(p page, match []string)) {
	t.Helper()
	re := regexp.MustCompile(pattern)
	found := 0
	for _, p := range pages(t) {
		for _, s := range p.spans {
			if m := re.FindStringSubmatch(s); m != nil {
				found++
				check(p, m)
			}
		}
	}
	require.Positive(t, found, "nothing fits %s: the test has gone blind", pattern)
}

func exists(path string) bool {
	found, err := filepath.Glob(filepath.Join(root, path))
	return err == nil && len(found) > 0
}

func TestLinksLeadSomewhere(t *testing.T) {
	for _, p := range pages(t) {
		for _, link := range p.links {
			path, _, _ := strings.Cut(link, "#")
			if strings.Contains(link, "://") || path == "" {
				continue
			}
			require.True(t, exists(filepath.Join(filepath.Dir(p.name), path)), "%s: %s", p.name, link)
		}
	}
}

// made are files and directories that appear with use.
var made = regexp.MustCompile(`^(bin|weft-data|\.cache|\.secrets)(/|$)`)

func TestFilesAreThere(t *testing.T) {
	each(t, `^(\.?[A-Za-z][\w.-]*(?:/[\w.*-]+)*/?)$`, func(p page, m []string) {
		path := m[1]
		known := strings.Contains(path, "/") && exists(strings.SplitN(path, "/", 2)[0])
		file := regexp.MustCompile(`\.(go|md|yaml|yml|sql|xml|json|conf|lua)$`).MatchString(path)
		if (!known && !file) || made.MatchString(path) {
			return
		}
		require.True(t, exists(path) || exists(filepath.Join(filepath.Dir(p.name), path)), "%s: `%s`", p.name, path)
	})
}

// inShell are the lines of the pages' shell blocks and their inline commands.
func inShell(p page) []string { return append(slices.Clone(p.spans), p.shell...) }

var makePattern = regexp.MustCompile(`(?:^|\s)make((?: [a-z][a-z0-9-]*)+)`)

func TestMakeTargetsAreThere(t *testing.T) {
	makefile := read(t, "Makefile")
	for _, p := range pages(t) {
		for _, line := range inShell(p) {
			line, _, _ = strings.Cut(line, "#")
			if strings.Contains(line, "apt-get") {
				continue // installs make
			}
			for _, m := range makePattern.FindAllStringSubmatch(line, -1) {
				for _, target := range strings.Fields(m[1]) {
					require.Regexp(t, `(?m)^`+target+`:`, makefile, "%s: %s", p.name, line)
				}
			}
		}
	}
}

// keys are the paths of all configuration keys; lists count as what they hold.
func keys(t *testing.T) map[string]bool {
	t.Helper()
	text, err := config.Example()
	require.NoError(t, err)
	var doc yaml.Node
	require.NoError(t, yaml.Unmarshal(text, &doc))
	found := map[string]bool{}
	var walk func(path string, n *yaml.Node)
	walk = func(path string, n *yaml.Node) {
		switch n.Kind {
		case yaml.MappingNode:
			for i := 0; i+1 < len(n.Content); i += 2 {
				key := strings.TrimPrefix(path+"."+n.Content[i].Value, ".")
				found[key] = true
				walk(key, n.Content[i+1])
			}
		case yaml.SequenceNode:
			for _, item := range n.Content {
				walk(path, item)
			}
		}
	}
	walk("", doc.Content[0])
	return found
}

func TestConfigurationKeysAreThere(t *testing.T) {
	known := keys(t)
	each(t, `^([a-z]+\.[a-z_]+(?:\.[a-z_]+)*)(?:: .*)?$`, func(p page, m []string) {
		section, _, _ := strings.Cut(m[1], ".")
		if !known[section] || section == "weft" {
			return
		}
		require.True(t, known[m[1]], "%s: `%s`", p.name, m[1])
	})
	names := map[string]bool{config.EnvFile: true, config.EnvLibCHDB: true}
	for key := range known {
		names[config.EnvName(key)] = true
	}
	for _, p := range pages(t) {
		for _, name := range regexp.MustCompile(`WEFT_[A-Z_]*[A-Z]`).FindAllString(p.text, -1) {
			require.True(t, names[name] || strings.HasPrefix(name, config.EnvTestPrefix), "%s: %s", p.name, name)
		}
	}
}

func TestTopicsAreThere(t *testing.T) {
	known := map[string]bool{}
	for _, s := range (topic.Set{Partitions: 1}).Specs() {
		known[s.Name] = true
	}
	each(t, `^(?:weft\.)?((?:events|identities|profiles|audiences|activations)\.[a-z]+)$`, func(p page, m []string) {
		require.True(t, known[m[1]], "%s: `%s`", p.name, m[1])
	})
}

func TestHeadersAreThere(t *testing.T) {
	headers := read(t, "schemas/headers.schema.json")
	each(t, `^weft-([a-z-]*)$`, func(p page, m []string) {
		if m[0] == "weft-" || made.MatchString(m[0]) {
			return
		}
		require.Contains(t, headers, `"`+m[0]+`"`, "%s", p.name)
	})
}

func TestTablesAndViewsAreThere(t *testing.T) {
	schema := ""
	files, err := filepath.Glob(filepath.Join(root, "schemas/clickhouse/*.sql"))
	require.NoError(t, err)
	for _, f := range files {
		b, err := os.ReadFile(f)
		require.NoError(t, err)
		schema += string(b)
	}
	defined := func(name string) bool {
		return regexp.MustCompile(`(?m)^CREATE [A-Z ]*\$\{database\}\.` + name + `$`).MatchString(schema)
	}
	require.False(t, defined("nowhere"))
	for _, p := range pages(t) {
		text := p.sql + strings.Join(p.spans, "\n")
		for _, m := range regexp.MustCompile(`\bweft\.([a-z_]+)\b([.-]?)`).FindAllStringSubmatch(text, -1) {
			name, more := m[1], m[2]
			if more != "" || name == "yaml" || name == "example" {
				continue // a topic, a group, or a file
			}
			require.True(t, defined(name), "%s: weft.%s", p.name, name)
		}
	}
	// What the analyst may read is what the analyst's page explains.
	analyst := read(t, "docs/analyst.md")
	for _, m := range regexp.MustCompile(`GRANT SELECT ON (weft\.[a-z_]+)`).FindAllStringSubmatch(read(t, "schemas/clickhouse/users.d/weft-analyst.xml"), -1) {
		require.Contains(t, analyst, "`"+m[1], "docs/analyst.md does not explain a view")
	}
}

// constants reads the text constants of a Go file whose names fit.
func constants(t *testing.T, file, names string) []string {
	t.Helper()
	var values []string
	for _, m := range regexp.MustCompile(`(?m)^\s+`+names+`\s+= "([^"]+)"`).FindAllStringSubmatch(read(t, file), -1) {
		values = append(values, m[1])
	}
	require.NotEmpty(t, values, file)
	return values
}

func TestEveryReasonIsExplained(t *testing.T) {
	explained := func(pageName string, values []string) {
		text := read(t, pageName)
		for _, v := range values {
			require.Contains(t, text, "`"+v+"`", pageName)
		}
	}
	explained("docs/journeys.md", constants(t, "pkg/journey/receipt.go", `Reason\w+`))
	explained("docs/http.md", constants(t, "pkg/event/errors.go", `\w+`))
	explained("docs/http.md", constants(t, "services/collector/intake.go", `reason\w+`))
	explained("docs/http.md", constants(t, "services/collector/answer.go", `code\w+`))
	explained("docs/http.md", constants(t, "services/identity-stitcher/plan.go", `[rR]eason\w+`))
	explained("docs/http.md", constants(t, "services/journey-writer/rows.go", `reason\w+`))
}

// The tree of CONTRIBUTING.md has every package, and nothing else.
func TestTreeIsThatOfTheRepository(t *testing.T) {
	text := read(t, "CONTRIBUTING.md")
	_, text, _ = strings.Cut(text, "## The tree\n\n```\n")
	text, _, ok := strings.Cut(text, "```")
	require.True(t, ok)
	listed := map[string]bool{}
	var stack []string
	for _, line := range strings.Split(strings.TrimSpace(text), "\n") {
		name := strings.TrimLeft(line, " ")
		depth := (len(line) - len(name)) / 2
		name, _, _ = strings.Cut(name, "/")
		stack = append(stack[:depth], name)
		dir := filepath.Join(stack...)
		listed[dir] = true
		require.True(t, exists(dir), "CONTRIBUTING.md: %s", dir)
	}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() && path != root && (strings.HasPrefix(name, ".") && name != ".." || name == "testdata" || name == "weft-data" || name == "internal") {
			return filepath.SkipDir
		}
		if filepath.Ext(name) != ".go" {
			return nil
		}
		dir, err := filepath.Rel(root, filepath.Dir(path))
		if err != nil {
			return err
		}
		if !listed[dir] {
			return fmt.Errorf("the tree of CONTRIBUTING.md lacks %s", dir)
		}
		return nil
	})
	require.NoError(t, err)
}

// Every benchmark stands among the hot paths, with its package.
func TestHotPathsNameEveryBenchmark(t *testing.T) {
	text := read(t, "docs/hotpaths.md")
	found := map[string]bool{}
	for _, top := range []string{"pkg", "services"} {
		err := filepath.WalkDir(filepath.Join(root, top), func(path string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, "_test.go") {
				return err
			}
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			for _, m := range regexp.MustCompile(`(?m)^func (Benchmark\w+)\(`).FindAllStringSubmatch(string(b), -1) {
				found[m[1]] = true
				if !strings.Contains(text, "`"+m[1]+"`") {
					return fmt.Errorf("docs/hotpaths.md lacks %s of %s", m[1], path)
				}
			}
			return nil
		})
		require.NoError(t, err)
	}
	each(t, `^(Benchmark\w+)$`, func(p page, m []string) { require.True(t, found[m[1]], "%s: `%s`", p.name, m[1]) })
}
