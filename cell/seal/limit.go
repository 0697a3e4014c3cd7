package seal

import "time"

// Wrong shares that are answered in detail in one window, for each known bearer
// and for all strangers together.
const (
	wrongShares = 5
	wrongWindow = time.Minute
)

// limiter bounds how often wrong shares cost work. Someone without a genuine
// share can only use up the strangers' allowance, never lock a custodian out.
// The zero limiter is ready. Not safe for concurrent use (the Keeper's mu guards it).
type limiter struct {
	since map[string]time.Time
	count map[string]int
}

// blocked reports whether who used up his allowance.
func (l *limiter) blocked(who string, now time.Time) bool {
	return l.count[who] >= wrongShares && now.Sub(l.since[who]) < wrongWindow
}

// wrong counts a wrong share, and reports false if it is one too many. Keys are
// names of custodians of this organization or "", so the maps stay small.
func (l *limiter) wrong(who string, now time.Time) bool {
	if l.blocked(who, now) {
		return false
	}
	if l.since == nil {
		l.since, l.count = map[string]time.Time{}, map[string]int{}
	}
	if now.Sub(l.since[who]) >= wrongWindow {
		l.since[who], l.count[who] = now, 0
	}
	l.count[who]++
	return true
}
