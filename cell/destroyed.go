package cell

import (
	"context"
	"encoding/json"
	"net/http"

	"chancery/internal/errs"
)

// destroyKeys destroys the organization's key. From then on nothing opens; the next
// unsealing would find that out and end the destruction.
func (c *Cell) destroyKeys(ctx context.Context) error {
	const op = "cell.destroyKeys"
	p, ok := c.gate.enter()
	if !ok {
		return errs.New(errs.Sealed, op, "the organization is sealed")
	}
	defer p.leave()
	if err := p.ring.DestroyOrganization(ctx); err != nil && !errs.Is(err, errs.Destroyed) {
		return errs.Wrap(op, err)
	}
	return nil
}

// destroyed removes what is left of a destroyed organization: first the store's
// key, without which the store's names and records are noise, then the noise.
func (c *Cell) destroyed(context.Context) {
	if err := removeAll(c.fs, c.nextKeyFile(), c.keyFile(), c.storeDir(), c.blobDir()); err != nil {
		inside(c.log).Error("what is left of the destroyed organization could not be removed; it is tried again at the next start", "error", err)
		return
	}
	c.log.Info("destroyed")
}

func answerS3Destroyed(w http.ResponseWriter, organization string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(http.StatusGone)
	// The organization is a DNS label: nothing in it needs escaping.
	_, _ = w.Write([]byte(`<?xml version="1.0" encoding="UTF-8"?>` + "\n<Error><Code>Destroyed</Code><Message>The organization " + organization +
		" was destroyed. Its data can never be read again.</Message></Error>"))
}

// answerAPIDestroyed answers a Kubernetes Status, which kubectl shows as it is.
func answerAPIDestroyed(w http.ResponseWriter, organization string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusGone)
	_ = json.NewEncoder(w).Encode(map[string]any{
		"kind": "Status", "apiVersion": "v1", "metadata": map[string]any{}, "status": "Failure", "code": http.StatusGone,
		"reason": "Gone", "message": "the organization " + organization + " was destroyed; its data can never be read again",
	})
}
