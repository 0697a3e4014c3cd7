package blobs

import (
	"context"
	"time"

	"chancery/internal/errs"
)

// Sweep removes orphans: blobs last written longer than olderThan ago that
// referenced does not know. It returns how many it removed, and their bytes on
// disk. Blobs being written are never touched. What is written but not yet
// published is guarded by its age alone: olderThan must be longer than the time
// between the end of a Write and the commit that names its id (an hour is ample).
//
// referenced is asked once for each candidate, outside any lock; its error ends
// the sweep. So does the end of ctx. A sweep can be repeated at any time.
func (s *Store) Sweep(ctx context.Context, olderThan time.Duration, referenced func(ID) (bool, error)) (removed int, bytes int64, err error) {
	const op = "blobs.Sweep"
	if err := s.ready(op); err != nil {
		return 0, 0, err
	}
	if olderThan < 0 || referenced == nil {
		return 0, 0, errs.New(errs.Invalid, op, "a negative age, or nobody to ask")
	}
	before := s.now().Add(-olderThan)
	for info, err := range s.engine.All(ctx) {
		if err == nil {
			err = ended(ctx, op)
		}
		if err != nil {
			return removed, bytes, errs.Wrap(op, err)
		}
		if info.Modified.After(before) || s.writing(info.ID) {
			continue
		}
		used, err := referenced(info.ID)
		if err != nil {
			return removed, bytes, errs.Wrap(op, err)
		}
		if used {
			continue
		}
		if err := s.engine.Remove(ctx, info.ID); err != nil {
			return removed, bytes, errs.Wrap(op, err)
		}
		removed++
		bytes += info.Size
	}
	return removed, bytes, nil
}

// now is the earlier of the wall clock and of the clock as it has run since New:
// a wall clock that is set forward must not make young blobs look old.
func (s *Store) now() time.Time {
	wall := time.Now()
	steady := s.opened.Round(0).Add(time.Since(s.opened)) // monotonic
	if steady.Before(wall) {
		return steady
	}
	return wall.Round(0)
}
