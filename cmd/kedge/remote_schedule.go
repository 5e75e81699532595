package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/internal/term"
)

func (r *remote) createSchedule(ctx context.Context, args []string, f *scheduleFlags) error {
	const command = "create schedule"
	if err := r.app.completeSchedule(f, args); err != nil {
		return atCommand(command, err)
	}
	if err := r.checkNamespace(f.object.Namespace); err != nil {
		return usageError(fmt.Errorf("%s: %w", command, err), "")
	}
	s := &v1alpha1.Schedule{ObjectMeta: metav1.ObjectMeta{Name: f.object.Name, Labels: f.object.Labels, Annotations: f.object.Annotations}, Spec: f.object.Spec}
	if err := r.create(ctx, s); err != nil {
		return fmt.Errorf("%s %s: %w", command, s.Name, err)
	}
	if err := r.app.printObject(&f.out, scheduleOut(s), s.Name, "Schedule %s is made.", s.Name); err != nil {
		return err
	}
	r.app.ui.Note("\"kedge schedule get %s\" shows when it runs next; \"kedge schedule run %s\" makes a backup now.", s.Name, s.Name)
	return nil
}

// scheduleOut is a schedule as commands print it.
func scheduleOut(s *v1alpha1.Schedule) *v1alpha1.Schedule {
	s.TypeMeta = metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "Schedule"}
	s.ManagedFields = nil
	return s
}

func (r *remote) findSchedule(ctx context.Context, name string) (*v1alpha1.Schedule, error) {
	var s v1alpha1.Schedule
	if err := r.get(ctx, name, &s); err != nil {
		return nil, fmt.Errorf("find schedule %s: %w", name, err)
	}
	return &s, nil
}

// schedules gives the schedule of a name, or all where it is "".
func (r *remote) schedules(ctx context.Context, name string) ([]v1alpha1.Schedule, error) {
	if name != "" {
		s, err := r.findSchedule(ctx, name)
		if err != nil {
			return nil, err
		}
		return []v1alpha1.Schedule{*s}, nil
	}
	var list v1alpha1.ScheduleList
	if err := r.list(ctx, &list); err != nil {
		return nil, fmt.Errorf("list the schedules: %w", err)
	}
	slices.SortFunc(list.Items, func(x, y v1alpha1.Schedule) int { return cmp.Compare(x.Name, y.Name) })
	return list.Items, nil
}

func (r *remote) getSchedules(ctx context.Context, out *outputFlag, names []string) error {
	found, err := r.schedules(ctx, strings.Join(names, ""))
	if err != nil {
		return err
	}
	if out.structured() {
		return printList(r.app, out, found, len(names) == 1, "ScheduleList", func(s *v1alpha1.Schedule) { scheduleOut(s) })
	}
	if out.format == formatName {
		for i := range found {
			r.app.printf("%s\n", found[i].Name)
		}
		return nil
	}
	return r.app.printTable(scheduleTable(found, r.app.env.Now()), out.format, "No schedules in namespace "+r.namespace+".")
}

func scheduleTable(found []v1alpha1.Schedule, now time.Time) *term.Table {
	table := &term.Table{Columns: []term.Column{
		{Name: "NAME"}, {Name: "SCHEDULE"}, {Name: "TIME ZONE"}, {Name: "PAUSED"}, {Name: "HEALTHY", Color: healthColor}, {Name: "LAST SUCCESS"}, {Name: "NEXT RUN"}, {Name: "LAST BACKUP"},
		{Name: "MISSED", Right: true, Wide: true}, {Name: "ACTIVE", Wide: true}, {Name: "LOCATION", Wide: true},
	}}
	for i := range found {
		o := &found[i]
		s := &o.Status
		paused, next := "no", ""
		if o.Spec.Paused {
			paused = "yes"
		}
		if s.NextRun != nil {
			next = "in " + term.Age(s.NextRun.Time, now)
		}
		success := "never"
		if s.LastSuccess != nil {
			success = term.Age(now, s.LastSuccess.Time) + " ago"
		}
		table.Add(o.Name, o.Spec.Schedule, orElse(o.Spec.TimeZone, "UTC"), paused, healthText(s.Conditions), success, next, s.LastBackup,
			term.Count(s.MissedRuns), s.Active, o.Spec.Template.Spec.StorageLocation)
	}
	return table
}

// healthText sums the conditions of a schedule up: yes, or the reason why not.
func healthText(conditions []metav1.Condition) string {
	if c := meta.FindStatusCondition(conditions, "Ready"); c != nil && c.Status == metav1.ConditionFalse {
		return c.Reason
	}
	c := meta.FindStatusCondition(conditions, "Healthy")
	switch {
	case c == nil:
		return "unknown"
	case c.Status == metav1.ConditionTrue:
		return "yes"
	}
	return c.Reason
}

func healthColor(text string) term.Color {
	switch text {
	case "yes":
		return term.Green
	case "unknown":
		return term.Yellow
	}
	return term.Red
}

func (r *remote) describeSchedule(ctx context.Context, out *outputFlag, name string) error {
	o, err := r.findSchedule(ctx, name)
	if err != nil {
		return err
	}
	if out.structured() {
		return r.app.printStructured(out.format, scheduleOut(o))
	}
	s := &o.Status
	d := r.app.describe()
	d.field("Name", o.Name)
	d.field("Schedule", o.Spec.Schedule)
	d.field("Time zone", orElse(o.Spec.TimeZone, "UTC"))
	d.flag("Paused", o.Spec.Paused)
	d.field("Healthy", healthText(s.Conditions))
	for _, at := range []struct {
		name string
		time *metav1.Time
	}{{"Next run", s.NextRun}, {"Last run", s.LastRun}, {"Last success", s.LastSuccess}} {
		if at.time != nil {
			d.moment(at.name, at.time.Time)
		}
	}
	d.field("Active backup", s.Active)
	d.field("Last backup", s.LastBackup)
	d.field("Last successful backup", s.LastSuccessfulBackup)
	if s.MissedRuns > 0 {
		d.field("Missed runs", term.Count(s.MissedRuns))
	}
	r.app.printSpec(o.Spec)
	r.app.printConditions(s.Conditions)
	return nil
}

func (r *remote) pauseSchedule(ctx context.Context, name string, paused bool) error {
	s, err := r.findSchedule(ctx, name)
	if err != nil {
		return err
	}
	word := "paused"
	if !paused {
		word = "running"
	}
	if s.Spec.Paused == paused {
		r.app.ui.Note("Schedule %s is %s already.", name, word)
		return nil
	}
	patch := fmt.Sprintf(`{"spec":{"paused":%t}}`, paused)
	if !paused { // who unpauses a schedule that a restore brought has looked
		patch = fmt.Sprintf(`{"metadata":{"annotations":{%q:null}},"spec":{"paused":false}}`, v1alpha1.RestoredAnnotation)
	}
	if err := r.merge(ctx, s, patch); err != nil {
		return fmt.Errorf("change schedule %s: %w", name, err)
	}
	r.app.ui.Note("Schedule %s is %s.", name, word)
	return nil
}

// runSchedule asks for a backup now; with wait it finds that backup and follows it.
func (r *remote) runSchedule(ctx context.Context, out *outputFlag, name string, wait bool) error {
	s, err := r.findSchedule(ctx, name)
	if err != nil {
		return err
	}
	wanted := r.app.env.Now().UTC().Format(time.RFC3339Nano)
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]string{v1alpha1.RunRequestedAnnotation: wanted}}})
	if err != nil {
		return fmt.Errorf("run schedule %s: %w", name, err)
	}
	before := s.Status.LastBackup
	if err := r.merge(ctx, s, string(patch)); err != nil {
		return fmt.Errorf("run schedule %s: %w", name, err)
	}
	if !wait {
		r.app.ui.Note("A backup is asked for; \"kedge backup get -l %s=%s\" shows it.", v1alpha1.ScheduleLabel, name)
		return nil
	}
	err = r.follow(ctx, s, func() bool { return s.Status.LastRunRequest == wanted && s.Status.LastBackup != before })
	if ctx.Err() != nil {
		return codeError(exitCancelled, fmt.Errorf("run schedule %s: no longer followed; the backup is asked for", name), fmt.Sprintf("\"kedge schedule describe %s\" shows what became of it", name))
	}
	if err != nil {
		return fmt.Errorf("run schedule %s: %w", name, err)
	}
	b := &v1alpha1.Backup{ObjectMeta: metav1.ObjectMeta{Name: s.Status.LastBackup}}
	return r.waitBackup(ctx, b, out)
}

func (r *remote) deleteSchedule(ctx context.Context, name string) error {
	s, err := r.findSchedule(ctx, name)
	if err != nil {
		return err
	}
	if err := r.delete(ctx, s); err != nil {
		return fmt.Errorf("delete schedule %s: %w", name, err)
	}
	r.app.ui.Note("Schedule %s is deleted. The backups that it made stay; \"kedge backup get -l %s=%s\" lists them.", name, v1alpha1.ScheduleLabel, name)
	return nil
}
