// Package registry asks a schema registry with Confluent's API for schemas by their ids.
//
// It owns: the requests, what their answers mean, and a bounded cache of what was made of the schemas.
//
// It guarantees: ErrUnavailable is every outcome that may be different later (no answer, 5xx, a refused log-in, an answer
// that is none of a registry's), and only those; any other error is about the schema itself. A schema never changes, so it
// is asked for once. It must not know what is in the records.
package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/weft-cdp/weft/pkg/config"
)

// ErrUnavailable says that the registry gives no answer that counts.
var ErrUnavailable = errors.New("the schema registry does not answer")

// ErrNotFound says that the registry has no such schema.
var ErrNotFound = errors.New("the registry has no such schema")

// Types of schemas.
const (
	Avro     = "AVRO"
	JSON     = "JSON"
	Protobuf = "PROTOBUF"
)

const (
	// maxSchemaBytes bounds one answer: generated schemas of hundreds of columns have 100 KB.
	maxSchemaBytes = 1 << 20
	// maxReferences bounds the schemas that one schema stands on, all levels together.
	maxReferences = 64
	// defaultTimeout bounds one request.
	defaultTimeout = 5 * time.Second
	// maxSecretBytes bounds the file of a password or token.
	maxSecretBytes = 64 << 10
)

// Schema is one schema with all it refers to.
type Schema struct {
	Type       string // Avro, JSON, ...
	Text       string
	References []Reference // each after those that it refers to itself
}

// Reference is a schema that another one names.
type Reference struct {
	Name string // by which it is referred to
	Text string
}

// Client asks one registry. It is safe for concurrent use.
type Client struct {
	base    *url.URL
	cfg     config.SchemaRegistry
	http    *http.Client
	timeout time.Duration
}

// New checks cfg. client may be nil.
func New(cfg config.SchemaRegistry, client *http.Client) (*Client, error) {
	base, err := url.Parse(cfg.URL)
	if err != nil || base.Host == "" || base.Scheme != "http" && base.Scheme != "https" {
		return nil, fmt.Errorf("url: want http://... or https://..., found %q", cfg.URL)
	}
	if client == nil {
		tls, err := cfg.TLS.Load()
		if err != nil {
			return nil, fmt.Errorf("tls: %w", err)
		}
		transport := &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: tls, MaxIdleConnsPerHost: 2, IdleConnTimeout: time.Minute}
		client = &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	}
	c := &Client{base: base, cfg: cfg, http: client, timeout: cfg.Timeout}
	if c.timeout <= 0 {
		c.timeout = defaultTimeout
	}
	return c, nil
}

// answer is what the registry says of a schema.
type answer struct {
	Schema     string `json:"schema"`
	SchemaType string `json:"schemaType"` // absent: Avro
	References []struct {
		Name    string `json:"name"`
		Subject string `json:"subject"`
		Version int    `json:"version"`
	} `json:"references"`
}

// Schema fetches a schema and what it refers to.
func (c *Client) Schema(ctx context.Context, id uint32) (Schema, error) {
	a, err := c.get(ctx, "schemas", "ids", strconv.FormatUint(uint64(id), 10))
	if err != nil {
		return Schema{}, err
	}
	s := Schema{Type: a.SchemaType, Text: a.Schema}
	if s.Type == "" {
		s.Type = Avro
	}
	seen := map[string]bool{}
	if err := c.references(ctx, a, &s, seen); err != nil {
		return Schema{}, err
	}
	return s, nil
}

// references adds what a refers to, the deepest first.
func (c *Client) references(ctx context.Context, a answer, s *Schema, seen map[string]bool) error {
	for _, ref := range a.References {
		if seen[ref.Name] {
			continue
		}
		if len(seen) == maxReferences {
			return fmt.Errorf("it refers to more than %d others", maxReferences)
		}
		seen[ref.Name] = true
		next, err := c.get(ctx, "subjects", ref.Subject, "versions", strconv.Itoa(ref.Version))
		if err != nil {
			return fmt.Errorf("reference %s: %w", ref.Name, err)
		}
		if err := c.references(ctx, next, s, seen); err != nil {
			return err
		}
		s.References = append(s.References, Reference{ref.Name, next.Schema})
	}
	return nil
}

func (c *Client) get(ctx context.Context, path ...string) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	unavailable := func(why any) (answer, error) { return answer{}, fmt.Errorf("%w: %v", ErrUnavailable, why) }
	for i := range path {
		path[i] = url.PathEscape(path[i])
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base.String(), nil)
	if err != nil {
		return unavailable(err)
	}
	req.URL.RawPath = strings.TrimSuffix(c.base.EscapedPath(), "/") + "/" + strings.Join(path, "/")
	if req.URL.Path, err = url.PathUnescape(req.URL.RawPath); err != nil {
		return unavailable(err)
	}
	req.Header.Set("Accept", "application/vnd.schemaregistry.v1+json, application/json")
	if err := c.authorize(req); err != nil {
		return unavailable(err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return unavailable(err)
	}
	defer resp.Body.Close() //nolint:errcheck // it was only read
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxSchemaBytes+1))
	switch {
	case err != nil:
		return unavailable(err)
	case resp.StatusCode == http.StatusNotFound && isRegistryError(body):
		return answer{}, ErrNotFound
	case resp.StatusCode != http.StatusOK:
		return unavailable(fmt.Sprintf("GET %s: %s", req.URL.Redacted(), resp.Status))
	case len(body) > maxSchemaBytes:
		return answer{}, fmt.Errorf("it has more than %d bytes", maxSchemaBytes)
	}
	var a answer
	if err := json.Unmarshal(body, &a); err != nil || a.Schema == "" {
		return unavailable(fmt.Sprintf("GET %s: the answer is none of a registry", req.URL.Redacted()))
	}
	return a, nil
}

// isRegistryError tells a registry's own 404 from that of a proxy or a wrong address. Codes 40401 to 40499 are about
// what is not there.
func isRegistryError(body []byte) bool {
	var e struct {
		Code int `json:"error_code"`
	}
	return json.Unmarshal(body, &e) == nil && e.Code/100 == 404
}

// authorize reads the secret each time, so that it can be replaced while running.
func (c *Client) authorize(req *http.Request) error {
	switch {
	case c.cfg.TokenFile != "":
		token, err := secret(c.cfg.TokenFile)
		if err != nil {
			return fmt.Errorf("token_file: %w", err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
	case c.cfg.Username != "":
		password, err := secret(c.cfg.PasswordFile)
		if err != nil {
			return fmt.Errorf("password_file: %w", err)
		}
		req.SetBasicAuth(c.cfg.Username, password)
	}
	return nil
}

func secret(file string) (string, error) {
	f, err := os.Open(file) //nolint:gosec // the path is the operator's
	if err != nil {
		return "", err
	}
	defer f.Close() //nolint:errcheck // it was only read
	text, err := io.ReadAll(io.LimitReader(f, maxSecretBytes))
	return strings.TrimSpace(string(text)), err
}
