package control

import (
	"context"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"

	"chancery/api/v1alpha1"
	"chancery/wall"
	"chancery/zone/cells"
)

// watchEvery is how often the supervisor is asked. It answers from memory.
const watchEvery = 250 * time.Millisecond

// watcher wakes the reconciler when what the supervisor tells has changed.
type watcher struct {
	cells   Cells
	client  client.Client
	changed chan event.GenericEvent
	seen    map[string]glimpse
}

// glimpse is what of a cell's status ends up in an Organization.
type glimpse struct {
	exists      bool
	phase       cells.Phase
	restarts    int
	state       wall.SealState
	shares      int
	ca, pin     string
	version     string
	startedUnix int64
}

func newWatcher(c Cells, k client.Client) *watcher {
	return &watcher{cells: c, client: k, changed: make(chan event.GenericEvent), seen: map[string]glimpse{}}
}

func (w *watcher) run(ctx context.Context) error {
	ticker := time.NewTicker(watchEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		var all v1alpha1.OrganizationList
		if err := w.client.List(ctx, &all); err != nil {
			continue // the cache is not filled yet
		}
		now := map[string]glimpse{}
		for i := range all.Items {
			name := all.Items[i].Name
			now[name] = w.look(name)
			if old, known := w.seen[name]; known && old == now[name] {
				continue
			}
			select {
			case w.changed <- event.GenericEvent{Object: &v1alpha1.Organization{ObjectMeta: metav1.ObjectMeta{Name: name}}}:
			case <-ctx.Done():
				return nil
			}
		}
		w.seen = now
	}
}

func (w *watcher) look(name string) glimpse {
	st, ok := w.cells.Status(name)
	return glimpse{
		exists: ok, phase: st.Phase, restarts: st.Restarts, state: st.Cell.State, shares: st.Cell.SharesGiven,
		ca: st.Cell.CACertificate, pin: st.Cell.IdentityPin, version: st.Cell.Version, startedUnix: st.Started.Unix(),
	}
}
