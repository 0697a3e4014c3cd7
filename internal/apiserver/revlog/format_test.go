package revlog

import (
	"maps"
	"slices"
	"testing"
	"time"

	"chancery/internal/store"
)

// TestFormat pins every byte of what docs/formats/api.md describes.
func TestFormat(t *testing.T) {
	w := &world{t: t, dir: t.TempDir(), opts: Options{
		Prefix: []byte("t/"), Keep: time.Hour, Now: func() time.Time { return time.Unix(0x01020304, 0) },
	}}
	w.open()
	t.Cleanup(w.close)
	put := func(key, value string, expect int64, ttl time.Duration, rev int64) {
		t.Helper()
		if r, err := w.Put(t.Context(), key, []byte(value), expect, ttl); err != nil || !r.Done || r.Revision != rev {
			t.Fatal(r, err)
		}
	}
	put("/g/r/a", "one", 0, 0, 2)
	put("/g/r/a", "two", 2, 0, 3)
	put("/g/r/b", "", 0, 90*time.Minute, 4)
	if r, err := w.Delete(t.Context(), "/g/r/b", 4); err != nil || !r.Done || r.Revision != 5 {
		t.Fatal(r, err)
	}
	n := func(last byte) string { return "\x00\x00\x00\x00\x00\x00\x00" + string(last) }
	want := map[string]string{
		"t/r": n(5),
		"t/k": n(0),

		"t/c/g/r/a": "\x01" + n(2) + n(3) + n(0) + "two",

		"t/v/g/r/a\x00" + n(2): "\x01" + n(2) + n(2) + n(3) + "one",
		"t/v/g/r/b\x00" + n(4): "\x01" + n(4) + n(4) + n(5),

		"t/l" + n(2): "\x01" + n(0) + "/g/r/a",
		"t/l" + n(3): "\x00" + n(2) + "/g/r/a",
		"t/l" + n(4): "\x01" + n(0) + "/g/r/b",
		"t/l" + n(5): "\x02" + n(4) + "/g/r/b",

		"t/t\x00\x00\x00\x00\x01\x02\x18\x1c/g/r/b": n(4),
	}
	stored := func() map[string]string {
		got := map[string]string{}
		err := w.st.Scan(t.Context(), store.Prefix([]byte("t/")), func(k, v []byte) (bool, error) {
			got[string(k)] = string(v)
			return true, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	compare := func() {
		t.Helper()
		got := stored()
		for _, k := range slices.Sorted(maps.Keys(want)) {
			if got[k] != want[k] {
				t.Errorf("%q holds %q, want %q", k, got[k], want[k])
			}
			delete(got, k)
		}
		for k, v := range got {
			t.Errorf("%q holds %q, want nothing", k, v)
		}
	}
	compare()

	// Compaction takes the entries and what they superseded, and nothing else.
	if err := w.Compact(t.Context(), 3); err != nil {
		t.Fatal(err)
	}
	want["t/k"] = n(3)
	for _, gone := range []string{"t/v/g/r/a\x00" + n(2), "t/l" + n(2), "t/l" + n(3)} {
		delete(want, gone)
	}
	compare()
}
