package suppression

import (
	"bytes"
	"testing"
)

// A list has what a plain reading of its lines says, and an error names a line.
func FuzzList(f *testing.F) {
	f.Add([]byte("a@b.example # gone\nsha256:0000000000000000000000000000000000000000000000000000000000000000\n\n+49 170"), "A@B.example ")
	f.Add([]byte("\xef\xbb\xbfu-1\r\n"), "u-1")
	f.Add([]byte("sha256:xyz"), "")
	f.Fuzz(func(t *testing.T, file []byte, who string) {
		list, err := Parse(bytes.NewReader(file))
		if err != nil {
			return
		}
		want := false
		for line := range bytes.Lines(file) {
			line, _, _ = bytes.Cut(line, []byte("#"))
			entry := Fold(string(bytes.TrimPrefix(line, []byte("\ufeff"))))
			want = want || entry != "" && entry == Fold(who) && !bytes.HasPrefix([]byte(entry), []byte(hashPrefix))
		}
		if want && !list.Has(who) {
			t.Fatalf("%q is not in %q", who, file)
		}
	})
}
