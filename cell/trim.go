package cell

import (
	"context"
	"time"

	"chancery/internal/errs"
)

// trimEvery is how often what every reader of the change feed has passed is forgotten.
const trimEvery = time.Minute

// trim keeps the change feed from growing for ever.
func (s *services) trim(ctx context.Context) {
	t := time.NewTicker(trimEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			if _, err := s.store.Feed().Trim(ctx); err != nil && ctx.Err() == nil {
				s.log.Error("the change feed was not trimmed", "kind", errs.KindOf(err).String())
			}
		}
	}
}
