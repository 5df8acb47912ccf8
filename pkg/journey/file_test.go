package journey_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/weft-cdp/weft/pkg/journey"
	"github.com/weft-cdp/weft/schemas/journeys"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestShippedJourneysAreWithoutFault(t *testing.T) {
	entries, err := journeys.Files.ReadDir(".")
	require.NoError(t, err)
	require.NotEmpty(t, entries)
	for _, e := range entries {
		b, err := journeys.Files.ReadFile(e.Name())
		require.NoError(t, err)
		j, faults := journey.Parse(e.Name(), b)
		require.Empty(t, faults)
		require.Equal(t, j.Name+".yaml", e.Name())
	}
}

// Every fault, with its line, at once.
func TestEveryFaultIsNamed(t *testing.T) {
	src := `name: Abandoned Cart
delay: 60
cancel: never
chanel: email
channel: pigeon
purpose: fun
minimum_value: lots
from: "shop"
brands: [main, main, ""]
subject: '{{.Nope}} {{if}}'
text: |
  Hello {{.Person.FirstName}}
  {{if .Cart.Checkout}}{{.Cart.Weight}}{{else}}{{$.Missing}}{{end}}
  {{range $i, $l := .Lines}}{{$l.Naem}}{{with $l.Price}}{{.Exponnt}}{{end}}{{end}}
  {{define "row"}}{{.Kaput}}{{end}}{{range .Lines}}{{template "row" .}}{{end}}
html: |
  <p>ok</p>
  {{if .MoreLines}}<a href="{{end}}x</a>
delay: 2h
`
	_, faults := journey.Parse("dir/cart.yaml", []byte(src))
	var got []string
	for _, f := range faults {
		got = append(got, f.String())
	}
	want := []string{
		`dir/cart.yaml: arms: is missing`,
		`dir/cart.yaml:1: name: "Abandoned Cart": want small letters`,
		`dir/cart.yaml:2: delay: "60": want a duration with its unit, such as 45m`,
		`dir/cart.yaml:3: cancel: "never": want order`,
		`dir/cart.yaml:4: chanel: is not a field of a journey; known are name, description`,
		`dir/cart.yaml:5: channel: "pigeon": want email or webhook`,
		`dir/cart.yaml:6: purpose: "fun": want marketing`,
		`dir/cart.yaml:7: minimum_value: "lots": want an amount`,
		`dir/cart.yaml:8: from: "shop": want an address, such as Shop <shop@example.com>`,
		`dir/cart.yaml:9: brands: "main" stands twice`,
		`dir/cart.yaml:9: brands: holds an empty name`,
		`dir/cart.yaml:10: subject: missing value for if`,
		`dir/cart.yaml:13: text: .Cart.Weight: there is no Weight; there are ID, Value, Currency, Items, Checkout`,
		`dir/cart.yaml:13: text: $.Missing: there is no Missing; there are Brand, Person, Cart`,
		`dir/cart.yaml:14: text: $l.Naem: there is no Naem; there are ProductID, SKU, Name`,
		`dir/cart.yaml:14: text: .Exponnt: there is no Exponnt`,
		`dir/cart.yaml:15: text: .Kaput: there is no Kaput`,
		`dir/cart.yaml:18: html: {{if}} branches end in different contexts`,
		`dir/cart.yaml:19: delay: stands twice, first on line 2`,
	}
	require.Len(t, got, len(want), strings.Join(got, "\n"))
	for i := range want {
		require.True(t, strings.HasPrefix(got[i], want[i]), "%s\nis not\n%s", got[i], want[i])
	}
}

func TestFaultsOfAWholeFile(t *testing.T) {
	for src, want := range map[string]string{
		"":                             "f.yaml: is empty",
		"# nothing\n":                  "f.yaml: is empty",
		"- a\n":                        "f.yaml:1: want fields",
		"name: x\n\tdelay: 1h\n":       "f.yaml:2: found a tab character",
		"name: [a\n":                   "f.yaml:",
		journeyFile + "---\nname: y\n": "f.yaml:12: one journey per file",
		strings.Replace(journeyFile, "delay: 1h", "delay: -1h", 1):                           "f.yaml:3: delay: -1h: want more than 0",
		strings.Replace(journeyFile, "delay: 1h", "delay: 800h", 1):                          "f.yaml:3: delay: 800h: want more than 0 and at most 30 days",
		strings.Replace(journeyFile, "delay: 1h", "delay: {a: 1}", 1):                        "f.yaml:3: delay: want a single value",
		strings.Replace(journeyFile, "{{range .Lines}}", "{{range .Lines.X}}", 1):            "f.yaml:10: text: .Lines.X: there is no X",
		strings.Replace(journeyFile, "{{range .Lines}}", "{{range .Lines", 1):                "f.yaml:10: text: ",
		strings.Replace(journeyFile, "money .Total .Currency", "money .Total", 1):            "f.yaml:10: text: ",
		strings.Replace(journeyFile, "money .Total .Currency", "muney .Total", 1):            "f.yaml:10: text: function \"muney\" not defined",
		strings.Replace(journeyFile, "from: Shop <shop@example.com>", "from: 'a\n\n  b'", 1): "f.yaml:7: from: ",
		strings.Replace(journeyFile, "from: Shop <shop@example.com>\n", "", 1):               "f.yaml: from: is missing",
		strings.Replace(journeyFile, "minimum_value: 5", "minimum_value: -1", 1):             "f.yaml:6: minimum_value: ",
		strings.Replace(journeyFile, "minimum_value: 5", "brands: main", 1):                  "f.yaml:6: brands: want a list",
		strings.Repeat("# long\n", 1<<18):                                                    "f.yaml: has 1835008 bytes",
	} {
		j, faults := journey.Parse("f.yaml", []byte(src))
		require.Nil(t, j)
		require.NotEmpty(t, faults, src)
		require.True(t, strings.HasPrefix(faults[0].String(), want), "%s\nis not\n%s", faults[0], want)
	}
}

func TestParseNeverPanics(t *testing.T) {
	words := rapid.SampledFrom([]string{"name: a\n", "text: |\n", "  {{range .Lines}}", "{{end}}", "{{.", "x: ", "- ", "{{with $x := .Cart}}{{$x.ID}}{{end}}", "\n", "'", "html: >\n", "  a\n", "&a ", "*a", "{{template \"x\" .}}", "{{define \"x\"}}", "{{(index .Lines 0).Name}}"})
	rapid.Check(t, func(t *rapid.T) {
		j, faults := journey.Parse("f", []byte(strings.Join(rapid.SliceOf(words).Draw(t, "src"), "")))
		if (j == nil) == (len(faults) == 0) {
			t.Fatal("a journey or faults, never both or neither")
		}
	})
}

func TestVersion(t *testing.T) {
	j := parse(t, journeyFile)
	require.Len(t, j.Version, 12)
	require.Equal(t, j.Version, parse(t, strings.ReplaceAll(journeyFile, "\n", "\r\n")+"\r\n\r\n").Version, "line ends are of no matter")
	require.NotEqual(t, j.Version, parse(t, journeyFile+"# a word\n").Version)
	again := parse(t, string(j.Source))
	require.Equal(t, j.Version, again.Version, "the source gives the same version again")
	require.True(t, j.In("any"))
	only := parse(t, journeyFile+"brands: [main]\n")
	require.True(t, only.In("main"))
	require.False(t, only.In("outlet"))
}

func TestWhatCustomersSendStaysText(t *testing.T) {
	d := decider(parse(t, journeyFile+`html: '{{range .Lines}}<a href="{{.URL}}">{{.Name}}</a>{{end}}'
`))
	h := newShop(t, d).reachable()
	h.now = h.now.Add(time.Millisecond)
	h.send(h.now, `"type":"identify","traits":{"firstName":"Ada\r\nBcc: eve@example.com","email":"ada@example.com"}`)
	h.send(h.now, `"type":"track","event":"Product Added","properties":{"product_id":"p","name":"<script>x</script>\u202e`+strings.Repeat("y", 400)+`","url":"javascript:alert(1)","price":10}`)
	h.wait(2 * time.Hour)
	require.Len(t, h.requests, 1)
	m := h.requests[0]
	require.Equal(t, "Ada Bcc: eve@example.com, 1 items", m.Subject)
	require.NotContains(t, m.HTML, "<script>")
	require.NotContains(t, m.HTML, "javascript")
	require.NotContains(t, m.Text, "\u202e")
	require.Less(t, len(m.Text), 300)
}

func TestPreview(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cart.yaml")
	require.NoError(t, os.WriteFile(path, []byte(journeyFile), 0o600))
	m, err := journey.Preview(path, nil, noon)
	require.NoError(t, err)
	require.Equal(t, "Ada, 4 items", m.Subject)
	require.Contains(t, m.Text, "First Flush Darjeeling 38.70 EUR\nStoneware teapot 46.00 EUR\nhttps://example.com/")

	cart := `{"cart_id":"c","currency":"JPY","first_name":"Bo","products":[{"product_id":"1","name":"Pen","price":"120.4","quantity":2}]}`
	m, err = journey.Preview(path, []byte(cart), noon)
	require.NoError(t, err)
	require.Equal(t, "Bo, 2 items", m.Subject)
	require.Contains(t, m.Text, "Pen 241 JPY")

	_, err = journey.Preview(path, []byte(`{"products":[]}`), noon)
	require.ErrorIs(t, err, journey.ErrEmptyCart)
	_, err = journey.Preview(path, []byte(`{"products":[{"product_id":"1","price":"dear"}]}`), noon)
	require.ErrorContains(t, err, "properties.products[0].price")
	_, err = journey.Preview(path, []byte(`{`), noon)
	require.Error(t, err)

	require.NoError(t, os.WriteFile(path, []byte("name: x\n"), 0o600))
	_, err = journey.Preview(path, nil, noon)
	var faults journey.Faults
	require.ErrorAs(t, err, &faults)
	require.Equal(t, len(faults)-1, strings.Count(err.Error(), "\n"))
	_, missing := journey.Check(filepath.Join(t.TempDir(), "none.yaml"))
	require.Len(t, missing, 1)
	require.Contains(t, missing[0].String(), "no such file")
}

func TestLongMessagesAreRefused(t *testing.T) {
	long := parse(t, strings.Replace(journeyFile, "{{.UnsubscribeURL}}", `{{range .Lines}}{{printf "%2000s" .Name}}{{end}}{{if gt (len .Lines) 2}}{{range .Lines}}{{printf "%99999s" .Name}}{{end}}{{end}}`, 1))
	h := newShop(t, decider(long)).reachable()
	for _, p := range []string{"a", "b", "c"} {
		h.add("c1", p)
	}
	h.wait(2 * time.Hour)
	r := h.only(journey.Failed, journey.ReasonTemplate)
	require.Contains(t, r.Detail, journey.ErrTooLong.Error())
	require.True(t, bytes.Contains([]byte(r.Detail), []byte("text")))
}
