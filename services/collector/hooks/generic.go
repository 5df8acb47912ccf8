package hooks

import (
	"bytes"
	"crypto/sha1" //nolint:gosec // as HMAC, for senders that know no other
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"strings"
	"time"

	"github.com/valyala/fastjson"

	"github.com/weft-cdp/weft/pkg/event"
)

// GenericOptions say how a webhook of any other system is signed and read.
type GenericOptions struct {
	Header          string // of the signature
	Algorithm       string // sha256, sha512 or sha1
	Encoding        string // of the signature: hex or base64
	Prefix          string // before the signature, such as "sha256="
	Signed          string // what is signed, with {body}, {timestamp} and {id}
	TimestampHeader string // Unix seconds of the signature; empty: it has no time
	IDHeader        string // of the delivery, the same when it comes again; empty: none
	// EventNames translates the names that the mapping makes; what it does not list is an unknown topic. Empty:
	// names are as they are mapped.
	EventNames map[string]string
	// Mapping makes an event of one payload, or of one element of a payload that is a list.
	Mapping func(record []byte) ([]byte, error)
}

// generic reads any signed JSON.
type generic struct {
	GenericOptions
	secrets   [][]byte
	tolerance time.Duration
	newHash   func() hash.Hash
	decode    func(string) ([]byte, error)
	event     event.Path
}

func newGeneric(opt Options) (*generic, error) {
	g := &generic{GenericOptions: opt.Generic, secrets: opt.Secrets, tolerance: opt.Tolerance}
	var errs []error
	var err error
	if g.event, err = event.ParsePath("event"); err != nil {
		errs = append(errs, err)
	}
	if g.Header == "" {
		errs = append(errs, errors.New("header: which header has the signature?"))
	}
	if g.Mapping == nil {
		errs = append(errs, errors.New("mapping: empty: a generic webhook needs one"))
	}
	switch g.Algorithm {
	case "", "sha256":
		g.newHash = sha256.New
	case "sha512":
		g.newHash = sha512.New
	case "sha1":
		g.newHash = sha1.New
	default:
		errs = append(errs, fmt.Errorf("algorithm: %q is not sha256, sha512 or sha1", g.Algorithm))
	}
	switch g.Encoding {
	case "", "hex":
		g.decode = hex.DecodeString
	case "base64":
		g.decode = base64.StdEncoding.DecodeString
	default:
		errs = append(errs, fmt.Errorf("encoding: %q is not hex or base64", g.Encoding))
	}
	if g.Signed == "" {
		g.Signed = "{body}"
	}
	if !strings.Contains(g.Signed, "{body}") {
		errs = append(errs, fmt.Errorf("signed: %q leaves the {body} out: anybody could send another", g.Signed))
	}
	for _, x := range []struct{ name, field, header string }{
		{"{timestamp}", "timestamp_header", g.TimestampHeader}, {"{id}", "id_header", g.IDHeader},
	} {
		if strings.Contains(g.Signed, x.name) && x.header == "" {
			errs = append(errs, fmt.Errorf("%s: empty, but signed has %s", x.field, x.name))
		}
	}
	if g.TimestampHeader != "" && !strings.Contains(g.Signed, "{timestamp}") {
		errs = append(errs, errors.New("timestamp_header: signed has no {timestamp}: an unsigned time proves nothing"))
	}
	return g, errors.Join(errs...)
}

// maxSignatures bounds how many signatures one header may list; while a secret is changed there are two.
const maxSignatures = 8

// Verify takes any of the signatures that the header lists, separated by spaces or commas.
func (g *generic) Verify(d *Delivery) error {
	var at, id string
	if g.TimestampHeader != "" {
		if at = d.Header(g.TimestampHeader); !inTime(at, d.Received, g.tolerance) {
			return ErrUnsigned
		}
	}
	if g.IDHeader != "" {
		id = d.Header(g.IDHeader)
	}
	before, after, _ := strings.Cut(g.Signed, "{body}")
	fill := strings.NewReplacer("{timestamp}", at, "{id}", id)
	parts := [][]byte{[]byte(fill.Replace(before)), d.Body, []byte(fill.Replace(after))}
	listed := strings.FieldsFunc(d.Header(g.Header), func(r rune) bool { return r == ' ' || r == ',' })
	for _, s := range listed[:min(len(listed), maxSignatures)] {
		s, ok := strings.CutPrefix(s, g.Prefix)
		if !ok {
			continue
		}
		if mac, err := g.decode(s); err == nil && signed(g.newHash, g.secrets, mac, parts...) {
			return nil
		}
	}
	return ErrUnsigned
}

// Headers implements Hook.
func (g *generic) Headers() []string {
	if g.IDHeader == "" {
		return nil
	}
	return []string{g.IDHeader}
}

func (g *generic) Events(d *Delivery) Result {
	var res Result
	v := parse(d.Body, &res)
	if v == nil {
		return res
	}
	delivery := ""
	if g.IDHeader != "" {
		delivery = d.Header(g.IDHeader)
	}
	items := [][]byte{d.Body}
	if v.Type() == fastjson.TypeArray {
		items = event.Elements(bytes.TrimSpace(d.Body))
	}
	for i, item := range items {
		id := digest(item)
		if delivery != "" {
			id = delivery
			if len(items) > 1 {
				id = fmt.Sprintf("%s:%d", delivery, i)
			}
		}
		n := len(res.Refused)
		g.item(item, id, &res)
		for r := n; r < len(res.Refused); r++ {
			res.Refused[r].ID = id
		}
	}
	return res
}

func (g *generic) item(item []byte, id string, res *Result) {
	body, err := g.Mapping(item)
	if err == nil {
		body, err = event.Compose(body, event.Filling{MessageID: func() string { return id }})
	}
	var e *event.Event
	if err == nil {
		e, err = event.Decode(body, event.Meta{})
	}
	if err != nil {
		reason := event.Reason(err, event.InvalidJSON)
		res.refuse(item, reason, "", "%v", err)
		return
	}
	if len(g.EventNames) > 0 && e.Type == event.Track {
		name, ok := g.EventNames[e.Name]
		if !ok {
			res.refuse(item, UnknownTopic, "event", "%.80q is not in event_names", e.Name)
			return
		}
		if name == "" { // listed as one that means nothing
			res.Ignored++
			return
		}
		body = g.event.Replace(body, func([]byte) []byte { return event.AppendJSONString(nil, name) })
	}
	res.Events = append(res.Events, body)
}
