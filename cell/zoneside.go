package cell

import (
	"encoding/json"
	"io"
	"net/http"
	"runtime/metrics"

	"chancery/internal/errs"
	"chancery/internal/sandbox"
	"chancery/wall"
)

// maxMessage bounds a message from the zone, in bytes.
const maxMessage = 1 << 20

// wallHandler answers the zone's few messages. None of them unseals, and none reads data.
func (c *Cell) wallHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+wall.PathStatus, func(w http.ResponseWriter, _ *http.Request) { answer(w, c.status()) })
	mux.HandleFunc("POST "+wall.PathInit, func(w http.ResponseWriter, r *http.Request) {
		var in wall.Init
		if err := decode(r, &in); err != nil {
			answerFailure(w, http.StatusBadRequest, err)
			return
		}
		out, err := c.keeper.Init(r.Context(), in)
		if err != nil {
			answerFailure(w, statusOf(err), err)
			return
		}
		c.log.Info("initialized", "quorum", in.Quorum, "custodians", len(in.Custodians))
		answer(w, out)
	})
	mux.HandleFunc("POST "+wall.PathSeal, func(w http.ResponseWriter, r *http.Request) {
		if err := c.keeper.Seal(r.Context()); err != nil {
			answerFailure(w, statusOf(err), err)
			return
		}
		answer(w, c.status())
	})
	mux.HandleFunc("POST "+wall.PathProbe, func(w http.ResponseWriter, r *http.Request) {
		var in wall.Probe
		if err := decode(r, &in); err != nil {
			answerFailure(w, http.StatusBadRequest, err)
			return
		}
		answer(w, c.probe(r, in))
	})
	mux.HandleFunc("POST "+wall.PathShutdown, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusAccepted)
		c.stop()
	})
	return mux
}

// status is what the zone may know of the cell.
func (c *Cell) status() wall.Status {
	custody, ca, pin, memory := c.keeper.Custody()
	s := wall.Status{
		Organization: c.config.Organization, State: custody.State, Quorum: custody.Quorum, Custodians: custody.Custodians,
		SharesGiven: custody.SharesGiven, CACertificate: ca, IdentityPin: pin, Started: c.started, Version: c.version,
		RootKeyMemory: memory, RSSBytes: memoryUse(),
	}
	for _, m := range c.measures {
		s.Enforced = append(s.Enforced, wall.Measure(m))
	}
	return s
}

// memoryUse is what the Go runtime holds of the host's memory, in bytes. It is
// read without stopping the world; what the kernel counts, the zone sees itself.
func memoryUse() int64 {
	s := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(s)
	return int64(s[0].Value.Uint64() - s[1].Value.Uint64())
}

// probe tries to break out, as an attacker who has taken over this process would.
func (c *Cell) probe(r *http.Request, in wall.Probe) wall.ProbeReport {
	var out wall.ProbeReport
	for _, a := range sandbox.Attempts(r.Context(), sandbox.Probe(in)) {
		out.Attempts = append(out.Attempts, wall.Attempt(a))
	}
	return out
}

func decode(r *http.Request, into any) error {
	d := json.NewDecoder(io.LimitReader(r.Body, maxMessage))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return errs.New(errs.Invalid, "cell.decode", "not a message of the wall: %v", err)
	}
	return nil
}

func answer(w http.ResponseWriter, body any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(body) // the zone went away: nobody is left to tell
}

func statusOf(err error) int {
	switch errs.KindOf(err) {
	case errs.Invalid:
		return http.StatusBadRequest
	case errs.Exists, errs.Conflict:
		return http.StatusConflict
	case errs.Denied:
		return http.StatusForbidden
	case errs.NotFound:
		return http.StatusNotFound
	case errs.Destroyed:
		return http.StatusGone
	case errs.Sealed, errs.Unavailable:
		return http.StatusServiceUnavailable
	case errs.Exhausted:
		return http.StatusInsufficientStorage
	default:
		return http.StatusInternalServerError
	}
}
