// Package registrytest is a schema registry for tests: Confluent's read API over HTTP, in memory.
//
// It owns what it was given. It guarantees the answers of Confluent's registry to the two requests that package registry
// makes, and, when told so, those of one that is away. It must not be used outside of tests.
package registrytest

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
)

// Reference is a schema that another one names.
type Reference struct {
	Name    string `json:"name"`
	Subject string `json:"subject"`
	Version int    `json:"version"`
}

type schema struct {
	ID         uint32      `json:"id"`
	Version    int         `json:"version"`
	Type       string      `json:"schemaType,omitempty"`
	Text       string      `json:"schema"`
	References []Reference `json:"references,omitempty"`
	subject    string
}

// Server is a running registry.
type Server struct {
	*httptest.Server

	mu       sync.Mutex
	schemas  []schema
	status   int    // answered to everything, if not 0
	auth     string // the Authorization header that is wanted; "" for any
	requests int
}

// New starts a registry; close it.
func New() *Server {
	s := &Server{}
	s.Server = httptest.NewServer(http.HandlerFunc(s.serve))
	return s
}

// Add registers a schema as the next version of a subject and gives its id. typ is AVRO, JSON or PROTOBUF.
func (s *Server) Add(subject, typ, text string, references ...Reference) uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	version := 1
	for i := range s.schemas {
		if s.schemas[i].subject == subject {
			version++
		}
	}
	if typ == "AVRO" {
		typ = "" // as the real one answers
	}
	id := uint32(len(s.schemas) + 1) //nolint:gosec // a handful
	s.schemas = append(s.schemas, schema{ID: id, Version: version, Type: typ, Text: text, References: references, subject: subject})
	return id
}

// Answer makes it answer everything with a status; 0: as it should.
func (s *Server) Answer(status int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status = status
}

// Require makes it refuse requests without this Authorization header.
func (s *Server) Require(authorization string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.auth = authorization
}

// Requests is how many it had.
func (s *Server) Requests() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests
}

// Frame puts the header of Confluent's wire format before a value.
func Frame(id uint32, value []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{0}, id), value...)
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests++
	w.Header().Set("Content-Type", "application/vnd.schemaregistry.v1+json")
	switch {
	case s.status != 0:
		answer(w, s.status, s.status*100+1, "told to")
		return
	case s.auth != "" && r.Header.Get("Authorization") != s.auth:
		answer(w, http.StatusUnauthorized, 40101, "Unauthorized")
		return
	}
	var id, subject, version string
	parts := splitPath(r.URL.EscapedPath())
	switch {
	case len(parts) == 3 && parts[0] == "schemas" && parts[1] == "ids":
		id = parts[2]
	case len(parts) == 4 && parts[0] == "subjects" && parts[2] == "versions":
		subject, version = parts[1], parts[3]
	}
	for _, x := range s.schemas {
		if strconv.FormatUint(uint64(x.ID), 10) == id || subject != "" && x.subject == subject && strconv.Itoa(x.Version) == version {
			_ = json.NewEncoder(w).Encode(x)
			return
		}
	}
	answer(w, http.StatusNotFound, 40403, "Schema not found")
}

func answer(w http.ResponseWriter, status, code int, text string) {
	w.WriteHeader(status)
	fmt.Fprintf(w, `{"error_code":%d,"message":%q}`, code, text)
}

// splitPath takes the escaped path apart, so that a subject may have a slash.
func splitPath(path string) []string {
	var parts []string
	for part := range strings.SplitSeq(strings.Trim(path, "/"), "/") {
		if text, err := url.PathUnescape(part); err == nil {
			part = text
		}
		parts = append(parts, part)
	}
	return parts
}
