package registry_test

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/inlet/registry"
)

// answers is a registry that says the same to everything.
type answers struct {
	status int
	body   string
}

func (a answers) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: a.status, Status: http.StatusText(a.status), Body: io.NopCloser(strings.NewReader(a.body)), Request: r}, nil
}

// Whatever the registry's address answers: a schema with a text, or an error that is for ever only where the registry itself
// has said so.
func FuzzAnswer(f *testing.F) {
	f.Add(200, `{"schema":"\"string\""}`)
	f.Add(200, `{"schema":"{}","schemaType":"JSON","references":[{"name":"a","subject":"a/b","version":1},{"name":"b","subject":"..","version":-1}]}`)
	f.Add(404, `{"error_code":40403,"message":"Schema not found"}`)
	f.Add(404, `<html>`)
	f.Add(500, ``)
	f.Add(200, `{"schema":7}`)
	f.Fuzz(func(t *testing.T, status int, body string) {
		c, err := registry.New(config.SchemaRegistry{URL: "http://registry.example"}, &http.Client{
			Transport: answers{status, body}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		})
		require.NoError(t, err)
		s, err := c.Schema(t.Context(), 7)
		switch {
		case err == nil && (s.Text == "" || s.Type == "" || status != 200):
			t.Fatalf("%d %q is the schema %+v", status, body, s)
		case err != nil && status != 200 && status != 404 && !errors.Is(err, registry.ErrUnavailable):
			t.Fatalf("%d %q is for ever: %v", status, body, err)
		case errors.Is(err, registry.ErrNotFound) && status != 404:
			t.Fatalf("%d %q says that there is none", status, body)
		}
	})
}
