package frame

import (
	"bytes"
	"io"
	"os"
	"testing"
)

// TestVersion1 reads files that the first version of this package wrote: the
// format may not change under its number. The key is 32 times the byte 3, the role "role".
func TestVersion1(t *testing.T) {
	b, err := os.ReadFile("testdata/log-v1")
	if err != nil {
		t.Fatal(err)
	}
	got, err := readLog(b, "role")
	if err != io.EOF || !equal(got, payloads(0, 5, 600)) {
		t.Errorf("log: %d payloads, %v", len(got), err)
	}
	b, err = os.ReadFile("testdata/table-v1")
	if err != nil {
		t.Fatal(err)
	}
	r, err := openTable(b, "role")
	if err != nil {
		t.Fatal(err)
	}
	want := bytes.Repeat([]byte("0123456789"), 900)
	plain := make([]byte, r.Size())
	if _, err := r.ReadAt(plain, 0); err != nil || !bytes.Equal(plain, want) {
		t.Errorf("table: %d bytes, %v", len(plain), err)
	}
}
