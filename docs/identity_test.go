package docs

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/weft-cdp/weft/pkg/identity"
	shipped "github.com/weft-cdp/weft/schemas/identity"
)

// The table of types is that of the shipped rules.
func TestIdentityTableIsTheShippedRules(t *testing.T) {
	rules, err := identity.NewRules(make([]byte, identity.KeyBytes), identity.Options{})
	require.NoError(t, err)
	var file struct {
		Types map[string]struct {
			Rank int
			Find yaml.Node
		}
	}
	require.NoError(t, yaml.Unmarshal(shipped.Rules(), &file))
	page := read(t, "docs/identity.md")
	rows := regexp.MustCompile("(?m)^\\| `[a-z_.]+` \\| `0x").FindAllString(page, -1)
	require.Len(t, rows, len(file.Types))
	for name, x := range file.Types {
		typ := rules.TypeOf(identity.Node{byte(x.Rank)})
		require.Equal(t, name, typ.Name)
		per := map[int]string{0: "ever", 7: "per week", 30: "per month", 365: "per year"}[int(typ.Limit.Per.Hours()/24)]
		what := map[bool]string{typ.Known: "known", typ.Device: "device", typ.Weak: "weak"}[true]
		row := fmt.Sprintf("| `%s` | `%#x` | %d | %d %s | %s |", name, typ.Rank, typ.Priority, typ.Limit.Values, per, what)
		at := strings.Index(page, row)
		require.GreaterOrEqual(t, at, 0, "the table lacks %s", row)
		line, _, _ := strings.Cut(page[at+len(row):], "\n")
		for _, place := range placesOf(&x.Find) {
			require.Contains(t, line, "`"+place+"`", name)
		}
	}
}

func placesOf(n *yaml.Node) (paths []string) {
	for _, x := range n.Content {
		if x.Kind == yaml.ScalarNode {
			paths = append(paths, x.Value)
			continue
		}
		for i := 0; i+1 < len(x.Content); i += 2 {
			if x.Content[i].Value == "path" {
				paths = append(paths, x.Content[i+1].Value)
			}
		}
	}
	return paths
}

// Each cell of the table of situations names a test, and there is no other test in that file.
func TestIdentityCellsAreTests(t *testing.T) {
	page, tests := read(t, "docs/identity.md"), read(t, "services/identity-stitcher/devices_test.go")
	named := regexp.MustCompile("\\(`(Test[A-Za-z]+)`\\)").FindAllStringSubmatch(page, -1)
	require.NotEmpty(t, named)
	for _, m := range named {
		require.Contains(t, tests, "func "+m[1]+"(t *testing.T)")
	}
	require.Equal(t, strings.Count(tests, "\nfunc Test"), len(named))
}
