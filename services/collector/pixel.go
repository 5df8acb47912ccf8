package collector

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/weft-cdp/weft/pkg/event"
)

// pixelImage is a transparent GIF of one pixel: an answer that a browser or a mail program shows as nothing, also with
// the status of an error.
const pixelImage = "GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff!\xf9\x04\x01\x00\x00\x00\x00,\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00;"

// headerPixelError tells the code of an error, since the body is an image.
const headerPixelError = "X-Weft-Error"

// keyParameter and dataParameter are the names of a pixel's parameters that are not members of the event.
const (
	keyParameter  = "writeKey"
	dataParameter = "data"
)

// pixel takes one event from a URL, for places that can show an image and nothing else, such as a mail. It comes as
// base64 of JSON (data=..., Segment's form) or as parameters whose names are paths in the event (userId=u&properties.a=b,
// the form of both Segment and RudderStack). A compatible source answers 200 also where the event is of no use, as Segment
// does.
func (d *door) pixel(r *http.Request, ep endpoint, path string) answer {
	switch r.Method {
	case http.MethodHead: // a scanner looks whether there is something
		return image(answer{status: http.StatusOK})
	case http.MethodGet:
	default:
		return notAllowed(http.MethodGet)
	}
	query := r.URL.Query()
	c := d.begin(r, ep, path)
	a := d.pixelCall(&c, query, r.URL.RawQuery)
	if s := c.source; s != nil && !s.strict && a.status == http.StatusBadRequest {
		a.status = http.StatusOK
	}
	return image(a)
}

func (d *door) pixelCall(c *call, query url.Values, raw string) answer {
	if c.source == nil && c.final {
		return unknownKey()
	}
	if c.source != nil {
		if a, refused := d.refusal(c); refused {
			return a
		}
	}
	body, err := pixelBody(query)
	switch {
	case err != nil && c.source != nil:
		return d.keep(c, err, []byte(withoutKey(raw)))
	case err != nil:
		return refuse(http.StatusBadRequest, event.Reason(err, event.InvalidJSON), err.Error())
	}
	room := &lease{b: d.budget, of: d.shareOf(c.source)}
	defer room.release()
	if !room.grow(len(body)) {
		return d.noRoom(c.source)
	}
	return d.taken(c, body, room)
}

// withoutKey is a query as it came, but its parameters that are the write key.
func withoutKey(raw string) string {
	var kept []string
	for parameter := range strings.SplitSeq(raw, "&") {
		name, _, _ := strings.Cut(parameter, "=")
		if plain, err := url.QueryUnescape(name); err == nil && plain == keyParameter {
			continue
		}
		kept = append(kept, parameter)
	}
	return strings.Join(kept, "&")
}

// image is the answer with the image in place of its body.
func image(a answer) answer {
	a.body, a.contentType = []byte(pixelImage), "image/gif"
	a.header = append(a.header, [2]string{"Cache-Control", "no-store, private"})
	if a.code != "" {
		a.header = append(a.header, [2]string{headerPixelError, a.code})
	}
	return a
}

// pixelBody makes the event of a pixel's parameters. The error is an *event.Error.
func pixelBody(query url.Values) ([]byte, error) {
	data := query.Get(dataParameter)
	if data == "" {
		return bodyOfParameters(query)
	}
	if strings.HasPrefix(strings.TrimSpace(data), "{") {
		return []byte(data), nil // was not encoded at all
	}
	// In a URL a plus sign is a space; both alphabets are in use, with padding and without.
	plain := strings.NewReplacer(" ", "+", "-", "+", "_", "/").Replace(strings.TrimRight(data, "= "))
	body, err := base64.RawStdEncoding.DecodeString(plain)
	if err != nil {
		return nil, &event.Error{Reason: event.InvalidJSON, Path: dataParameter, Detail: "is neither base64 nor JSON"}
	}
	return body, nil
}

// bodyOfParameters nests parameters by the dots in their names; all values are text. Of equal names the first counts.
func bodyOfParameters(query url.Values) ([]byte, error) {
	root := map[string]any{}
	for _, name := range slices.Sorted(maps.Keys(query)) { // a comes before a.b
		if name == keyParameter || name == "" {
			continue
		}
		at, path := root, strings.Split(name, ".")
		if len(path) > event.MaxDepth {
			return nil, &event.Error{Reason: event.TooDeep, Detail: fmt.Sprintf("a parameter's name has %d parts, at most %d", len(path), event.MaxDepth)}
		}
		for _, part := range path[:len(path)-1] {
			if _, there := at[part]; !there {
				at[part] = map[string]any{}
			}
			below, isObject := at[part].(map[string]any)
			if !isObject {
				return nil, &event.Error{Reason: event.InvalidType, Path: fmt.Sprintf("%.100s", name), Detail: "stands below a parameter that has a value itself"}
			}
			at = below
		}
		if _, there := at[path[len(path)-1]]; there {
			return nil, &event.Error{Reason: event.InvalidType, Path: fmt.Sprintf("%.100s", name), Detail: "has a value, and parameters stand below it"}
		}
		at[path[len(path)-1]] = query.Get(name)
	}
	body, err := json.Marshal(root)
	if err != nil {
		return nil, &event.Error{Reason: event.InvalidJSON, Detail: err.Error()} // cannot be: texts
	}
	return body, nil
}
