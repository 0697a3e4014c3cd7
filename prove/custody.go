package prove

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"

	"chancery/api/v1alpha1"
	"chancery/internal/errs"
	"chancery/wall"
)

// checkQuorum opens a two-of-three organization as an attacker would: with one
// share, the same share twice, an altered share, a stranger's identity; and then rightly.
func checkQuorum(ctx context.Context, e *env) (f Finding, err error) {
	s, err := e.makeScratch(ctx)
	if err != nil {
		return f, err
	}
	f.Did = "Made a 2-of-3 organization; gave one share, the same one again, an altered one, a stranger's identity, then a second true share."
	stranger, err := newHolder("stranger")
	if err != nil {
		return f, err
	}
	if _, err := s.seal().Unseal(ctx, stranger.id); err == nil {
		return broken(f, "an identity that is no custodian's was taken")
	}
	evidence(&f, "a stranger's identity: refused by his own machine, nothing sent")
	first, err := s.seal().Unseal(ctx, s.holders[0].id)
	if err != nil {
		return f, err
	}
	again, err := s.payload(ctx, s.holders[0])
	if err != nil {
		return f, err
	}
	repeated, failure, err := s.give(ctx, again)
	if err != nil {
		return f, err
	}
	if first.Status.State == wall.Unsealed || failure == nil && (repeated.State == wall.Unsealed || repeated.SharesGiven != 1) {
		return broken(f, "one custodian alone, giving his share twice, counted as two")
	}
	evidence(&f, "%s gave his share twice: it counts once (%d of %d), still sealed", s.holders[0].name, first.Status.SharesGiven, first.Status.Quorum)
	wrong, err := s.payload(ctx, s.holders[2])
	if err != nil {
		return f, err
	}
	wrong.Share[7] ^= 1
	_, failure, err = s.give(ctx, wrong)
	if err != nil {
		return f, err
	}
	if failure == nil {
		return broken(f, "a share with one bit flipped was taken")
	}
	if !strings.Contains(failure.Message, s.holders[2].name) {
		return broken(f, "the wrong share was refused without naming its bearer")
	}
	evidence(&f, "one bit flipped in the share of %s: %s (%s)", s.holders[2].name, failure.Message, failure.Kind)
	if status, body, err := s.s3Answer(ctx); err != nil || status != 503 || !strings.Contains(body, "<Code>Sealed</Code>") {
		return broken(f, fmt.Sprintf("S3 of the sealed organization answered %d %s (%v)", status, body, err))
	}
	evidence(&f, "S3 while sealed: 503 Sealed")
	second, err := s.seal().Unseal(ctx, s.holders[1].id)
	if err != nil {
		return f, err
	}
	if second.Status.State != wall.Unsealed {
		return broken(f, "two true shares of a 2-of-3 organization did not open it")
	}
	evidence(&f, "the second true share, of %s: unsealed", s.holders[1].name)
	f.Outcome, f.Saw = Kept, "Only two different true shares opened it; the altered one was refused and its bearer named."
	return f, nil
}

// planted are the canaries that checkSealedDisk puts in.
type planted struct{ canaries []Canary }

func (p *planted) new(name string) string {
	c := canary(name)
	p.canaries = append(p.canaries, c)
	return string(c.Secret)
}

// plant stores objects of every kind of storage (inline, blob, multipart), each
// with canaries in its bytes, its name and its metadata.
func (s *scratch) plant(ctx context.Context, p *planted) error {
	c, err := s.s3(s.e.o.S3)
	if err != nil {
		return err
	}
	bucket := p.new("bucket name")
	if err := c.MakeBucket(ctx, bucket, minio.MakeBucketOptions{}); err != nil {
		return errs.WrapKind(errs.Unavailable, "prove.plant", err)
	}
	for _, size := range []int{100, 32 << 10, 1 << 20, 17 << 20} {
		body := bytes.Repeat([]byte(p.new(fmt.Sprintf("bytes of an object of %d", size))+" "), size/32+1)[:size]
		_, err := c.PutObject(ctx, bucket, p.new("object name")+"/"+p.new("object name, second part"), bytes.NewReader(body), int64(size), minio.PutObjectOptions{
			PartSize:     5 << 20,
			ContentType:  "application/" + p.new("content type"),
			UserMetadata: map[string]string{"Secret": p.new("metadata value")},
		})
		if err != nil {
			return errs.WrapKind(errs.Unavailable, "prove.plant", err)
		}
	}
	p.canaries = append(p.canaries,
		Canary{"secret access key", []byte(s.secret)},
		Canary{"administrator's token", []byte(s.credential.Token)})
	return nil
}

// checkSealedDisk plants canaries, seals, and reads every byte of the zone's disk.
func checkSealedDisk(ctx context.Context, e *env) (f Finding, err error) {
	s, err := e.makeScratch(ctx)
	if err != nil {
		return f, err
	}
	if err := s.furnish(ctx); err != nil {
		return f, err
	}
	f.Did = "Stored canaries as object bytes (inline, blob, multipart), object, bucket and type names, metadata and credentials; sealed; read every file of the zone and of the organization's cell."
	var p planted
	if err := s.plant(ctx, &p); err != nil {
		return f, err
	}
	if err := s.sealNow(ctx); err != nil {
		return f, err
	}
	if err := controlSearch(ctx, p.canaries); err != nil {
		return f, err
	}
	places, err := e.disk()
	if err != nil {
		return f, err
	}
	found, err := Search(ctx, places, p.canaries)
	if err != nil {
		return f, err
	}
	f.Evidence = append(f.Evidence, sightingLines(found)...)
	evidence(&f, "%d canaries in %d forms, searched in %d files, %d bytes; the search finds them where they are planted on purpose",
		len(p.canaries), found.Forms, found.Files, found.Bytes)
	if len(found.Sightings) > 0 {
		return broken(f, fmt.Sprintf("%d canaries stand readable on the disk", len(found.Sightings)))
	}
	f.Outcome = Kept
	f.Saw = fmt.Sprintf("None of %d canaries (%d forms) in %d files, %.1f MiB.", len(p.canaries), found.Forms, found.Files, float64(found.Bytes)/(1<<20))
	return f, nil
}

// disk lists all that the zone's directory holds, but for the data of other
// organizations: that may be terabytes, and is theirs.
func (e *env) disk() ([]string, error) {
	var out []string
	for _, dir := range []string{e.o.Dir, filepath.Join(e.o.Dir, "cells")} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return nil, errs.WrapKind(errs.Unavailable, "prove.disk", err)
		}
		for _, entry := range entries {
			path := filepath.Join(dir, entry.Name())
			switch {
			case dir == e.o.Dir && entry.Name() == "cells":
			case dir == e.o.Dir || !entry.IsDir() || entry.Name() == e.scratch.name:
				out = append(out, path)
			default:
				out = append(out, filepath.Join(path, "log"), filepath.Join(path, "run"))
			}
		}
	}
	return out, nil
}

// sealNow seals the scratch organization as the operator may.
func (s *scratch) sealNow(ctx context.Context) error {
	if err := s.e.o.Seal(ctx, s.name); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	_, err := s.e.operator.WaitOrganization(ctx, s.name, v1alpha1.OrganizationSealed)
	return err
}

// controlSearch makes sure that the search can find: it plants every form of
// every canary in a file of its own and wants to see each.
func controlSearch(ctx context.Context, canaries []Canary) error {
	const op = "prove.controlSearch"
	dir, err := os.MkdirTemp("", "chancery-prove-")
	if err != nil {
		return errs.WrapKind(errs.Unavailable, op, err)
	}
	defer func() { _ = os.RemoveAll(dir) }() // the canaries in it were never of use
	forms := needles(canaries)
	for i, n := range forms {
		// Across the boundary of the search's window, where a careless search is blind.
		body := append(make([]byte, 1<<20-3), n.bytes...)
		if i > 0 {
			body = append([]byte("x"), n.bytes...)
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), body, 0o600); err != nil {
			return errs.WrapKind(errs.Unavailable, op, err)
		}
	}
	found, err := Search(ctx, []string{dir}, canaries)
	if err != nil {
		return err
	}
	seen := map[string]bool{}
	for _, s := range found.Sightings {
		seen[s.File] = true
	}
	if len(seen) != len(forms) {
		return errs.New(errs.Internal, op, "the search found %d of %d canaries planted for it: it cannot be relied on", len(seen), len(forms))
	}
	return nil
}

// broken makes a finding of a broken promise.
func broken(f Finding, saw string) (Finding, error) {
	f.Outcome, f.Saw = Broken, saw
	return f, nil
}
