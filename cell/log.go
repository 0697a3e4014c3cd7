package cell

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime"
	"strings"
	"time"

	"chancery/internal/errs"
)

// The zone keeps what a cell logs: the log is outside the wall. Once the
// organization is open, messages and errors of the layers below (and of the
// Kubernetes libraries) may name buckets, objects and people, so they pass
// through discreet, which lets through only what cannot.

// discreet is a slog.Handler that lets pass: messages that are constant in our
// own source, numbers, times, and words under the keys of plainKeys. An error is
// shown as its kind. Everything else is left out, and how much is told.
type discreet struct {
	next slog.Handler
	// foreign handlers serve libraries whose messages are made with names inside:
	// not even the message passes, only where it came from.
	foreign bool
}

// plainKeys name attributes whose values are words of ours, never a customer's.
var plainKeys = map[string]bool{"state": true, "kind": true, "op": true, "request": true, "reason": true, "controller": true, "phase": true}

func (d discreet) Enabled(ctx context.Context, l slog.Level) bool {
	if d.foreign && l < slog.LevelWarn {
		return false // without its words, ordinary talk says nothing
	}
	return d.next.Enabled(ctx, l)
}

func (d discreet) Handle(ctx context.Context, r slog.Record) error {
	message := r.Message
	if d.foreign {
		message = "a library speaks; its words may hold names and stay inside"
	}
	out := slog.NewRecord(r.Time, r.Level, message, 0)
	if d.foreign {
		out.AddAttrs(slog.String("at", place(r.PC)))
	}
	r.Attrs(func(a slog.Attr) bool {
		if kept, ok := discreetAttr(a); ok {
			out.AddAttrs(kept)
		}
		return true
	})
	return d.next.Handle(ctx, out)
}

func (d discreet) WithAttrs(attrs []slog.Attr) slog.Handler {
	var kept []slog.Attr
	for _, a := range attrs {
		if a, ok := discreetAttr(a); ok {
			kept = append(kept, a)
		}
	}
	return discreet{d.next.WithAttrs(kept), d.foreign}
}

func (d discreet) WithGroup(string) slog.Handler { return d } // a group's name may be anything

func discreetAttr(a slog.Attr) (slog.Attr, bool) {
	v := a.Value.Resolve()
	switch v.Kind() {
	case slog.KindBool, slog.KindDuration, slog.KindFloat64, slog.KindInt64, slog.KindUint64, slog.KindTime:
		return a, true
	case slog.KindString:
		return a, plainKeys[a.Key]
	case slog.KindAny:
		if err, ok := v.Any().(error); ok {
			return slog.String(a.Key, errs.KindOf(err).String()), true
		}
	}
	return slog.Attr{}, false
}

// path tells where an error arose without its words: the operations of its chain,
// outermost first. They are constants of our source; messages and subjects are not shown.
func path(err error) string {
	var ops []string
	for {
		e, ok := errors.AsType[*errs.Error](err)
		if !ok {
			return strings.Join(ops, ": ")
		}
		if e.Op != "" && (len(ops) == 0 || ops[len(ops)-1] != e.Op) {
			ops = append(ops, e.Op)
		}
		err = e.Err
	}
}

// place names the source line of a record: that of the library's program, not of its data.
func place(pc uintptr) string {
	if pc == 0 {
		return "unknown"
	}
	f, _ := runtime.CallersFrames([]uintptr{pc}).Next()
	return fmt.Sprintf("%s:%d", f.Function, f.Line)
}

// inside is the log for everything that runs while the organization is open.
func inside(log *slog.Logger) *slog.Logger { return slog.New(discreet{next: log.Handler()}) }

// foreign is the log for libraries that are not ours.
func foreign(log *slog.Logger) *slog.Logger {
	return slog.New(discreet{next: log.Handler(), foreign: true})
}

// calm keeps one request's panic from being seen as nothing at all: the server
// ends the connection, and the log tells where it was, without the values.
func calm(log *slog.Logger, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			p := recover()
			if p == nil {
				return
			}
			if p != http.ErrAbortHandler {
				log.Error("a request panicked", "type", fmt.Sprintf("%T", p), "at", trace(), "time", time.Now())
			}
			panic(http.ErrAbortHandler)
		}()
		h.ServeHTTP(w, r)
	})
}

// trace names the functions that were running, innermost first; no arguments.
func trace() string {
	pcs := make([]uintptr, 32)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(4, pcs)])
	var b strings.Builder
	for {
		f, more := frames.Next()
		if f.Function != "" && !strings.HasPrefix(f.Function, "runtime.") {
			fmt.Fprintf(&b, "%s:%d ", f.Function, f.Line)
		}
		if !more {
			return strings.TrimSpace(b.String())
		}
	}
}
