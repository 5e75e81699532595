package restore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/plugins"
)

// Journal remembers what a restore has done, so that a run that was killed can go on. It is only ever appended to.
type Journal interface {
	// Replay calls fn with every whole record, in the order in which they were appended, and stops at fn's first error. A record that
	// a kill cut off is passed over.
	Replay(ctx context.Context, fn func(Record) error) error
	// Append adds records. Once it has returned, they survive the death of the process. It is safe for concurrent use.
	Append(ctx context.Context, records ...Record) error
	// Close ends the use of the journal.
	Close() error
}

// Record is one entry of a journal; exactly one field is set.
type Record struct {
	Start *Start      `json:"start,omitempty"`
	Item  *ItemRecord `json:"item,omitempty"`
	Hook  *HookRecord `json:"hook,omitempty"`
	End   *End        `json:"end,omitempty"`
}

// Start is the first record of a journal: what was asked for, of which backup, for which cluster.
type Start struct {
	Name      string               `json:"name"`
	UID       string               `json:"uid"`
	Spec      v1alpha1.RestoreSpec `json:"spec"`
	Backup    string               `json:"backup"`
	BackupUID string               `json:"backupUID"`
	Target    v1alpha1.ClusterInfo `json:"target"`
	// ServerTime is the target's clock when the restore began: what is older is not the restore's.
	ServerTime time.Time `json:"serverTime"`
	// Started is the clock of the machine that ran the restore.
	Started time.Time `json:"started"`
	Kedge   string    `json:"kedge,omitempty"`
}

// ItemRecord says what became of one object.
type ItemRecord struct {
	// Ref is the object in the backup.
	Ref     plugins.Ref `json:"ref"`
	Outcome Outcome     `json:"outcome"`
	// UID is the object's in the target, where it is known.
	UID string `json:"uid,omitempty"`
	// Posted says that the object was created and that its status or its field managers may still be missing.
	Posted bool `json:"posted,omitempty"`
	// Entries are the object's lines of the report.
	Entries []Entry `json:"entries,omitempty"`
}

// HookRecord says that the hooks of one pod were begun, or what became of them.
type HookRecord struct {
	// Ref is the object in the backup whose pod it is.
	Ref plugins.Ref `json:"ref"`
	// Pod is the pod's uid in the target.
	Pod   string `json:"pod"`
	Ended bool   `json:"ended,omitempty"`
	// Failed is how many commands failed that may not.
	Failed  int     `json:"failed,omitempty"`
	Entries []Entry `json:"entries,omitempty"`
}

// End is the last record of a run; the journal of a run that was killed lacks it, and a cancelled one can go on behind it.
type End struct {
	Phase     v1alpha1.Phase `json:"phase"`
	Completed time.Time      `json:"completed"`
}

// ErrJournalMismatch means that a journal was written by another restore than the one that would go on with it.
var ErrJournalMismatch = errors.New("the journal belongs to another restore")

// ReadStart gives the first record of a journal; nil where it is empty.
func ReadStart(ctx context.Context, j Journal) (*Start, error) {
	var start *Start
	stop := errors.New("found")
	err := j.Replay(ctx, func(r Record) error {
		if r.Start == nil {
			return fmt.Errorf("read the journal: it does not begin with a start: use the file of a restore, or another one")
		}
		start = r.Start
		return stop
	})
	if err != nil && !errors.Is(err, stop) {
		return nil, err
	}
	return start, nil
}

// matches refuses to go on with a journal of another restore.
func (s *Start) matches(p *Plan) error {
	switch {
	case s.BackupUID != p.Source.UID:
		return fmt.Errorf("%w: it restores backup %s (%s), not %s (%s)", ErrJournalMismatch, s.Backup, s.BackupUID, p.Source.Name, p.Source.UID)
	case s.Target.UID != p.Target.UID:
		return fmt.Errorf("%w: it restores into cluster %s (%s), not %s (%s): choose the context that the restore began with",
			ErrJournalMismatch, s.Target.Name, s.Target.UID, p.Target.Name, p.Target.UID)
	case s.Name != p.Request.Name || s.UID != p.Request.UID:
		return fmt.Errorf("%w: it is of restore %s (%s), not %s (%s)", ErrJournalMismatch, s.Name, s.UID, p.Request.Name, p.Request.UID)
	}
	return nil
}
