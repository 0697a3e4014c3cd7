package identity

import (
	"crypto/sha256"
	"strings"
	"testing"
	"time"

	"chancery/internal/store"
)

// TestFormat reads records as docs/formats/objects.md describes them.
func TestFormat(t *testing.T) {
	st, _ := open(t)
	d := Open(st)
	ctx := t.Context()
	const id, owner = "CHAAAAAAAAAAAAAAAAAA", "9b2e"
	secret := strings.Repeat("s", 40)
	token := "chancery_" + strings.Repeat("A", 43)
	digest := sha256.Sum256([]byte(token))
	var b store.Batch
	b.Put([]byte("i/k/"+id), []byte(`{"secret":"`+secret+`","project":"000000000042","user":"importer","disabled":true,"owner":"`+owner+`","created":"2026-11-22T06:36:45Z"}`))
	b.Put([]byte("i/p/000000000042/"+id), nil)
	b.Put([]byte("i/o/"+owner), []byte(id))
	b.Put([]byte("i/t/"+string(digest[:])), []byte(`{"digest":"MbQ4CWJfp1nSHz1d+ajnuLrkowwdt6eQb2mNGcV2DKA=","name":"n","administrator":true,"ceremony":"c0ffee","created":"2026-11-22T06:36:45Z"}`))
	b.Put([]byte("i/n/n"), digest[:])
	if _, err := st.Commit(ctx, &b); err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 11, 22, 6, 36, 45, 0, time.UTC)
	want := AccessKey{ID: id, Secret: secret, Project: "000000000042", User: "importer", Disabled: true, Owner: owner, Created: at}
	if k, err := d.AccessKey(ctx, id); err != nil || k != want {
		t.Errorf("access key %+v, %v", k, err)
	}
	if list, err := d.ListAccessKeys(ctx, "000000000042"); err != nil || len(list) != 1 || list[0].ID != id {
		t.Errorf("list %v, %v", list, err)
	}
	if k, err := d.CreateAccessKey(ctx, NewAccessKey{Project: "000000000042", User: "x", Owner: owner}); err != nil || k.ID != id {
		t.Errorf("of its owner: %v, %v", k, err)
	}
	if got, err := d.Authenticate(ctx, token); err != nil || got != (Token{Name: "n", Administrator: true, Ceremony: "c0ffee", Created: at}) {
		t.Errorf("token %+v, %v", got, err)
	}
	if list, err := d.Tokens(ctx); err != nil || len(list) != 1 {
		t.Errorf("tokens %v, %v", list, err)
	}
}
