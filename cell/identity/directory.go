package identity

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"sync"
	"time"

	"chancery/internal/errs"
	"chancery/internal/store"
)

// Keys of this package in the store. All begin with "i/".
//
//	i/k/ID             access key record (with its secret)
//	i/p/PROJECT/ID     (empty) index of a project's access keys
//	i/o/OWNER          id of the access key made for an owner
//	i/t/SHA-256        token record, by the 32 bytes of the token's digest
//	i/n/NAME           the digest of the token of that name
//	i/c/ca, i/c/leaf   the organization's CA, and its servers' certificate, each with its key (PEM)
const (
	pKey     = "i/k/"
	pProject = "i/p/"
	pOwner   = "i/o/"
	pToken   = "i/t/"
	pName    = "i/n/"
	keyCA    = "i/c/ca"
	keyLeaf  = "i/c/leaf"
)

// Directory is the organization's access keys and tokens. Safe for concurrent
// use; one Directory for each store, or a change is not seen by the other's
// cache. The zero Directory refuses with errs.Sealed.
type Directory struct {
	st     store.Store
	keys   cache[AccessKey]
	tokens cache[tokenRecord]
}

// Open returns the directory that is in the store.
func Open(st store.Store) *Directory { return &Directory{st: st} }

var _ Keys = (*Directory)(nil)

// Forget empties the caches; for the moment of sealing.
func (d *Directory) Forget() {
	if d != nil {
		d.keys.empty()
		d.tokens.empty()
	}
}

func (d *Directory) ready(op string) error {
	if d == nil || d.st == nil {
		return errs.New(errs.Sealed, op, "the organization is sealed")
	}
	return nil
}

type keyRecord struct {
	Secret   string    `json:"secret"`
	Project  string    `json:"project"`
	User     string    `json:"user"`
	Disabled bool      `json:"disabled,omitempty"`
	Owner    string    `json:"owner,omitempty"`
	Created  time.Time `json:"created"`
}

func (r keyRecord) key(id string) AccessKey {
	return AccessKey{ID: id, Secret: r.Secret, Project: r.Project, User: r.User, Disabled: r.Disabled, Owner: r.Owner, Created: r.Created}
}

// NewAccessKey asks for an access key. Project and User are required. If Owner is
// set and has a key already, that key is returned: a reconciler may ask again after a crash.
type NewAccessKey struct{ Project, User, Owner string }

// maxName bounds names, owners and project ids, in bytes.
const maxName = 512

// CreateAccessKey makes a key. Errors: errs.Invalid, errs.Conflict (two at once for one owner; retry).
func (d *Directory) CreateAccessKey(ctx context.Context, in NewAccessKey) (AccessKey, error) {
	const op = "identity.CreateAccessKey"
	if err := d.ready(op); err != nil {
		return AccessKey{}, err
	}
	if in.Project == "" || in.User == "" || len(in.Project) > maxName || len(in.User) > maxName || len(in.Owner) > maxName {
		return AccessKey{}, errs.New(errs.Invalid, op, "an access key needs a project and a user of 1 to %d bytes", maxName)
	}
	if !plain(in.Project) {
		return AccessKey{}, errs.New(errs.Invalid, op, "a project id has no slash and no control character")
	}
	var b store.Batch
	if in.Owner != "" {
		id, err := d.st.Get(ctx, []byte(pOwner+in.Owner))
		if err == nil {
			k, err := d.read(ctx, string(id))
			if err == nil && k.Project != in.Project {
				return AccessKey{}, errs.New(errs.Conflict, op, "this owner has a key of another project")
			}
			return k, errs.Wrap(op, err)
		}
		if !errs.Is(err, errs.NotFound) {
			return AccessKey{}, errs.Wrap(op, err)
		}
		b.IfAbsent([]byte(pOwner + in.Owner))
	}
	id := newKeyID()
	r := keyRecord{Secret: newSecret(), Project: in.Project, User: in.User, Owner: in.Owner, Created: time.Now().UTC().Truncate(time.Second)}
	v, err := json.Marshal(r)
	if err != nil {
		return AccessKey{}, errs.WrapKind(errs.Internal, op, err)
	}
	b.IfAbsent([]byte(pKey + id))
	b.Put([]byte(pKey+id), v)
	b.Put([]byte(pProject+in.Project+"/"+id), nil)
	if in.Owner != "" {
		b.Put([]byte(pOwner+in.Owner), []byte(id))
	}
	if _, err := d.st.Commit(ctx, &b); err != nil {
		return AccessKey{}, errs.Wrap(op, err)
	}
	return r.key(id), nil
}

// AccessKey returns the key, also a disabled one, or errs.NotFound. It answers
// from memory when it can.
func (d *Directory) AccessKey(ctx context.Context, id string) (AccessKey, error) {
	const op = "identity.AccessKey"
	if err := d.ready(op); err != nil {
		return AccessKey{}, err
	}
	if !validKeyID(id) { // costs no look-up, and bounds what reaches the store
		return AccessKey{}, errs.New(errs.NotFound, op, "there is no such access key")
	}
	k, age, ok := d.keys.get(id)
	if ok {
		return k, nil
	}
	k, err := d.read(ctx, id)
	if err != nil {
		return AccessKey{}, errs.Wrap(op, err)
	}
	d.keys.put(id, k, age)
	return k, nil
}

func (d *Directory) read(ctx context.Context, id string) (AccessKey, error) {
	const op = "identity.read"
	v, err := d.st.Get(ctx, []byte(pKey+id))
	if errs.Is(err, errs.NotFound) {
		return AccessKey{}, errs.New(errs.NotFound, op, "there is no such access key")
	}
	if err != nil {
		return AccessKey{}, errs.Wrap(op, err)
	}
	r, err := decodeKey(v)
	if err != nil {
		return AccessKey{}, err
	}
	return r.key(id), nil
}

func decodeKey(v []byte) (keyRecord, error) {
	var r keyRecord
	if json.Unmarshal(v, &r) != nil || r.Secret == "" || r.Project == "" || r.User == "" {
		// The cause would repeat a part of the record.
		return r, errs.New(errs.Corrupt, "identity.decodeKey", "an access key's record is malformed")
	}
	return r, nil
}

// ListAccessKeys lists a project's keys by id, without secrets; an empty project lists all.
func (d *Directory) ListAccessKeys(ctx context.Context, project string) ([]AccessKey, error) {
	const op = "identity.ListAccessKeys"
	if err := d.ready(op); err != nil {
		return nil, err
	}
	snap, err := d.st.Snapshot(ctx)
	if err != nil {
		return nil, errs.Wrap(op, err)
	}
	defer func() { _ = snap.Close() }()
	out := []AccessKey{}
	add := func(id string, v []byte) error {
		r, err := decodeKey(v)
		if err != nil {
			return err
		}
		r.Secret = ""
		out = append(out, r.key(id))
		return nil
	}
	if project == "" {
		err = snap.Scan(ctx, store.Prefix([]byte(pKey)), func(k, v []byte) (bool, error) {
			return true, add(string(k[len(pKey):]), v)
		})
		return out, errs.Wrap(op, err)
	}
	prefix := pProject + project + "/"
	err = snap.Scan(ctx, store.Prefix([]byte(prefix)), func(k, _ []byte) (bool, error) {
		id := string(k[len(prefix):])
		v, err := snap.Get(ctx, []byte(pKey+id))
		if err != nil {
			return false, err
		}
		return true, add(id, v)
	})
	return out, errs.Wrap(op, err)
}

// SetAccessKeyDisabled disables or enables a key. When it returns, no later
// look-up gives the old answer. Errors: errs.NotFound, errs.Conflict (changed meanwhile; retry).
func (d *Directory) SetAccessKeyDisabled(ctx context.Context, id string, disabled bool) error {
	const op = "identity.SetAccessKeyDisabled"
	return d.change(ctx, op, id, func(b *store.Batch, r keyRecord) error {
		r.Disabled = disabled
		v, err := json.Marshal(r)
		if err != nil {
			return errs.WrapKind(errs.Internal, op, err)
		}
		b.Put([]byte(pKey+id), v)
		return nil
	})
}

// DeleteAccessKey deletes a key. When it returns, no later look-up finds it. Errors: errs.NotFound.
func (d *Directory) DeleteAccessKey(ctx context.Context, id string) error {
	return d.change(ctx, "identity.DeleteAccessKey", id, func(b *store.Batch, r keyRecord) error {
		b.Delete([]byte(pKey + id))
		b.Delete([]byte(pProject + r.Project + "/" + id))
		if r.Owner != "" {
			b.Delete([]byte(pOwner + r.Owner))
		}
		return nil
	})
}

func (d *Directory) change(ctx context.Context, op, id string, f func(*store.Batch, keyRecord) error) error {
	if err := d.ready(op); err != nil {
		return err
	}
	if !validKeyID(id) {
		return errs.New(errs.NotFound, op, "there is no such access key")
	}
	v, err := d.st.Get(ctx, []byte(pKey+id))
	if err != nil {
		return errs.Wrap(op, err)
	}
	r, err := decodeKey(v)
	if err != nil {
		return errs.Wrap(op, err)
	}
	var b store.Batch
	b.IfEquals([]byte(pKey+id), v)
	if err := f(&b, r); err != nil {
		return err
	}
	// Also after an error: it may be unknown whether the commit is durable.
	defer d.keys.empty()
	_, err = d.st.Commit(ctx, &b)
	return errs.Wrap(op, err)
}

// cache keeps look-ups in memory. A change empties it; a look-up that read the
// store before the change cannot put its old answer back. The zero cache is ready.
type cache[V any] struct {
	mu  sync.RWMutex
	age uint64
	m   map[string]V
}

// maxCached bounds a cache; a full one is emptied.
const maxCached = 4096

func (c *cache[V]) get(key string) (v V, age uint64, ok bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	v, ok = c.m[key]
	return v, c.age, ok
}

func (c *cache[V]) put(key string, v V, age uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if age != c.age {
		return
	}
	if c.m == nil || len(c.m) >= maxCached {
		c.m = map[string]V{}
	}
	c.m[key] = v
}

func (c *cache[V]) empty() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.age++
	c.m = nil
}

const (
	base32Alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
	base62Alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
)

// newKeyID gives "CH" and 18 characters (90 bits).
func newKeyID() string { return "CH" + random(base32Alphabet, 18) }

// newSecret gives 40 characters (238 bits) that need no quoting in any shell, URL or file.
func newSecret() string { return random(base62Alphabet, 40) }

// random draws each character evenly, by rejection.
func random(alphabet string, n int) string {
	limit := 256 - 256%len(alphabet)
	out := make([]byte, 0, n)
	var buf [64]byte
	for len(out) < n {
		_, _ = rand.Read(buf[:]) // never fails (it ends the program)
		for _, c := range buf {
			if int(c) < limit && len(out) < n {
				out = append(out, alphabet[int(c)%len(alphabet)])
			}
		}
	}
	return string(out)
}

func validKeyID(id string) bool {
	if len(id) != 20 || id[:2] != "CH" {
		return false
	}
	for i := 2; i < len(id); i++ {
		if c := id[i]; (c < 'A' || c > 'Z') && (c < '2' || c > '7') {
			return false
		}
	}
	return true
}

// plain reports whether s can be a part of a store key between slashes.
func plain(s string) bool {
	for i := range len(s) {
		if s[i] == '/' || s[i] < ' ' || s[i] == 0x7f {
			return false
		}
	}
	return true
}
