package event

import (
	"bytes"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// splitBodies is requests whose items are of every kind of trouble.
func splitBodies() []string {
	all := `{"batch":[` + strings.Join(readerBodies[:4], ", ") + `,{"type":"nosuch"},7,[],{},{"writeKey":"k","userId":"u","event":"E","messageId":null}],"context":{"a":1}}`
	deep := `{"batch":[` + strings.Repeat(`{"type":"page","properties":`, 120) + `{}` + strings.Repeat("}", 120) + `,{"type":"page"}]}`
	long := `{"batch":[` + strings.Repeat(`{"type":"page","properties":{"a":1,"b":2,"c":{"d":3}},"context":{"page":{}}},`, 2500) + `{"type":"page"}]}`
	large := `{"batch":[{"type":"page","properties":` + objectOf(maxListed+1) + `},{"type":"page","properties":` + objectOf(MaxKeys+1) + `},{"type":"page"}]}`
	return append([]string{
		all, deep, long, large, `{"type":"page","properties":` + objectOf(MaxKeys+1) + `}`,
		`{"batch":[{"properties":{"a":1},"properties":{"b":2},"c\u006fntext":{"x":1},"context":null,"context":{"y":2}}]}`,
		`{"batch":[{"properties":{"a":1,"a":2,"\u0061":3},"context":{"historical":true,"traits":{"email":"e"}},"userId":"u","type":"Track","event":" "}]}`,
		`{"b\u0061tch":[{"type":"page"}]}`, `{"batch":[{"type":"page"}],"batch":[{"type":"track"}]}`, "\uFEFF {\"batch\": [ {\"type\" : \"page\"} ]}",
	}, readerBodies...)
}

// sameAsAlone reads the items of a request from what Split has listed of them, and each alone: the same.
func sameAsAlone(t testing.TB, r *Reader, body []byte, maxItems int) {
	req, err := r.Split(body, maxItems)
	if err != nil {
		return
	}
	for i, item := range req.Items {
		for _, fill := range []Filling{{MessageID: is("made"), Context: req.Context}, {Type: Page}} {
			out, err := r.ComposeItem(i, item, fill)
			want, wantErr := new(Reader).Compose(item, fill)
			if !bytes.Equal(out, want) || !reflect.DeepEqual(err, wantErr) {
				t.Fatalf("item %d of %.300q: %.300q %v, alone %.300q %v", i, body, out, err, want, wantErr)
			}
			if err != nil {
				continue
			}
			e, err := r.DecodeComposed(out, Meta{ReceivedAt: received})
			alone, wantErr := Decode(want, Meta{ReceivedAt: received})
			if !reflect.DeepEqual(err, wantErr) {
				t.Fatalf("item %d of %.300q: %v, alone %v", i, body, err, wantErr)
			}
			if err != nil {
				continue
			}
			sameEvent(t, r, e, alone)
		}
	}
}

// sameEvent compares an event that r has read with one that Decode has.
func sameEvent(t testing.TB, r *Reader, e, alone *Event) {
	var properties, context Object
	properties.Read(alone.properties)
	context.Read(alone.context)
	for _, x := range []struct{ got, want *Object }{{r.Properties(), &properties}, {r.Context(), &context}} {
		if x.got.Len() != x.want.Len() {
			t.Fatalf("%.300q: %d members, not %d", e.Body, x.got.Len(), x.want.Len())
		}
		for k := range x.want.Len() {
			if x.got.Name(k) != x.want.Name(k) || !reflect.DeepEqual(x.got.Value(k), x.want.Value(k)) {
				t.Fatalf("%.300q: member %d is %q", e.Body, k, x.got.Name(k))
			}
		}
	}
	again := *e
	again.alias = false
	if !reflect.DeepEqual(again, *alone) {
		t.Fatalf("%.300q is read as %+v, alone as %+v", e.Body, again, *alone)
	}
}

func TestItemsOfASplitRequestReadAsAlone(t *testing.T) {
	var r Reader
	for range 2 {
		for _, body := range splitBodies() {
			for _, most := range []int{0, 3000} {
				sameAsAlone(t, &r, []byte(body), most)
			}
			r.Forget()
		}
	}
}

func FuzzItemsOfASplitRequest(f *testing.F) {
	for _, body := range splitBodies()[4:] {
		f.Add([]byte(body))
	}
	var r Reader
	f.Fuzz(func(t *testing.T, body []byte) {
		sameAsAlone(t, &r, body, 100)
		sameAsAlone(t, &r, body, 0)
	})
}

// What is listed of a request stays bounded, and what a used Reader splits is no garbage.
func TestListingIsBoundedAndReused(t *testing.T) {
	var r Reader
	for _, body := range splitBodies() {
		_, _ = r.Split([]byte(body), 3000)
		for _, list := range [][]member{r.items.members, r.items.properties, r.items.context} {
			require.LessOrEqual(t, len(list), maxListed)
		}
	}
	body := []byte(`{"batch":[` + strings.TrimSuffix(strings.Repeat(envelope+",", 50), ",") + `],"sentAt":"2026-11-22T06:59:15.000Z"}`)
	allocs := testing.AllocsPerRun(100, func() {
		req, err := r.Split(body, 2500)
		if err != nil || len(req.Items) != 50 || !r.items.all[49].ok {
			t.Fatal(fmt.Sprint(err))
		}
		for i, item := range req.Items {
			out, err := r.ComposeItem(i, item, Filling{})
			require.NoError(t, err)
			_, err = r.DecodeComposed(out, Meta{ReceivedAt: received})
			require.NoError(t, err)
		}
		r.Forget()
	})
	require.LessOrEqual(t, allocs, 1.0)
}
