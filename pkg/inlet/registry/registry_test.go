package registry_test

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/inlet/registry"
	"github.com/weft-cdp/weft/pkg/inlet/registry/registrytest"
)

func start(t *testing.T) *registrytest.Server {
	s := registrytest.New()
	t.Cleanup(s.Close)
	return s
}

func client(t *testing.T, cfg config.SchemaRegistry) *registry.Client {
	c, err := registry.New(cfg, nil)
	require.NoError(t, err)
	return c
}

func TestSchemasWithReferences(t *testing.T) {
	s := start(t)
	s.Add("a/b", "AVRO", `"deep"`)
	s.Add("middle", "AVRO", `"middle"`, registrytest.Reference{Name: "deep", Subject: "a/b", Version: 1})
	id := s.Add("top", "JSON", `"top"`, registrytest.Reference{Name: "middle", Subject: "middle", Version: 1}, registrytest.Reference{Name: "deep", Subject: "a/b", Version: 1})
	got, err := client(t, config.SchemaRegistry{URL: s.URL + "/"}).Schema(t.Context(), id)
	require.NoError(t, err)
	require.Equal(t, registry.Schema{Type: registry.JSON, Text: `"top"`, References: []registry.Reference{{Name: "deep", Text: `"deep"`}, {Name: "middle", Text: `"middle"`}}}, got)
}

// Only what is about the schema itself is for ever; all else may be different later.
func TestWhatMayBeDifferentLater(t *testing.T) {
	s := start(t)
	id := s.Add("x", "AVRO", `"string"`)
	c := client(t, config.SchemaRegistry{URL: s.URL})
	_, err := c.Schema(t.Context(), 99)
	require.ErrorIs(t, err, registry.ErrNotFound)
	require.NotErrorIs(t, err, registry.ErrUnavailable)
	for _, status := range []int{http.StatusInternalServerError, http.StatusUnauthorized, http.StatusForbidden, http.StatusTooManyRequests, http.StatusMovedPermanently, http.StatusNoContent} {
		s.Answer(status)
		_, err := c.Schema(t.Context(), id)
		require.ErrorIs(t, err, registry.ErrUnavailable, status)
	}
	elsewhere := client(t, config.SchemaRegistry{URL: "http://127.0.0.1:1"})
	_, err = elsewhere.Schema(t.Context(), id)
	require.ErrorIs(t, err, registry.ErrUnavailable)

	s.Config.Handler = http.NotFoundHandler() // of a proxy, or a wrong address: not the registry's word
	_, err = c.Schema(t.Context(), id)
	require.ErrorIs(t, err, registry.ErrUnavailable)
	require.NotErrorIs(t, err, registry.ErrNotFound)
}

func TestAuthorization(t *testing.T) {
	s := start(t)
	id := s.Add("x", "AVRO", `"string"`)
	file := filepath.Join(t.TempDir(), "secret")
	require.NoError(t, os.WriteFile(file, []byte("s3cret\n"), 0o600))
	for want, cfg := range map[string]config.SchemaRegistry{
		"Bearer s3cret":          {URL: s.URL, TokenFile: file},
		"Basic YW5uOnMzY3JldA==": {URL: s.URL, Username: "ann", PasswordFile: file},
	} {
		s.Require(want)
		_, err := client(t, cfg).Schema(t.Context(), id)
		require.NoError(t, err)
		_, err = client(t, config.SchemaRegistry{URL: s.URL}).Schema(t.Context(), id)
		require.ErrorIs(t, err, registry.ErrUnavailable)
		require.NotContains(t, err.Error(), "s3cret")
	}
	_, err := client(t, config.SchemaRegistry{URL: s.URL, TokenFile: file + "x"}).Schema(t.Context(), id)
	require.ErrorIs(t, err, registry.ErrUnavailable)
	require.ErrorContains(t, err, "token_file")
	_, err = registry.New(config.SchemaRegistry{URL: "registry"}, nil)
	require.ErrorContains(t, err, "url:")
}

// A schema is asked for once, however many need it; one that cannot be fetched is asked for again; the number kept is
// bounded.
func TestCache(t *testing.T) {
	s := start(t)
	id := s.Add("x", "AVRO", `"string"`)
	made := 0
	cache := registry.NewCache(client(t, config.SchemaRegistry{URL: s.URL}), func(x registry.Schema) (string, error) {
		made++
		return x.Text, nil
	})
	s.Answer(http.StatusServiceUnavailable)
	for range 2 {
		_, err := cache.Get(t.Context(), id)
		require.ErrorIs(t, err, registry.ErrUnavailable)
	}
	require.Equal(t, 2, s.Requests())
	s.Answer(0)
	var group sync.WaitGroup
	for range 20 {
		group.Go(func() {
			got, err := cache.Get(t.Context(), id)
			if err != nil || got != `"string"` {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
	group.Wait()
	require.Equal(t, 3, s.Requests())
	require.Equal(t, 1, made)

	for i := range 2 {
		_, err := cache.Get(t.Context(), 1000)
		require.ErrorIs(t, err, registry.ErrNotFound)
		require.Equal(t, 4, s.Requests(), "not asked again at once, time %d", i)
	}
	for i := range registry.MaxCached {
		_, _ = cache.Get(t.Context(), uint32(2000+i))
	}
	before := s.Requests()
	_, err := cache.Get(t.Context(), id)
	require.NoError(t, err)
	require.Equal(t, before+1, s.Requests(), "it was put out by others")
	require.Equal(t, 2, made)
}

func TestCacheWaitsNoLongerThanItsCaller(t *testing.T) {
	wait := make(chan struct{})
	slow := http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-wait })}
	defer close(wait)
	s := start(t)
	s.Config.Handler = slow.Handler
	cache := registry.NewCache(client(t, config.SchemaRegistry{URL: s.URL, Timeout: time.Hour}), func(x registry.Schema) (string, error) { return x.Text, nil })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := cache.Get(ctx, 1)
	require.ErrorIs(t, err, registry.ErrUnavailable)
	require.True(t, errors.Is(err, context.Canceled) || strings.Contains(err.Error(), "canceled"))
}
