package retention_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/server/retention"
)

const (
	ours  = "cluster-1"
	other = "cluster-2"
)

var now = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)

// at is a backup of schedule nightly, made at a time.
func at(t *testing.T, uid, started string) retention.Backup {
	t.Helper()
	when, err := time.Parse(time.RFC3339, started)
	if err != nil {
		t.Fatal(err)
	}
	return retention.Backup{
		Name: uid, UID: uid, Cluster: ours, Schedule: "nightly", Started: when, Completed: when.Add(time.Minute), Phase: v1alpha1.PhaseCompleted,
	}
}

// with changes a backup.
func with(b retention.Backup, change func(*retention.Backup)) retention.Backup {
	change(&b)
	return b
}

func ttl(end string) func(*retention.Backup) {
	return func(b *retention.Backup) {
		when, err := time.Parse(time.RFC3339, end)
		if err != nil {
			panic(err)
		}
		b.Expires = &when
	}
}

// verdicts writes decisions as "keep UID: reasons" and "remove UID: reason".
func verdicts(decisions []retention.Decision) []string {
	out := make([]string, len(decisions))
	for i, d := range decisions {
		verb := "remove "
		if d.Keep {
			verb = "keep "
		}
		out[i] = verb + d.Backup.UID + ": " + strings.Join(d.Reasons, "; ")
	}
	return out
}

func zone(t *testing.T, name string) *time.Location {
	t.Helper()
	z, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return z
}

func TestEvaluate(t *testing.T) {
	nightly := func(rules v1alpha1.RetentionPolicy) map[string]retention.Policy {
		return map[string]retention.Policy{"nightly": {Rules: rules}}
	}
	for name, c := range map[string]struct {
		backups  []retention.Backup
		policies map[string]retention.Policy
		inUse    map[string]string
		want     []string
	}{
		"no rules and no TTL: for ever": {
			backups:  []retention.Backup{at(t, "a", "2020-01-01T00:00:00Z"), at(t, "b", "2026-01-01T00:00:00Z")},
			policies: nightly(v1alpha1.RetentionPolicy{}),
			want:     []string{"keep a: no TTL and no rules", "keep b: no TTL and no rules; newest that can be restored"},
		},
		"a TTL that has ended, and one that has not": {
			backups: []retention.Backup{
				with(at(t, "a", "2026-11-01T00:00:00Z"), ttl("2026-11-02T00:00:00Z")),
				with(at(t, "edge", "2026-11-02T00:00:00Z"), ttl("2026-11-25T12:00:00Z")),
				with(at(t, "b", "2026-11-03T00:00:00Z"), ttl("2026-12-01T00:00:00Z")),
			},
			want: []string{
				"remove a: TTL ended 2026-11-02T00:00:00Z", "remove edge: TTL ended 2026-11-25T12:00:00Z",
				"keep b: TTL until 2026-12-01T00:00:00Z; newest that can be restored",
			},
		},
		"the last good one outlives its TTL, and a later failure": {
			backups: []retention.Backup{
				with(at(t, "good", "2026-01-01T00:00:00Z"), ttl("2026-01-02T00:00:00Z")),
				with(at(t, "partly", "2026-01-02T00:00:00Z"), func(b *retention.Backup) { b.Phase = v1alpha1.PhasePartiallyFailed; ttl("2026-01-03T00:00:00Z")(b) }),
				with(at(t, "failed", "2026-01-03T00:00:00Z"), func(b *retention.Backup) { b.Phase = v1alpha1.PhaseFailed; ttl("2026-01-04T00:00:00Z")(b) }),
			},
			policies: nightly(v1alpha1.RetentionPolicy{KeepLast: 1}),
			want: []string{
				"keep good: newest that is complete", "keep partly: newest that can be restored; keepLast 1 of 1",
				"remove failed: TTL ended 2026-01-04T00:00:00Z, it cannot be restored, so that no rule counts it",
			},
		},
		"of complete ones the newest alone, however many partial ones follow": {
			backups: []retention.Backup{
				at(t, "old", "2026-01-01T00:00:00Z"), at(t, "good", "2026-01-02T00:00:00Z"),
				with(at(t, "partly-1", "2026-01-03T00:00:00Z"), func(b *retention.Backup) { b.Phase = v1alpha1.PhasePartiallyFailed }),
				with(at(t, "partly-2", "2026-01-04T00:00:00Z"), func(b *retention.Backup) { b.Phase = v1alpha1.PhasePartiallyFailed }),
			},
			policies: nightly(v1alpha1.RetentionPolicy{KeepLast: 1}),
			want: []string{
				"remove old: no rule keeps it", "keep good: newest that is complete", "remove partly-1: no rule keeps it",
				"keep partly-2: newest that can be restored; keepLast 1 of 1",
			},
		},
		"a uid that occurs twice": {
			backups: []retention.Backup{
				at(t, "twin", "2026-01-01T00:00:00Z"), at(t, "torn", "2026-01-02T00:00:00Z"), at(t, "old", "2026-01-03T00:00:00Z"), at(t, "new", "2026-01-04T00:00:00Z"),
				with(at(t, "twin", "2026-01-01T00:00:00Z"), func(b *retention.Backup) { b.Name = "copy" }),
				{Name: "junk", UID: "torn", Unreadable: true},
			},
			policies: nightly(v1alpha1.RetentionPolicy{KeepLast: 1}),
			want: []string{
				"keep twin: its uid is ambiguous", "keep torn: its uid is ambiguous", "remove old: no rule keeps it",
				"keep new: newest that can be restored; keepLast 1 of 1", "keep twin: its uid is ambiguous", "keep torn: its record cannot be read",
			},
		},
		"rules and no TTL": {
			backups: []retention.Backup{
				at(t, "mon", "2026-11-23T02:00:00Z"), at(t, "tue-1", "2026-11-24T02:00:00Z"), at(t, "tue-2", "2026-11-24T14:00:00Z"), at(t, "wed", "2026-11-25T02:00:00Z"),
			},
			policies: nightly(v1alpha1.RetentionPolicy{KeepDaily: 2}),
			want: []string{
				"remove mon: no rule keeps it", "remove tue-1: no rule keeps it", "keep tue-2: keepDaily 2026-11-24",
				"keep wed: newest that can be restored; keepDaily 2026-11-25",
			},
		},
		"a rule keeps beyond the TTL, and the TTL beyond the rules": {
			backups: []retention.Backup{
				with(at(t, "a", "2026-11-23T02:00:00Z"), ttl("2026-12-23T02:00:00Z")), with(at(t, "b", "2026-11-24T02:00:00Z"), ttl("2026-11-24T03:00:00Z")),
				at(t, "c", "2026-11-25T02:00:00Z"),
			},
			policies: nightly(v1alpha1.RetentionPolicy{KeepLast: 2}),
			want: []string{
				"keep a: TTL until 2026-12-23T02:00:00Z", "keep b: keepLast 2 of 2", "keep c: newest that can be restored; keepLast 1 of 2",
			},
		},
		"every sort of period, ISO weeks over the new year": {
			backups: []retention.Backup{
				at(t, "w52", "2026-12-27T22:00:00Z"), at(t, "w53-1", "2026-12-28T22:00:00Z"), at(t, "w53-2", "2027-01-03T22:00:00Z"), at(t, "w1", "2027-01-04T22:00:00Z"),
			},
			policies: nightly(v1alpha1.RetentionPolicy{KeepHourly: 1, KeepWeekly: 3, KeepMonthly: 2, KeepYearly: 2}),
			want: []string{
				"keep w52: keepWeekly 2026-W52", "keep w53-1: keepMonthly 2026-12; keepYearly 2026", "keep w53-2: keepWeekly 2026-W53",
				"keep w1: newest that can be restored; keepHourly 2027-01-04 22h; keepWeekly 2027-W01; keepMonthly 2027-01; keepYearly 2027",
			},
		},
		"a hold, a restore, another cluster, a deletion, a record that cannot be read": {
			backups: []retention.Backup{
				with(at(t, "held", "2026-01-01T00:00:00Z"), func(b *retention.Backup) { b.Held, b.HoldReason = true, "audit" }),
				at(t, "used", "2026-01-02T00:00:00Z"),
				with(at(t, "foreign", "2026-12-01T00:00:00Z"), func(b *retention.Backup) { b.Cluster = other; ttl("2026-01-01T00:00:00Z")(b) }),
				with(at(t, "dying", "2026-12-02T00:00:00Z"), func(b *retention.Backup) { b.Deleting = true }),
				{Name: "torn", UID: "torn", Unreadable: true},
				at(t, "last", "2026-01-03T00:00:00Z"),
			},
			policies: nightly(v1alpha1.RetentionPolicy{KeepLast: 1}),
			inUse:    map[string]string{"used": "restore r"},
			want: []string{
				"keep held: held: audit", "keep used: in use by restore r", "keep foreign: of another cluster", "remove dying: its deletion has begun",
				"keep torn: its record cannot be read", "keep last: newest that can be restored; keepLast 1 of 1",
			},
		},
		"a schedule that is gone, and none": {
			backups: []retention.Backup{
				with(at(t, "a", "2026-01-01T00:00:00Z"), ttl("2026-01-02T00:00:00Z")), at(t, "b", "2026-01-02T00:00:00Z"),
				with(at(t, "c", "2026-01-03T00:00:00Z"), ttl("2026-01-04T00:00:00Z")),
				with(at(t, "x", "2026-01-03T00:00:00Z"), func(b *retention.Backup) { b.Schedule = ""; ttl("2026-01-04T00:00:00Z")(b) }),
				with(at(t, "y", "2026-01-04T00:00:00Z"), func(b *retention.Backup) { b.Schedule = ""; ttl("2026-01-04T00:00:00Z")(b) }),
			},
			want: []string{
				"remove a: TTL ended 2026-01-02T00:00:00Z", "keep b: no TTL and no rules", "keep c: newest that can be restored",
				"remove x: TTL ended 2026-01-04T00:00:00Z", "keep y: newest that can be restored",
			},
		},
		"rules that cannot be followed": {
			backups:  []retention.Backup{with(at(t, "a", "2026-01-01T00:00:00Z"), ttl("2026-01-02T00:00:00Z")), at(t, "b", "2026-01-02T00:00:00Z")},
			policies: map[string]retention.Policy{"nightly": {KeepAll: "time zone"}},
			want:     []string{"keep a: time zone", "keep b: time zone; no TTL and no rules; newest that can be restored"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			in := retention.Input{Cluster: ours, Backups: c.backups, Policies: c.policies, InUse: c.inUse, Now: now}
			got := verdicts(retention.Evaluate(in))
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
			slices.Reverse(in.Backups)
			again := verdicts(retention.Evaluate(in))
			slices.Reverse(again)
			if d := cmp.Diff(got, again); d != "" {
				t.Errorf("in another order (-first +second):\n%s", d)
			}
		})
	}
}

// TestCalendar holds the periods against the clocks of places whose days differ, and that jump.
func TestCalendar(t *testing.T) {
	for name, c := range map[string]struct {
		zone   string
		rules  v1alpha1.RetentionPolicy
		starts []string
		want   string // what is kept
	}{
		"a day of UTC": {
			"UTC", v1alpha1.RetentionPolicy{KeepDaily: 9}, []string{"2026-06-01T23:30:00Z", "2026-06-02T00:30:00Z", "2026-06-02T22:30:00Z"}, "0 2",
		},
		"the same in Berlin": {
			"Europe/Berlin", v1alpha1.RetentionPolicy{KeepDaily: 9}, []string{"2026-06-01T23:30:00Z", "2026-06-02T00:30:00Z", "2026-06-02T22:30:00Z"}, "1 2",
		},
		"the hour that comes twice is one": {
			"Europe/Berlin", v1alpha1.RetentionPolicy{KeepHourly: 9},
			[]string{"2026-10-24T23:30:00Z", "2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z", "2026-10-25T02:30:00Z"}, "0 2 3",
		},
		"the hour that is left out": {
			"Europe/Berlin", v1alpha1.RetentionPolicy{KeepHourly: 2}, []string{"2026-03-28T23:30:00Z", "2026-03-29T00:30:00Z", "2026-03-29T01:30:00Z"}, "1 2",
		},
		"gaps count for nothing": {
			"Asia/Kathmandu", v1alpha1.RetentionPolicy{KeepMonthly: 3},
			[]string{"2020-01-31T18:14:00Z", "2020-01-31T18:16:00Z", "2021-05-01T00:00:00Z", "2026-05-01T00:00:00Z"}, "1 2 3",
		},
	} {
		t.Run(name, func(t *testing.T) {
			in := retention.Input{Cluster: ours, Now: now, Policies: map[string]retention.Policy{"nightly": {Rules: c.rules, Zone: zone(t, c.zone)}}}
			for i, s := range c.starts {
				in.Backups = append(in.Backups, at(t, string(rune('0'+i)), s))
			}
			var kept []string
			for _, d := range retention.Evaluate(in) {
				if d.Keep {
					kept = append(kept, d.Backup.UID)
				}
			}
			if got := strings.Join(kept, " "); got != c.want {
				t.Errorf("kept %s, want %s", got, c.want)
			}
		})
	}
}

func TestPolicyOf(t *testing.T) {
	s := &v1alpha1.Schedule{Spec: v1alpha1.ScheduleSpec{TimeZone: "America/New_York", Retention: &v1alpha1.RetentionPolicy{KeepLast: 3}}}
	if p := retention.PolicyOf(s); p.KeepAll != "" || p.Rules.KeepLast != 3 || p.Zone.String() != "America/New_York" {
		t.Errorf("%+v", p)
	}
	s.Annotations = map[string]string{v1alpha1.RestoredAnnotation: "true"}
	if p := retention.PolicyOf(s); p.KeepAll != "" {
		t.Errorf("restored, and unpaused since: %+v", p)
	}
	s.Spec.Paused = true
	if p := retention.PolicyOf(s); p.KeepAll == "" || p.Rules.KeepLast != 3 {
		t.Errorf("restored: %+v", p)
	}
	s.Annotations = nil
	if p := retention.PolicyOf(s); p.KeepAll != "" {
		t.Errorf("paused by a person: %+v", p)
	}
	for _, bad := range []string{"Europe/Atlantis", "Local", "../etc/passwd"} {
		s.Spec.TimeZone = bad
		if p := retention.PolicyOf(s); p.KeepAll == "" {
			t.Errorf("zone %q: %+v", bad, p)
		}
	}
}

func TestLockUntil(t *testing.T) {
	end := now.Add(30 * 24 * time.Hour)
	soon := now.Add(time.Hour)
	young, old := now.Add(-time.Hour), now.Add(-100*24*time.Hour)
	for name, c := range map[string]struct {
		d    retention.Decision
		want time.Time
	}{
		"goes":                             {retention.Decision{Ours: true, Until: &end}, time.Time{}},
		"of another":                       {retention.Decision{Keep: true, Beyond: true}, time.Time{}},
		"its TTL":                          {retention.Decision{Ours: true, Keep: true, Until: &end}, end},
		"its TTL is enough for now":        {retention.Decision{Ours: true, Keep: true, Until: &end, Beyond: true}, end},
		"young, beyond a TTL that ends":    {retention.Decision{Ours: true, Keep: true, Until: &soon, Beyond: true, Backup: retention.Backup{Started: young}}, time.Date(2026, 11, 27, 0, 0, 0, 0, time.UTC)},
		"young, without a TTL":             {retention.Decision{Ours: true, Keep: true, Beyond: true, Backup: retention.Backup{Started: young}}, time.Date(2026, 11, 27, 0, 0, 0, 0, time.UTC)},
		"old, without a TTL, a long step":  {retention.Decision{Ours: true, Keep: true, Beyond: true, Backup: retention.Backup{Started: old}}, time.Date(2026, 12, 7, 0, 0, 0, 0, time.UTC)},
		"a TTL that ends and nothing else": {retention.Decision{Ours: true, Keep: true, Until: &soon}, soon},
	} {
		t.Run(name, func(t *testing.T) {
			if got := retention.LockUntil(&c.d, now); !got.Equal(c.want) {
				t.Errorf("until %s, want %s", got, c.want)
			}
		})
	}
}
