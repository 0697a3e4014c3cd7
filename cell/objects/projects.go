package objects

import (
	"context"
	"crypto/rand"
	"fmt"
	"math/big"
	"time"

	"chancery/internal/errs"
	"chancery/internal/store"
)

func encodeProject(id string, created int64) []byte {
	var e encoder
	e.byte(recordVersion)
	e.string(id)
	e.int(created)
	return e.b
}

func decodeProject(name string, raw []byte) (Project, error) {
	d := decoder{b: raw}
	v := d.byte()
	p := Project{ID: d.string(), Name: name}
	p.Created = time.UnixMilli(d.int()).UTC()
	if v != recordVersion || !d.end() || p.ID == "" {
		return Project{}, corrupt("objects.decodeProject", "project record")
	}
	return p, nil
}

// accountSpace is how many project ids there are: 12 digits, like AWS account ids.
var accountSpace = big.NewInt(1e12)

func newProjectID() (string, error) {
	n, err := rand.Int(rand.Reader, accountSpace)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%012d", n), nil
}

// CreateProject makes a project. Errors: errs.Invalid for a name that is no DNS
// label, errs.Exists.
func (e *Engine) CreateProject(ctx context.Context, name string) (Project, error) {
	const op = "objects.CreateProject"
	if err := e.ready(op); err != nil {
		return Project{}, err
	}
	if err := checkProjectName(op, name); err != nil {
		return Project{}, err
	}
	for try := 0; ; try++ {
		if raw, err := e.get(ctx, projectKey(name)); err != nil {
			return Project{}, errs.Wrap(op, err)
		} else if raw != nil {
			return Project{}, errs.New(errs.Exists, op, "there is a project of this name")
		}
		id, err := newProjectID()
		if err != nil {
			return Project{}, errs.Wrap(op, err)
		}
		p := Project{ID: id, Name: name, Created: e.now().Truncate(time.Millisecond)}
		var b store.Batch
		b.IfAbsent(projectKey(name))
		b.IfAbsent(projectIDKey(id))
		b.IfAbsent(key2(pDoomedP, id))
		b.Put(projectKey(name), encodeProject(id, p.Created.UnixMilli()))
		b.Put(projectIDKey(id), stateValue(stateOpen, name))
		b.Change(TopicProject, ProjectChange{Created, id, name}.encode())
		if err := e.opt.Keys.CreateProject(ctx, &b, id); err != nil {
			if errs.Is(err, errs.Exists) && try < 10 { // the id is taken in the key hierarchy
				continue
			}
			return Project{}, errs.Wrap(op, err)
		}
		if _, err := e.store.Commit(ctx, &b); err != nil {
			if errs.Is(err, errs.Conflict) && try < 10 {
				continue
			}
			return Project{}, errs.Wrap(op, err)
		}
		return p, nil
	}
}

// Project finds a project by name; errs.NotFound if there is none.
func (e *Engine) Project(ctx context.Context, name string) (Project, error) {
	const op = "objects.Project"
	if err := e.ready(op); err != nil {
		return Project{}, err
	}
	if len(name) > 63 {
		return Project{}, errs.New(errs.NotFound, op, "there is no such project")
	}
	raw, err := e.get(ctx, projectKey(name))
	if err != nil {
		return Project{}, errs.Wrap(op, err)
	}
	if raw == nil {
		return Project{}, errs.New(errs.NotFound, op, "there is no such project")
	}
	return decodeProject(name, raw)
}

// Projects lists all projects by name.
func (e *Engine) Projects(ctx context.Context) ([]Project, error) {
	const op = "objects.Projects"
	if err := e.ready(op); err != nil {
		return nil, err
	}
	var out []Project
	err := e.store.Scan(ctx, store.Prefix([]byte(pProject)), func(k, v []byte) (bool, error) {
		p, err := decodeProject(string(k[len(pProject):]), v)
		out = append(out, p)
		return err == nil, err
	})
	return out, errs.Wrap(op, err)
}

// DeleteProject deletes a project without buckets and destroys its key. It first
// marks the project as ending, so that no bucket can come in between.
func (e *Engine) DeleteProject(ctx context.Context, name string) error {
	const op = "objects.DeleteProject"
	p, err := e.Project(ctx, name)
	if err != nil {
		return errs.Wrap(op, err)
	}
	state, intent := projectIDKey(p.ID), key2(pIntentP, p.ID)
	notEmpty := errs.New(errs.Conflict, op, "the project has buckets; delete them first")
	if has, err := e.any(ctx, ownedKey(p.ID, "")); err != nil {
		return errs.Wrap(op, err)
	} else if has {
		return notEmpty
	}
	if _, err := e.flip(ctx, op, state, intent, errs.New(errs.NotFound, op, "there is no such project")); err != nil {
		return err
	}
	defer e.ends.unlock(intent)
	// From here on the end must be settled either way, whatever becomes of the caller.
	ctx = context.WithoutCancel(ctx)
	has, err := e.any(ctx, ownedKey(p.ID, ""))
	if err != nil || has {
		if err2 := e.reopen(ctx, state, intent); err2 != nil {
			return errs.Wrap(op, err2)
		}
		if err != nil {
			return errs.Wrap(op, err)
		}
		return notEmpty
	}
	var b store.Batch
	b.IfEquals(state, stateValue(stateEnding, name))
	b.Delete(state)
	b.Delete(intent)
	b.Delete(projectKey(name))
	b.Put(key2(pDoomedP, p.ID), []byte{recordVersion})
	b.Change(TopicProject, ProjectChange{Removed, p.ID, name}.encode())
	if _, err := e.store.Commit(ctx, &b); err != nil {
		if neverCommitted(err) {
			_ = e.reopen(ctx, state, intent) // else whoever waits for it does it
		}
		return errs.Wrap(op, err)
	}
	return errs.Wrap(op, e.destroyProjectKey(ctx, p.ID))
}

// any reports whether there is a key with the prefix.
func (e *Engine) any(ctx context.Context, prefix []byte) (found bool, err error) {
	err = e.store.Scan(ctx, store.Prefix(prefix), func(k, v []byte) (bool, error) {
		found = true
		return false, nil
	})
	return found, err
}

func (e *Engine) destroyProjectKey(ctx context.Context, id string) error {
	if err := e.opt.Keys.DestroyProject(ctx, id); err != nil && !errs.Is(err, errs.Destroyed) && !notFound(err) {
		return err
	}
	var b store.Batch
	b.Delete(key2(pDoomedP, id))
	_, err := e.store.Commit(ctx, &b)
	return err
}

func (e *Engine) destroyBucketKey(ctx context.Context, project, id string) error {
	if err := e.opt.Keys.DestroyBucket(ctx, project, id); err != nil && !errs.Is(err, errs.Destroyed) && !notFound(err) {
		return err
	}
	var b store.Batch
	b.Delete(key2(pDoomedB, id))
	_, err := e.store.Commit(ctx, &b)
	return err
}
