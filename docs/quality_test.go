package docs

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/plan"
	"github.com/weft-cdp/weft/pkg/transform"
)

// blocks are the fenced blocks of a page in a language.
func blocks(t *testing.T, page, lang string) []string {
	t.Helper()
	var out []string
	for i, part := range strings.Split(read(t, page), "```") {
		if text, ok := strings.CutPrefix(part, lang+"\n"); ok && i%2 == 1 {
			out = append(out, text)
		}
	}
	return out
}

// The snippets of the page are a source that can be configured, and a plan.
func TestQualitySnippetsWork(t *testing.T) {
	snippets := blocks(t, "docs/quality.md", "yaml")
	require.Len(t, snippets, 2)
	dir := t.TempDir()
	key, file := filepath.Join(dir, "hash.key"), filepath.Join(dir, "shop-web.yaml")
	require.NoError(t, os.WriteFile(key, []byte("0123456789abcdef"), 0o600))
	text := strings.NewReplacer("secrets/hash.key", key, "schemas/quality", filepath.Join(root, "schemas/quality")).Replace(snippets[0])
	require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	source, err := config.LoadSource(file)
	require.NoError(t, err)
	chain, err := transform.Compile(source.Transformations)
	require.NoError(t, err)
	r, err := chain.Apply([]byte(`{"event":"Bought","properties":{"total":119.90,"tax":19.90,"mail":"a@b.example","card":"4111","cvv":1,"message":"call me"}}`))
	require.NoError(t, err)
	require.Equal(t, `{"event":"Order Completed","properties":{"total":119.90,"tax":19.90,"message":"[redacted]","net":100},"traits":{"email":"a@b.example"}}`, string(r.Body))
	r, err = chain.Apply([]byte(`{"event":"Bought","context":{"page":{"url":"https://staging.shop.example/"}}}`))
	require.NoError(t, err)
	require.True(t, r.Dropped)

	p, err := plan.Parse([]byte(snippets[1]))
	require.NoError(t, err)
	require.Equal(t, []string{plan.Unplanned, "Order Completed", "identify"}, p.Rules())
}
