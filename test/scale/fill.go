//go:build unix

package scale

import (
	"context"
	"crypto/rand"
	"fmt"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/uuid"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/plugins"
)

// fillAtOnce is how many backups are written at once.
const fillAtOnce = 8

// keep is until when no TTL ends and how many backups of a schedule its retention keeps: what is measured is a day on which nothing goes.
const (
	keepFor  = 90 * 24 * time.Hour
	keepLast = 1000
)

func scheduleName(i int) string { return fmt.Sprintf("schedule-%03d", i) }

// spec is what one of the schedules backs up.
func spec(i int) v1alpha1.BackupSpec {
	s := v1alpha1.BackupSpec{StorageLocation: place, TTL: metav1.Duration{Duration: keepFor}}
	s.IncludedNamespaces = []string{fmt.Sprintf("team-%03d", i)}
	return s
}

// fill writes the backups, each sealed and readable, in turn for each schedule: one a day until yesterday.
func (w *World) fill(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(fillAtOnce)
	days := (w.opts.Backups + w.opts.Schedules - 1) / w.opts.Schedules
	first := time.Now().UTC().Truncate(24*time.Hour).AddDate(0, 0, -days)
	for i := range w.opts.Backups {
		group.Go(func() error { return w.write(ctx, i%w.opts.Schedules, first.AddDate(0, 0, i/w.opts.Schedules)) })
	}
	return group.Wait()
}

func (w *World) write(ctx context.Context, schedule int, at time.Time) error {
	name := scheduleName(schedule) + "-" + at.Format("20060102150405")
	opts := archive.WriteOptions{Name: name, UID: string(uuid.NewUUID()), SpoolDir: filepath.Clean(w.opts.Dir), Kedge: "v0.0.0-scale", Now: time.Now, Rand: rand.Reader, Concurrency: 1}
	expires := at.Add(keepFor)
	_, err := w.archive.Write(ctx, opts, func(ctx context.Context, to *archive.Writer) (*archive.Summary, error) {
		section, err := to.Section(archive.SectionOptions{Version: "v1", Resource: "configmaps", Sorted: true})
		if err != nil {
			return nil, err
		}
		for n := range 3 {
			ref := plugins.Ref{Version: "v1", Resource: "configmaps", Namespace: fmt.Sprintf("team-%03d", schedule), Name: fmt.Sprintf("settings-%d", n)}
			raw := fmt.Appendf(nil, `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":%q,"namespace":%q},"data":{"day":%q}}`, ref.Name, ref.Namespace, at.Format(time.DateOnly))
			if err := section.Add(ctx, archive.Row{Ref: ref, Kind: "ConfigMap"}, raw); err != nil {
				return nil, err
			}
		}
		if err := section.Close(ctx); err != nil {
			return nil, err
		}
		return &archive.Summary{
			Labels: map[string]string{v1alpha1.ScheduleLabel: scheduleName(schedule)}, Spec: spec(schedule),
			Cluster: v1alpha1.ClusterInfo{UID: w.uid, Name: "house", Version: "v" + Version},
			Phase:   v1alpha1.PhaseCompleted, Revision: "4711", Started: at, Completed: at.Add(40 * time.Second), Expires: &expires,
		}, nil
	})
	return err
}

// schedule makes the schedules. None comes to a run while anything is measured.
func (w *World) schedule(ctx context.Context) error {
	far := time.Now().UTC().AddDate(0, 6, 0)
	for i := range w.opts.Schedules {
		s := &v1alpha1.Schedule{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: scheduleName(i)},
			Spec: v1alpha1.ScheduleSpec{
				Schedule: fmt.Sprintf("%d %d 1 %d *", i%60, i/60, far.Month()), Template: v1alpha1.BackupTemplate{Spec: spec(i)},
				Retention: &v1alpha1.RetentionPolicy{KeepLast: keepLast},
			},
		}
		if err := w.Client.Create(ctx, s); err != nil {
			return fmt.Errorf("create schedule %s: %w", s.Name, err)
		}
	}
	return nil
}
