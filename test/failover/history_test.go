//go:build unix

package failover_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"kedge.dev/kedge/api/v1alpha1"
)

// life is what was seen of one object from its creation on.
type life struct {
	name, kind string
	phases     []string // each time it changed
	stage      string   // of its progress, the last
	final      bool
	attempts   int
	archive    string // of a Backup: which one it shows
	born       int    // its place in the order of all objects
	gone       bool
}

// history is everything that Kedge's objects went through. A watch shows every state that was written, where a look now and then does not.
type history struct {
	mu    sync.Mutex
	lives map[types.UID]*life
}

// watched are the kinds that a history is of.
func watched() []client.ObjectList {
	return []client.ObjectList{&v1alpha1.BackupList{}, &v1alpha1.RestoreList{}, &v1alpha1.DeleteBackupRequestList{}}
}

// newHistory begins a history, which ends with the test.
func newHistory(t *testing.T, c client.WithWatch) *history {
	t.Helper()
	h := &history{lives: map[types.UID]*life{}}
	var group sync.WaitGroup
	for _, kind := range watched() {
		group.Go(func() {
			for t.Context().Err() == nil { // an API server ends a watch after half an hour and more
				w, err := c.Watch(t.Context(), kind, client.InNamespace(namespace))
				if err != nil {
					select {
					case <-t.Context().Done():
					case <-time.After(100 * time.Millisecond):
					}
					continue
				}
				for e := range w.ResultChan() {
					h.note(e)
				}
				w.Stop()
			}
		})
	}
	t.Cleanup(group.Wait)
	return h
}

func (h *history) note(e watch.Event) {
	o, ok := e.Object.(client.Object)
	if !ok {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	l := h.lives[o.GetUID()]
	if l == nil {
		l = &life{name: o.GetName(), born: len(h.lives)}
		h.lives[o.GetUID()] = l
	}
	l.gone = l.gone || e.Type == watch.Deleted
	phase := ""
	switch o := o.(type) {
	case *v1alpha1.Backup:
		l.kind, phase, l.final, l.attempts = "Backup", string(o.Status.Phase), o.Status.Phase.Final(), o.Status.Attempts
		l.archive = o.Annotations[v1alpha1.ArchiveUIDAnnotation]
		if p := o.Status.Progress; p != nil {
			l.stage = p.Stage
		}
	case *v1alpha1.Restore:
		l.kind, phase, l.final, l.attempts = "Restore", string(o.Status.Phase), o.Status.Phase.Final(), o.Status.Attempts
		if p := o.Status.Progress; p != nil {
			l.stage = p.Stage
		}
	case *v1alpha1.DeleteBackupRequest:
		l.kind, phase, l.final = "DeleteBackupRequest", string(o.Status.Phase), o.Status.CompletionTime != nil
	}
	if n := len(l.phases); n == 0 || l.phases[n-1] != phase {
		l.phases = append(l.phases, phase)
	}
}

// of gives a copy of what was seen of an object.
func (h *history) of(uid types.UID) life {
	h.mu.Lock()
	defer h.mu.Unlock()
	if l := h.lives[uid]; l != nil {
		out := *l
		out.phases = slices.Clone(l.phases)
		return out
	}
	return life{}
}

// showing names the Backup objects that were made to show an archive.
func (h *history) showing(archiveUID string) []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var out []string
	for uid, l := range h.lives {
		if l.kind == "Backup" && l.archive == archiveUID && string(uid) != archiveUID {
			out = append(out, l.name)
		}
	}
	return out
}

// once says what is wrong with a life that should have come to the phase want, once, and stayed there.
func (l *life) once(want string) error {
	var finals []string
	for _, phase := range l.phases {
		if phase != "" && !slices.Contains([]string{"Queued", "InProgress", "Waiting"}, phase) {
			finals = append(finals, phase)
		}
	}
	if !l.final || !slices.Equal(finals, []string{want}) || l.phases[len(l.phases)-1] != want {
		return fmt.Errorf("%s %s went through %q, want %s once, at the end", l.kind, l.name, l.phases, want)
	}
	return nil
}
