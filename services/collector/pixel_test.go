package collector

import (
	"encoding/base64"
	"image/gif"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weft-cdp/weft/pkg/event"
	"github.com/weft-cdp/weft/pkg/topic"
)

const pixelEvent = `{"writeKey":"wk_demo","userId":"u","event":"Email Opened","properties":{"subject":"ÿ?>~ü"}}`

// Every spelling of a pixel's URL gives the event, and an image.
func TestPixel(t *testing.T) {
	img, err := gif.Decode(strings.NewReader(pixelImage))
	require.NoError(t, err)
	require.Equal(t, 1, img.Bounds().Dx()*img.Bounds().Dy())
	_, _, _, alpha := img.At(0, 0).RGBA()
	require.Zero(t, alpha, "transparent")

	std, urlSafe := base64.StdEncoding.EncodeToString([]byte(pixelEvent)), base64.URLEncoding.EncodeToString([]byte(pixelEvent))
	require.NotEqual(t, std, urlSafe, "the sample must tell the alphabets apart")
	f := newFixture(t)
	for name, target := range map[string]string{
		"url alphabet":   "/v1/pixel/track?data=" + urlSafe,
		"no padding":     "/v1/pixel/track?data=" + strings.TrimRight(urlSafe, "="),
		"std alphabet":   "/v1/pixel/track?data=" + url.QueryEscape(std),
		"plus as it is":  "/v1/pixel/track?data=" + std,
		"slash at end":   "/v1/pixel/track/?data=" + urlSafe,
		"short name":     "/v1/pixel/t?data=" + urlSafe,
		"rudder's path":  "/pixel/v1/track?data=" + urlSafe,
		"JSON itself":    "/v1/pixel/track?data=" + url.QueryEscape(pixelEvent),
		"parameters":     "/pixel/v1/track?writeKey=wk_demo&userId=u&event=Email%20Opened&properties.subject=" + url.QueryEscape("ÿ?>~ü"),
		"key outside":    "/v1/pixel/track?writeKey=wk_demo&data=" + base64.URLEncoding.EncodeToString([]byte(strings.Replace(pixelEvent, `"writeKey":"wk_demo",`, "", 1))),
		"doubled params": "/pixel/v1/track?writeKey=wk_demo&userId=u&userId=v&event=Email%20Opened&properties.subject=" + url.QueryEscape("ÿ?>~ü"),
	} {
		t.Run(name, func(t *testing.T) {
			w := f.do("GET", target, "", "")
			require.Equal(t, 200, w.Code, w.Header())
			require.Equal(t, "image/gif", w.Header().Get("Content-Type"))
			require.Equal(t, pixelImage, w.Body.String())
			require.Contains(t, w.Header().Get("Cache-Control"), "no-store")
			require.Empty(t, w.Header().Get(headerPixelError))
			rec := one(t, f.collected.take())
			e, err := event.Decode(rec.Value, event.Meta{})
			require.NoError(t, err)
			require.Equal(t, event.Track, e.Type)
			require.Equal(t, "Email Opened", e.Name)
			require.Equal(t, "u", e.UserID)
			require.Equal(t, "ÿ?>~ü", event.Text(e.Property("subject")))
			require.Equal(t, "web", header(t, rec, topic.HeaderSource))
			require.Len(t, e.MessageID, 36)
		})
	}
	for _, call := range []string{"identify", "page", "screen", "group", "alias"} {
		w := f.do("GET", "/v1/pixel/"+call+"?writeKey=wk_demo&userId=u&groupId=g&previousId=p", "", "")
		require.Equal(t, 200, w.Code)
		require.Contains(t, string(one(t, f.collected.take()).Value), `"type":"`+call+`"`)
	}
	require.Equal(t, 200, f.do("HEAD", "/v1/pixel/track?data="+urlSafe, "", "").Code)
	require.Equal(t, 405, f.do("POST", "/v1/pixel/track?data="+urlSafe, "", "").Code)
	require.Equal(t, 404, f.do("GET", "/v1/pixel/batch?data="+urlSafe, "", "").Code)
	require.Empty(t, f.collected.take(), "a look is no event")
	require.Empty(t, f.rejected.take())
}

func TestPixelThatCannotBeRead(t *testing.T) {
	f := newFixture(t)
	deep := strings.Repeat("a.", event.MaxDepth) + "b"
	for target, want := range map[string]string{
		"?data=%25%25":                   event.InvalidJSON,
		"?data=" + "bm8ganNvbg":          event.InvalidJSON, // "no json"
		"?userId=u&name=N&name.first=F":  event.InvalidType,
		"?userId=u&properties." + deep:   event.TooDeep,
		"?userId=u&name.a.b=1&name.a=1":  event.InvalidType,
		"?properties.nobody=in-here&x=y": event.NoUserAnonID,
	} {
		w := f.do("GET", "/v1/pixel/page"+strings.Replace(target, "?", "?writeKey=wk_demo&", 1), "", "")
		require.Equal(t, 200, w.Code, target)
		require.Equal(t, pixelImage, w.Body.String())
		require.Equal(t, want, header(t, one(t, f.rejected.take()), topic.HeaderReason), target)
	}
	w := f.do("GET", "/v1/pixel/page?data=%25%25", "", "")
	require.Equal(t, 400, w.Code, "nobody's")
	require.Empty(t, f.rejected.take())
	require.Equal(t, 401, f.do("GET", "/v1/pixel/page?writeKey=wk_demo&userId=u", basic("nope"), "").Code)
	require.Zero(t, f.budget.used.Load())
}

// What a browser sends while it leaves a page: text/plain, the key in the body or in the URL.
func TestBeacon(t *testing.T) {
	f := newFixture(t)
	batch := `{"batch":[{"type":"page","anonymousId":"a","name":"` + strings.Repeat("x", 60<<10) + `"}]%s}`
	for _, c := range []struct {
		path, key string
		status    int
	}{
		{"/v1/b", `,"writeKey":"wk_demo"`, 200}, {"/beacon/v1/batch?writeKey=wk_demo", "", 200}, {"/beacon/v1/batch/?writeKey=wk_demo", "", 200},
		{"/beacon/v1/batch", `,"writeKey":"wk_demo"`, 200}, {"/beacon/v1/batch?writeKey=nope", "", 401}, {"/beacon/v1/batch", "", 401}, {"/v1/b?writeKey=wk_demo", "", 401},
	} {
		w := f.do("POST", c.path, "", strings.Replace(batch, "%s", c.key, 1), "Content-Type", "text/plain;charset=UTF-8", "Origin", "https://shop.example")
		require.Equal(t, c.status, w.Code, c.path)
		require.Equal(t, "true", w.Header().Get("Access-Control-Allow-Credentials"), "sendBeacon sends with credentials")
		require.Equal(t, "https://shop.example", w.Header().Get("Access-Control-Allow-Origin"))
		if c.status == 200 {
			one(t, f.collected.take())
		}
	}
	require.Equal(t, 405, f.do("GET", "/beacon/v1/batch?writeKey=wk_demo", "", "").Code)
}

// Whatever stands in the URL, a pixel's parameters become an event or a reason.
func FuzzPixelParameters(f *testing.F) {
	for _, s := range []string{"userId=u&properties.a.b=1", "data=eyJhIjoxfQ", "a=1&a.b=2", "data= {\"a\":1}", ".=1&..=2&a.=3", "writeKey=k&%zz=1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, query string) {
		values, err := url.ParseQuery(query)
		if err != nil {
			return
		}
		body, err := pixelBody(values)
		if err != nil {
			require.NotEmpty(t, event.Reason(err, ""))
			return
		}
		if values.Get(dataParameter) == "" {
			_, err = event.Split(body, 0)
			require.NoError(t, err, "what is made of parameters is JSON")
		}
	})
}
