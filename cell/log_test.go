package cell

import (
	"bytes"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"chancery/internal/errs"
)

func TestDiscreet(t *testing.T) {
	var buf bytes.Buffer
	base := slog.New(slog.NewJSONHandler(&buf, nil))
	const secret = "bucket-of-patients"
	log := inside(base)
	log.Error("the sweep ended", "error", errs.New(errs.Corrupt, "op", "%s", secret), "bucket", secret, "n", 7, "kind", "corrupt",
		slog.Group("g", "name", secret), "any", struct{ S string }{secret}, "bytes", []byte(secret))
	log.With("name", secret, "count", 3).WithGroup(secret).Warn("again", "after", time.Second)
	foreign(base).Info("nothing")
	foreign(base).Warn("cannot update "+secret, "err", errors.New(secret))
	out := buf.String()
	if strings.Contains(out, secret) {
		t.Errorf("a name came through: %s", out)
	}
	for _, want := range []string{`"n":7`, `"count":3`, `"kind":"corrupt"`, `"error":"corrupt"`, "the sweep ended", "TestDiscreet"} {
		if !strings.Contains(out, want) {
			t.Errorf("%s is missing: %s", want, out)
		}
	}
}

func TestCalm(t *testing.T) {
	var buf bytes.Buffer
	h := calm(slog.New(slog.NewJSONHandler(&buf, nil)), http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("secret value") }))
	srv := httptest.NewServer(h)
	defer srv.Close()
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	if resp, err := http.Get(srv.URL); err == nil {
		resp.Body.Close()
		t.Error("a panic was answered")
	}
	resp, err := http.Get(srv.URL + "/again")
	if err == nil {
		resp.Body.Close()
	}
	if out := buf.String(); strings.Contains(out, "secret value") || !strings.Contains(out, "TestCalm") {
		t.Errorf("log: %s", out)
	}
}
