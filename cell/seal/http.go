package seal

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"

	"chancery/internal/errs"
	"chancery/wall"
)

// Handler serves the seal service (wall.PathSealPrefix): what a custodian needs
// to unseal. It asks for no credential, since a sealed cell knows nobody: shares
// and the bootstrap credential go out encrypted to custodians, and only genuine
// shares are taken. Serve it over TLS with the Keeper's Identity alone.
func Handler(k *Keeper) http.Handler {
	h := &handler{k}
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+wall.PathSealStatus, h.status)
	mux.HandleFunc("GET "+wall.PathSealShare, h.share)
	mux.HandleFunc("POST "+wall.PathSealUnseal, h.unseal)
	mux.HandleFunc("GET "+wall.PathSealBootstrap, h.bootstrap)
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		answerError(w, errs.New(errs.NotFound, "seal.Handler", "the seal service has no such path or method"))
	})
	return mux
}

type handler struct{ k *Keeper }

func (h *handler) status(w http.ResponseWriter, _ *http.Request) { answer(w, h.k.Status()) }

func (h *handler) share(w http.ResponseWriter, r *http.Request) {
	file, err := h.k.Share(r.URL.Query().Get("custodian"))
	answerFile(w, file, err)
}

func (h *handler) bootstrap(w http.ResponseWriter, _ *http.Request) {
	file, err := h.k.Bootstrap()
	answerFile(w, file, err)
}

func (h *handler) unseal(w http.ResponseWriter, r *http.Request) {
	const op = "seal.Handler"
	// One byte more than allowed tells "too large" from "just fits". A fixed
	// buffer, so that no half-grown copies of a share are left behind.
	buf := make([]byte, wall.MaxSharePayload+1)
	defer clear(buf)
	n, err := io.ReadFull(r.Body, buf)
	switch {
	case err == nil:
		answerError(w, errs.New(errs.Invalid, op, "a share has at most %d bytes", wall.MaxSharePayload))
		return
	case !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF):
		answerError(w, errs.New(errs.Invalid, op, "the body could not be read"))
		return
	}
	st, err := h.k.SubmitShare(r.Context(), buf[:n])
	if err != nil {
		answerError(w, err)
		return
	}
	answer(w, st)
}

// Share gives a custodian's share file, encrypted to him. Errors: errs.NotFound.
func (k *Keeper) Share(custodian string) (string, error) {
	const op = "seal.Share"
	if k == nil || k.op == nil {
		return "", sealedError(op)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if c := k.currentLocked(); c != nil {
		for _, cu := range c.Custodians {
			if cu.Name == custodian {
				return cu.Share, nil
			}
		}
	}
	return "", errs.New(errs.NotFound, op, "there is no share for this custodian")
}

// Bootstrap gives the first administrator's credential, encrypted to all
// custodians. Errors: errs.NotFound.
func (k *Keeper) Bootstrap() (string, error) {
	const op = "seal.Bootstrap"
	if k == nil || k.op == nil {
		return "", sealedError(op)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if c := k.currentLocked(); c != nil && c.Bootstrap != "" {
		return c.Bootstrap, nil
	}
	return "", errs.New(errs.NotFound, op, "there is no bootstrap credential")
}

func answer(w http.ResponseWriter, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		answerError(w, err)
		return
	}
	send(w, http.StatusOK, "application/json", append(b, '\n'))
}

func answerFile(w http.ResponseWriter, file string, err error) {
	if err != nil {
		answerError(w, err)
		return
	}
	send(w, http.StatusOK, "application/x-age-encryption", []byte(file))
}

func send(w http.ResponseWriter, status int, contentType string, b []byte) {
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write(b) // the client may be gone
}

// answerError sends a wall.Failure. Causes stay inside: only our own sentence
// goes out, and for a failure of ours or of the disk a constant one.
func answerError(w http.ResponseWriter, err error) {
	kind := errs.KindOf(err)
	status, message := http.StatusInternalServerError, "the cell failed; its own log tells more"
	switch kind {
	case errs.Invalid:
		status = http.StatusBadRequest
	case errs.Denied:
		status = http.StatusForbidden
	case errs.NotFound:
		status = http.StatusNotFound
	case errs.Conflict, errs.Exists:
		status = http.StatusConflict
	case errs.Destroyed:
		status = http.StatusGone
	case errs.Unavailable, errs.Sealed:
		status = http.StatusServiceUnavailable
	case errs.Corrupt:
		message = "the organization's stored state is damaged or was changed; its own log tells more"
	}
	if status != http.StatusInternalServerError {
		message = sentence(err, kind)
	}
	b, _ := json.Marshal(wall.Failure{Kind: kind.String(), Message: message}) // two strings always encode
	send(w, status, "application/json", append(b, '\n'))
}

// sentence gives the outermost message of our own in err's chain.
func sentence(err error, kind errs.Kind) string {
	for err != nil {
		e, ok := errors.AsType[*errs.Error](err)
		if !ok {
			break
		}
		if e.Message != "" {
			return e.Message
		}
		err = e.Err
	}
	return kind.String()
}
