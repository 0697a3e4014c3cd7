package pebblestore

import (
	"sync"

	"github.com/cockroachdb/pebble/v2"
)

// scheduler lets Pebble run one compaction at a time, and none before the store
// is open: when opening fails, Pebble tears down what a running compaction uses.
// Pebble's own scheduler also wakes ten times a second for ever, which an idle
// cell should not.
type scheduler struct {
	mu      sync.Mutex
	db      pebble.DBForCompaction
	enabled bool
	running bool
	// refused counts the compactions that had to wait; Pebble does not ask again.
	// Up to settled it is known that nothing waits any more.
	refused, settled uint64
	closed           bool
	calls            sync.WaitGroup // into db
	before           func()         // is called before the next compaction may begin
}

var (
	_ pebble.CompactionScheduler   = (*scheduler)(nil)
	_ pebble.CompactionGrantHandle = (*scheduler)(nil)
)

func (s *scheduler) Register(_ int, db pebble.DBForCompaction) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.db = db
}

// Unregister waits for running calls into the database.
func (s *scheduler) Unregister() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.calls.Wait()
}

// TrySchedule is called under the database's mutex.
func (s *scheduler) TrySchedule() (bool, pebble.CompactionGrantHandle) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || !s.enabled || s.running {
		s.refused++
		return false, nil
	}
	s.running = true
	return true, s
}

func (s *scheduler) UpdateGetAllowedWithoutPermission() {} // one is allowed, always

// enable begins to let compactions run.
func (s *scheduler) enable() {
	s.mu.Lock()
	s.enabled = true
	s.mu.Unlock()
	s.grant()
}

// Done ends a compaction and begins one that was refused meanwhile.
func (s *scheduler) Done() {
	if s.before != nil {
		s.before()
	}
	s.mu.Lock()
	s.running = false
	s.mu.Unlock()
	s.grant()
}

func (s *scheduler) grant() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for !s.closed && s.enabled && !s.running && s.db != nil && s.settled < s.refused {
		s.running = true
		seen := s.refused
		s.calls.Add(1)
		s.mu.Unlock()
		accepted := s.db.Schedule(s)
		s.calls.Done()
		s.mu.Lock()
		if accepted {
			return // there may be more: Done asks again
		}
		s.running, s.settled = false, seen
	}
}

func (s *scheduler) Started()                                          {}
func (s *scheduler) MeasureCPU(pebble.CompactionGoroutineKind)         {}
func (s *scheduler) CumulativeStats(pebble.CompactionGrantHandleStats) {}
