package cell

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"chancery/cell/blobs"
	"chancery/cell/blobs/blobdir"
	"chancery/cell/control"
	"chancery/cell/identity"
	"chancery/cell/keys"
	"chancery/cell/objects"
	"chancery/cell/policy"
	"chancery/cell/s3"
	"chancery/cell/seal"
	"chancery/internal/errs"
	"chancery/internal/files"
	"chancery/internal/store/pebblestore"
)

// classicRegion is what S3 clients say that were told no region. It is accepted,
// but not our name: for it, clients presign in ways that AWS itself has retired.
const classicRegion = "us-east-1"

// region is the S3 name of the place where the cell is: its zone.
func (c *Cell) region() string { return c.config.Zone }

// startTime bounds how long a seal waits for an API server that is just starting.
const startTime = 10 * time.Second

// services are everything that needs the root key. They live from unseal to seal.
type services struct {
	log       *slog.Logger
	store     *pebblestore.Store
	ring      *keys.Ring
	directory *identity.Directory
	objects   *objects.Engine
	control   *control.Control
	s3        http.Handler
	stop      context.CancelFunc
	running   sync.WaitGroup
}

func (c *Cell) storeDir() string { return filepath.Join(c.config.DataDir, "store") }
func (c *Cell) keyFile() string  { return filepath.Join(c.config.DataDir, storeKeyFile) }
func (c *Cell) blobDir() string  { return filepath.Join(c.config.DataDir, "blobs") }

// openStore opens the store under a key. mustExist refuses to make one.
func (c *Cell) openStore(ctx context.Context, key []byte, mustExist bool) (*pebblestore.Store, error) {
	return pebblestore.Open(ctx, pebblestore.Options{Dir: c.storeDir(), FS: c.fs, Key: key, MustExist: mustExist, Log: inside(c.log)})
}

// create makes what a new organization has: its store, keys, certificates and first
// administrator. It leaves nothing open.
func (c *Cell) create(ctx context.Context, root *seal.Root, again bool) (made seal.Created, err error) {
	const op = "cell.create"
	fsys := c.fs
	if again {
		// An earlier creation was cut short; what it left is under a lost root.
		if err := removeAll(fsys, c.storeDir(), c.keyFile(), c.blobDir()); err != nil {
			return made, errs.Wrap(op, err)
		}
	}
	if _, err := fsys.Stat(c.keyFile()); err == nil {
		return made, errs.New(errs.Exists, op, "the cell's data directory holds a store already, but no seal")
	}
	key := newStoreKey()
	defer clear(key)
	if err := wrapStoreKey(fsys, c.keyFile(), c.config.Organization, root, key); err != nil {
		return made, errs.Wrap(op, err)
	}
	st, err := c.openStore(ctx, key, false)
	if err != nil {
		return made, errs.Wrap(op, err)
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	ring, err := keys.Open(ctx, st, root, c.config.Organization)
	if err != nil {
		return made, errs.Wrap(op, err)
	}
	defer func() { err = errors.Join(err, ring.Close()) }()
	if made.CACertificate, err = identity.CreateCA(ctx, st, c.config.Organization); err != nil {
		return made, errs.Wrap(op, err)
	}
	directory := identity.Open(st)
	defer directory.Forget()
	made.Administrator, made.Token, err = directory.CreateBootstrapAdministrator(ctx)
	return made, errs.Wrap(op, err)
}

// unseal opens everything and lets requests in.
func (c *Cell) unseal(ctx context.Context, root *seal.Root) error {
	s, err := c.open(ctx, root)
	if err != nil {
		// The custodian is told to look here.
		c.log.Error("the organization could not be opened", "kind", errs.KindOf(err).String(), "at", path(err))
		return errs.Wrap("cell.unseal", err)
	}
	c.gate.open(s)
	c.log.Info("unsealed")
	return nil
}

// sealed closes everything; the root is gone already.
func (c *Cell) sealed(ctx context.Context) {
	if s := c.gate.close(ctx); s != nil {
		if err := s.close(); err != nil {
			inside(c.log).Error("closing after the seal", "error", err)
		}
	}
	c.log.Info("sealed")
}

// open wires the layers from the bottom up; what an error leaves behind is closed.
func (c *Cell) open(ctx context.Context, root *seal.Root) (s *services, err error) {
	// What is started here outlives the request that brought the last share.
	life, stop := context.WithCancel(context.WithoutCancel(ctx))
	log := inside(c.log)
	s = &services{log: log, stop: stop}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
			s = nil
		}
	}()
	if err := c.openKeys(ctx, root, s); err != nil {
		return s, err
	}
	engine, err := blobdir.Open(c.blobDir(), c.fs)
	if err != nil {
		return s, err
	}
	s.directory = identity.Open(s.store)
	certificates, err := identity.OpenCertificates(ctx, s.store, identity.CertificateOptions{Names: c.names()})
	if err != nil {
		return s, err
	}
	s.objects, err = objects.New(ctx, objects.Options{
		Store: s.store, Blobs: blobs.New(engine), Keys: s.ring, Organization: c.config.Organization, Region: c.region(),
		Room: c.room,
	})
	if err != nil {
		return s, err
	}
	s.s3 = s3.New(s3.Options{
		Objects: s.objects, Keys: s.directory, Policy: policy.New(), Region: c.region(), OtherRegions: []string{classicRegion},
		Domains: []string{c.host("s3")},
		// The error may name an object: only its kind goes to the log, which the zone keeps.
		Failed: func(id string, err error) {
			c.log.Error("an S3 request failed", "request", id, "kind", errs.KindOf(err).String())
		},
	})
	s.control, err = control.New(life, control.Options{
		Store: s.store, Objects: s.objects, Directory: s.directory, Keys: s.ring, Custody: custody{c}, CACertificate: []byte(certificates.CACertificate()),
		Organization: c.config.Organization, Region: c.region(), Version: c.version,
		S3Endpoint: "https://" + c.host("s3") + ":" + strconv.Itoa(c.config.S3Port), Logger: foreign(c.log), Admit: c.admit,
	})
	if err != nil {
		return s, err
	}
	s.run(func() { s.trim(life) })
	s.run(func() {
		certificates.Run(life, func(err error) { log.Error("the certificate was not renewed", "error", err) })
	})
	s.run(func() {
		if err := s.objects.Run(life, log); err != nil && life.Err() == nil {
			c.log.Error("the sweep ended", "kind", errs.KindOf(err).String())
		}
	})
	s.run(func() {
		if err := s.control.Run(life); err != nil && life.Err() == nil {
			c.log.Error("the reconcilers ended", "kind", errs.KindOf(err).String())
			c.stop() // a cell without its reconcilers is only half there: begin anew
		}
	})
	c.certificates.Store(certificates)
	return s, nil
}

// openKeys opens what all else rests on, the store and the key ring, and proves
// that both are under root. Errors: errs.Corrupt if they are not, errs.Destroyed if
// the organization's key was destroyed.
func (c *Cell) openKeys(ctx context.Context, root *seal.Root, s *services) (err error) {
	key, err := unwrapStoreKey(c.fs, c.keyFile(), c.config.Organization, root)
	if err != nil {
		return err
	}
	defer clear(key)
	if s.store, err = c.openStore(ctx, key, true); err != nil {
		return err
	}
	if s.ring, err = keys.Open(ctx, s.store, root, c.config.Organization); err != nil {
		return err
	}
	if _, _, err := s.ring.Generations(ctx); err != nil {
		return err
	}
	// What a rotation left that was given up is under a root that nobody will have.
	return removeAll(c.fs, c.nextKeyFile())
}

func (s *services) run(f func()) { s.running.Go(f) }

// close ends everything from the top down. The keys go even if something above fails.
func (s *services) close() error {
	if s.control != nil {
		// k8s.io/apiserver ends the whole process (klog.Fatalf in its hooks.go) when it
		// is stopped before its start hooks are through, half a second after unseal.
		started, done := context.WithTimeout(context.Background(), startTime)
		_ = s.control.Ready(started) // not ready in time: the end is rough, and still an end
		done()
	}
	s.stop()
	// Reconcilers first: they would complain of the API server's end.
	s.running.Wait()
	var problems []error
	if s.control != nil {
		s.control.Stop()
	}
	if s.directory != nil {
		s.directory.Forget()
	}
	if s.ring != nil {
		problems = append(problems, s.ring.Close())
	}
	if s.store != nil {
		problems = append(problems, s.store.Close())
	}
	return errors.Join(problems...)
}

// host is the name of a service of this organization.
func (c *Cell) host(service string) string {
	return service + "." + c.config.Organization + "." + c.config.Domain
}

// names are what the organization's certificate is for.
func (c *Cell) names() []string {
	return append([]string{c.host("s3"), "*." + c.host("s3"), c.host("api")}, c.config.ExtraNames...)
}

// removeAll removes files and directory trees, durably.
func removeAll(fsys files.FS, paths ...string) error {
	for _, path := range paths {
		info, err := fsys.Stat(path)
		if errs.Is(err, errs.NotFound) {
			continue
		}
		if err != nil {
			return err
		}
		if info.Dir {
			entries, err := fsys.ReadDir(path)
			if err != nil {
				return err
			}
			for _, e := range entries {
				if err := removeAll(fsys, filepath.Join(path, e.Name)); err != nil {
					return err
				}
			}
		}
		if err := fsys.Remove(path); err != nil {
			return err
		}
		if err := fsys.SyncDir(filepath.Dir(path)); err != nil {
			return err
		}
	}
	return nil
}
