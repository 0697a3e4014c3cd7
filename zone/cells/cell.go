package cells

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"chancery/internal/errs"
	"chancery/internal/sandbox"
	"chancery/wall"
)

// Phase is what a cell's process does, seen from outside.
type Phase string

// The phases of a cell.
const (
	Starting Phase = "Starting" // runs, has not answered yet
	Running  Phase = "Running"  // answers
	Silent   Phase = "Silent"   // runs, no longer answers
	Waiting  Phase = "Waiting"  // ended; restarts at NextStart
	Stopped  Phase = "Stopped"
)

// Status is what the zone knows of a cell.
type Status struct {
	Organization string
	Phase        Phase
	PID          int
	HostUID      uint32
	Sandbox      sandbox.Mode
	Started      time.Time
	// Restarts counts since the supervisor began. LastExit tells how the process
	// last ended, with the last line of its log.
	Restarts  int
	LastExit  string
	NextStart time.Time
	// RSSBytes is the memory of the process, measured by the kernel.
	RSSBytes int64
	// Cell is what the cell said last, at Seen.
	Cell wall.Status
	Seen time.Time
}

// cell is one supervised cell.
type cell struct {
	s               *Supervisor
	dir             string
	dataDir, runDir string
	uid             uint32
	client          *Client
	log             *logFile
	stop            context.CancelFunc
	ctx             context.Context
	answered, ended chan struct{}
	once            sync.Once

	mu     sync.Mutex
	config wall.Config
	st     Status
	p      *sandbox.Process // the last one started
}

func (s *Supervisor) newCell(c wall.Config) (*cell, error) {
	dir, err := s.cellDirs(c.Organization)
	if err != nil {
		return nil, err
	}
	uid, err := s.uids.of(c.Organization)
	if err != nil {
		return nil, err
	}
	k := &cell{s: s, dir: dir, dataDir: filepath.Join(dir, "data"), runDir: filepath.Join(dir, "run"), uid: uid,
		answered: make(chan struct{}), ended: make(chan struct{}), config: c,
		st: Status{Organization: c.Organization, Phase: Starting, HostUID: uid, Sandbox: s.mode}}
	if err := adopt(k.dataDir, uid); err != nil {
		return nil, err
	}
	k.client = newClient(k.runDir)
	if k.log, err = openLog(filepath.Join(dir, "log")); err != nil {
		return nil, err
	}
	k.ctx, k.stop = context.WithCancel(context.Background())
	return k, nil
}

func (k *cell) setConfig(c wall.Config) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.config = c
}

// Status returns a copy.
func (k *cell) Status() Status {
	k.mu.Lock()
	st := k.st
	k.mu.Unlock()
	if st.Phase != Waiting && st.Phase != Stopped {
		st.RSSBytes = rss(st.PID)
	}
	return st
}

func (k *cell) update(f func(*Status)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	f(&k.st)
}

// run starts the cell again and again until it is stopped.
func (k *cell) run() {
	defer close(k.ended)
	defer k.log.Close()
	t := k.s.o.Timing
	pause := t.MinPause
	for k.ctx.Err() == nil {
		began := time.Now()
		why := k.runOnce()
		if k.ctx.Err() != nil {
			break
		}
		if time.Since(began) >= t.Healthy {
			pause = t.MinPause
		}
		k.update(func(st *Status) {
			st.Phase, st.PID, st.LastExit, st.NextStart, st.Cell = Waiting, 0, why, time.Now().Add(pause), wall.Status{}
			st.Restarts++
		})
		k.s.o.Log.Warn("a cell ended; it restarts sealed", "organization", k.st.Organization, "why", why, "pause", pause)
		select {
		case <-k.ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, t.MaxPause)
	}
	k.update(func(st *Status) { st.Phase, st.PID = Stopped, 0 })
}

// runOnce starts the cell once, watches it until it ends, and tells why it did.
func (k *cell) runOnce() string {
	p, err := k.start()
	if err != nil {
		return "could not start: " + err.Error()
	}
	k.update(func(st *Status) { st.Phase, st.PID, st.Started, k.p = Starting, p.PID(), p.Started(), p })
	reason := k.watch(p)
	if k.ctx.Err() != nil {
		k.shutdown(p)
	}
	k.client.forget()
	why := p.Exit()
	if reason != "" {
		why = reason + "; " + why
	}
	if last := k.log.last(); last != "" {
		why += ": " + last
	}
	return why
}

func (k *cell) start() (*sandbox.Process, error) {
	if _, err := k.s.cellDirs(k.st.Organization); err != nil {
		return nil, err
	}
	p, err := sandbox.Start(sandbox.Spec{Args: k.s.o.Args, Env: k.s.o.Env, Program: k.s.o.Program,
		DataDir: k.dataDir, RunDir: k.runDir, HostUID: k.uid, Mode: k.s.mode, ModeReason: k.s.reason, Log: k.log})
	if err != nil {
		return nil, err
	}
	k.mu.Lock()
	c := k.config
	k.mu.Unlock()
	c.DataDir, c.RunDir, c.Sandbox = p.DataDir(), p.RunDir(), string(p.Mode)
	line, err := json.Marshal(c)
	if err == nil {
		err = p.Send(line)
	}
	if err != nil {
		p.Kill()
		<-p.Done()
		return nil, errs.Wrap("cells.start", err)
	}
	return p, nil
}

// watch looks at the cell until it ends or is to be ended. It returns a reason
// if the supervisor itself ended it.
func (k *cell) watch(p *sandbox.Process) string {
	t := k.s.o.Timing
	seen := time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-p.Done():
			return ""
		case <-k.ctx.Done():
			return ""
		case <-timer.C:
		}
		ctx, cancel := context.WithTimeout(k.ctx, max(t.Silent/4, time.Second))
		st, err := k.client.Status(ctx)
		cancel()
		phase := Phase("")
		if err == nil {
			seen = time.Now()
			k.update(func(s *Status) { s.Phase, s.Cell, s.Seen = Running, st, seen })
			k.once.Do(func() { close(k.answered) })
		} else if time.Since(seen) > t.Silent {
			p.Kill()
			<-p.Done()
			return fmt.Sprintf("silent for %v, ended by the supervisor", t.Silent)
		} else {
			k.update(func(s *Status) {
				if s.Phase == Running {
					s.Phase = Silent
				}
				phase = s.Phase
			})
		}
		wait := t.Watch
		if phase == Starting {
			wait = min(wait, 20*time.Millisecond)
		}
		timer.Reset(wait)
	}
}

// shutdown asks the cell to end, waits, and then ends it.
func (k *cell) shutdown(p *sandbox.Process) {
	ctx, cancel := context.WithTimeout(context.Background(), k.s.o.Timing.Stop)
	defer cancel()
	if err := k.client.Shutdown(ctx); err == nil {
		select {
		case <-p.Done():
			return
		case <-ctx.Done():
		}
	}
	p.Kill()
	<-p.Done()
}

// end stops the cell, cleanly while ctx lasts and Timing.Stop allows.
func (k *cell) end(ctx context.Context) {
	k.stop()
	select {
	case <-k.ended:
	case <-ctx.Done():
		k.mu.Lock()
		p := k.p
		k.mu.Unlock()
		if p != nil {
			p.Kill()
		}
		<-k.ended
	}
}

// rss reads a process's resident memory; 0 if it is not there.
func rss(pid int) int64 {
	if pid <= 0 {
		return 0
	}
	f, err := os.Open(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 4096))
	if err != nil {
		return 0
	}
	var size, resident int64
	if _, err := fmt.Sscan(strings.TrimSpace(string(b)), &size, &resident); err != nil {
		return 0
	}
	return resident * int64(os.Getpagesize())
}
