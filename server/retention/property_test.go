package retention_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/server/retention"
)

// model says what stays, in the words of the documentation and as slowly as they are: each backup alone is held against all others.
func model(in retention.Input) map[string]bool {
	stays := map[string]bool{}
	for _, b := range in.Backups {
		stays[b.UID] = modelKeeps(in, b)
	}
	return stays
}

func modelKeeps(in retention.Input, b retention.Backup) bool {
	if b.Cluster != in.Cluster {
		return true
	}
	if b.Deleting {
		return false
	}
	if b.Held || in.InUse[b.UID] != "" || b.Expires != nil && b.Expires.After(in.Now) {
		return true
	}
	policy, scheduled := in.Policies[b.Schedule]
	rules := policy.Rules
	ruled := scheduled && b.Schedule != "" && rules.KeepLast+rules.KeepHourly+rules.KeepDaily+rules.KeepWeekly+rules.KeepMonthly+rules.KeepYearly > 0
	if b.Expires == nil && !ruled {
		return true
	}
	if b.Phase != v1alpha1.PhaseCompleted && b.Phase != v1alpha1.PhasePartiallyFailed {
		return false
	}
	newer := modelNewer(in, b)
	if len(newer) == 0 || modelLastComplete(b, newer) {
		return true
	}
	if !ruled {
		return false
	}
	return len(newer) < rules.KeepLast || modelPeriods(b, newer, policy)
}

// modelLastComplete: nothing is missing in this one, and something in each that is newer.
func modelLastComplete(b retention.Backup, newer []retention.Backup) bool {
	for _, n := range newer {
		if n.Phase != v1alpha1.PhasePartiallyFailed {
			return false
		}
	}
	return b.Phase != v1alpha1.PhasePartiallyFailed
}

// modelNewer are the newer ones of the same schedule that can be restored.
func modelNewer(in retention.Input, b retention.Backup) (newer []retention.Backup) {
	for _, o := range in.Backups {
		counts := o.Cluster == in.Cluster && o.Schedule == b.Schedule && !o.Deleting && (o.Phase == v1alpha1.PhaseCompleted || o.Phase == v1alpha1.PhasePartiallyFailed)
		later := o.Started.After(b.Started) || o.Started.Equal(b.Started) && (o.Completed.After(b.Completed) || o.Completed.Equal(b.Completed) && o.UID > b.UID)
		if counts && later {
			newer = append(newer, o)
		}
	}
	return newer
}

// modelPeriods: a backup stays that is the newest of its period, where fewer than so many later periods have one.
func modelPeriods(b retention.Backup, newer []retention.Backup, p retention.Policy) bool {
	type date struct{ year, part, day, hour int }
	for _, rule := range []struct {
		count int
		of    func(time.Time) date
	}{
		{p.Rules.KeepHourly, func(t time.Time) date { return date{t.Year(), int(t.Month()), t.Day(), t.Hour()} }},
		{p.Rules.KeepDaily, func(t time.Time) date { return date{t.Year(), t.YearDay(), 0, 0} }},
		{p.Rules.KeepWeekly, func(t time.Time) date {
			thursday := t.AddDate(0, 0, 3-(int(t.Weekday())+6)%7) // an ISO week is of the year that its Thursday is in
			return date{thursday.Year(), (thursday.YearDay() - 1) / 7, 0, 0}
		}},
		{p.Rules.KeepMonthly, func(t time.Time) date { return date{t.Year(), int(t.Month()), 0, 0} }},
		{p.Rules.KeepYearly, func(t time.Time) date { return date{t.Year(), 0, 0, 0} }},
	} {
		own := rule.of(b.Started.In(p.Zone))
		later := map[date]bool{}
		for _, n := range newer {
			later[rule.of(n.Started.In(p.Zone))] = true
		}
		if !later[own] && len(later) < rule.count {
			return true
		}
	}
	return false
}

var zones = []string{"UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "Pacific/Apia", "America/St_Johns"}

// drawPolicy gives the rules of a schedule.
func drawPolicy(t *rapid.T) retention.Policy {
	count := rapid.OneOf(rapid.Just(0), rapid.IntRange(0, 12))
	name := rapid.SampledFrom(zones).Draw(t, "zone")
	z, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return retention.Policy{Zone: z, Rules: v1alpha1.RetentionPolicy{
		KeepLast: count.Draw(t, "last"), KeepHourly: count.Draw(t, "hourly"), KeepDaily: count.Draw(t, "daily"),
		KeepWeekly: count.Draw(t, "weekly"), KeepMonthly: count.Draw(t, "monthly"), KeepYearly: count.Draw(t, "yearly"),
	}}
}

// drawBackups gives backups of some ten years: runs of hours, days and months, gaps, failures, holds, TTLs, several schedules and clusters.
func drawBackups(t *rapid.T, n int) []retention.Backup {
	when := time.Date(2016, 1, 1, 0, 0, 0, 0, time.UTC)
	end := when.AddDate(10, 0, 0)
	gap := rapid.OneOf(rapid.IntRange(0, 120), rapid.IntRange(0, 3000), rapid.IntRange(1000, 200_000)) // minutes
	var out []retention.Backup
	for i := 0; i < n && when.Before(end); i++ {
		when = when.Add(time.Duration(gap.Draw(t, "gap")) * time.Minute)
		b := retention.Backup{
			UID: fmt.Sprintf("uid-%04d", (i*7919)%10_000), Started: when, Completed: when.Add(time.Duration(rapid.IntRange(0, 3).Draw(t, "took")) * time.Minute),
			Cluster:  rapid.SampledFrom([]string{ours, ours, ours, ours, ours, other}).Draw(t, "cluster"),
			Schedule: rapid.SampledFrom([]string{"nightly", "nightly", "nightly", "hourly", "gone", ""}).Draw(t, "schedule"),
			Phase: rapid.SampledFrom([]v1alpha1.Phase{
				v1alpha1.PhaseCompleted, v1alpha1.PhaseCompleted, v1alpha1.PhaseCompleted, v1alpha1.PhasePartiallyFailed, v1alpha1.PhaseFailed, v1alpha1.PhaseCancelled,
			}).Draw(t, "phase"),
			Held:     rapid.IntRange(0, 20).Draw(t, "held") == 0,
			Deleting: rapid.IntRange(0, 20).Draw(t, "deleting") == 0,
		}
		b.Name = b.UID
		if days := rapid.OneOf(rapid.Just(0), rapid.IntRange(1, 90), rapid.IntRange(1, 5000)).Draw(t, "ttl"); days > 0 {
			expires := when.AddDate(0, 0, days)
			b.Expires = &expires
		}
		out = append(out, b)
	}
	return out
}

// TestRules holds Evaluate against the model at random moments of ten years of random backups.
func TestRules(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := retention.Input{
			Cluster: ours, Policies: map[string]retention.Policy{"nightly": drawPolicy(t), "hourly": drawPolicy(t)},
			Backups: drawBackups(t, rapid.IntRange(0, 150).Draw(t, "n")),
			Now:     time.Date(2016, 1, 1, 0, 0, 0, 0, time.UTC).AddDate(0, 0, rapid.IntRange(0, 4200).Draw(t, "day")),
		}
		for _, b := range in.Backups {
			if rapid.IntRange(0, 30).Draw(t, "used") == 0 {
				in.InUse = map[string]string{b.UID: "restore r"}
			}
		}
		shuffled := in
		shuffled.Backups = rapid.Permutation(in.Backups).Draw(t, "order")
		got := map[string]bool{}
		for _, d := range retention.Evaluate(shuffled) {
			got[d.Backup.UID] = d.Keep
			if len(d.Reasons) == 0 || slices.Contains(d.Reasons, "") {
				t.Errorf("%s: keep %v for the reasons %q", d.Backup.UID, d.Keep, d.Reasons)
			}
		}
		if d := cmp.Diff(model(in), got); d != "" {
			t.Errorf("(-model +got):\n%s", d)
		}
	})
}

// TestYears lets backups come and retention run day by day over years. What is there after each day is what a decision about all backups that
// ever were would have kept, and at any moment every schedule has its last good backup.
func TestYears(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := retention.Input{Cluster: ours, Policies: map[string]retention.Policy{"nightly": drawPolicy(t), "hourly": drawPolicy(t)}}
		coming := drawBackups(t, 60)
		for i := range coming {
			coming[i].Deleting = false
		}
		all := in // of every backup that ever was
		step := time.Duration(rapid.IntRange(1, 400).Draw(t, "hours")) * time.Hour
		for len(coming) > 0 {
			// Nothing happens between a backup and the next: the days from the first to the last are those that matter.
			in.Now = coming[0].Started.Add(step)
			for len(coming) > 0 && !coming[0].Started.After(in.Now) {
				in.Backups, all.Backups = append(in.Backups, coming[0]), append(all.Backups, coming[0])
				coming = coming[1:]
			}
			all.Now = in.Now
			want := model(all)
			in.Backups = kept(retention.Evaluate(in))
			for _, b := range in.Backups {
				if !want[b.UID] {
					t.Fatalf("at %s %s stays, which the rules do not keep", in.Now, b.UID)
				}
				delete(want, b.UID)
			}
			for uid, stays := range want {
				if stays {
					t.Fatalf("at %s %s is gone, which the rules keep", in.Now, uid)
				}
			}
			lastGood(t, all.Backups, in.Backups)
		}
	})
}

func kept(decisions []retention.Decision) (out []retention.Backup) {
	for _, d := range decisions {
		if d.Keep {
			out = append(out, d.Backup)
		}
	}
	return out
}

// lastGood fails unless the newest backup of each schedule that can be restored, and the newest complete one, of all that ever were, are there.
func lastGood(t *rapid.T, all, there []retention.Backup) {
	for _, phases := range [][]v1alpha1.Phase{{v1alpha1.PhaseCompleted, v1alpha1.PhasePartiallyFailed}, {v1alpha1.PhaseCompleted}} {
		newest := map[string]retention.Backup{}
		for _, b := range all {
			if b.Cluster == ours && slices.Contains(phases, b.Phase) && !b.Started.Before(newest[b.Schedule].Started) {
				newest[b.Schedule] = b
			}
		}
		for schedule, b := range newest {
			if !slices.ContainsFunc(there, func(o retention.Backup) bool {
				return o.Schedule == schedule && o.Started.Equal(b.Started) && slices.Contains(phases, o.Phase)
			}) {
				t.Fatalf("of schedule %q the newest of %v, %s, is gone", schedule, phases, b.UID)
			}
		}
	}
}
