// Package retention keeps the right backups of a cluster and removes the others: what its schedules' rules and the backups' own time to
// live say, never the last good ones.
package retention

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"kedge.dev/kedge/api/v1alpha1"
)

// Backup is what the rules look at of one backup in a location.
type Backup struct {
	Name string `json:"name"`
	UID  string `json:"uid"`
	// Cluster is the uid of the cluster that it was made of; empty where the record cannot be read.
	Cluster string `json:"cluster,omitempty"`
	// Schedule is the value of the label kedge.dev/schedule; empty where no schedule made it.
	Schedule string `json:"schedule,omitempty"`
	// Started is the backup's point in time, by which backups are put in order.
	Started   time.Time      `json:"started,omitzero"`
	Completed time.Time      `json:"completed,omitzero"`
	Phase     v1alpha1.Phase `json:"phase,omitempty"`
	// Expires is when its time to live ends, whether it is held or not; nil means never.
	Expires *time.Time `json:"expires,omitempty"`
	// Held keeps it, for the reason that HoldReason gives to people.
	Held       bool   `json:"held,omitempty"`
	HoldReason string `json:"holdReason,omitempty"`
	// Deleting says that its deletion has begun.
	Deleting bool `json:"deleting,omitempty"`
	// Unreadable says that the record, or the newest expiry file, cannot be read, so that nothing else here is known.
	Unreadable bool `json:"unreadable,omitempty"`
}

// Policy is what a schedule asks for.
type Policy struct {
	Rules v1alpha1.RetentionPolicy
	// Zone is the calendar's; nil means UTC.
	Zone *time.Location
	// KeepAll, where set, is why nothing of the schedule may be removed now: its rules cannot be followed, or it went a short while ago.
	KeepAll string
}

// rules says whether any rule is set.
func (p *Policy) rules() bool { return p.Rules != v1alpha1.RetentionPolicy{} }

// Input is all that a decision depends on.
type Input struct {
	// Cluster is the uid of the cluster whose backups are looked at. Where it is empty nothing is removed.
	Cluster string
	Backups []Backup
	// Policies are those of the schedules that there are, by name.
	Policies map[string]Policy
	// InUse says of backups, by uid, what reads them now.
	InUse map[string]string
	Now   time.Time
}

// Decision says what becomes of one backup.
type Decision struct {
	Backup Backup `json:"backup"`
	Keep   bool   `json:"keep"`
	// Reasons are all those that keep it, or the one why it goes.
	Reasons []string `json:"reasons"`
	// Until is the end of the time to live, where that is one of the reasons to keep it.
	Until *time.Time `json:"until,omitempty"`
	// Beyond says that there is a reason to keep it that has no date.
	Beyond bool `json:"beyond,omitempty"`
	// Ours says that it is of this cluster: only then is anything done with it.
	Ours bool `json:"ours"`
}

// The reasons that stand alone.
const (
	reasonOtherCluster = "of another cluster"
	reasonUnreadable   = "its record cannot be read"
	reasonAmbiguous    = "its uid is ambiguous"
	reasonNewest       = "newest that can be restored"
	reasonComplete     = "newest that is complete"
	reasonForever      = "no TTL and no rules"
	reasonDeleting     = "its deletion has begun"
)

// Evaluate decides about every backup, in the order of in.Backups. It is pure: the same input gives the same decisions.
func Evaluate(in Input) []Decision {
	out := make([]Decision, len(in.Backups))
	groups := map[string][]*Decision{} // of each schedule, and "" for those of none
	times := map[string]int{}
	for i := range in.Backups {
		times[in.Backups[i].UID]++
	}
	for i, b := range in.Backups {
		d := &out[i]
		d.Backup, d.Ours = b, b.Cluster == in.Cluster && in.Cluster != "" && !b.Unreadable
		switch {
		case b.Unreadable:
			d.keep(reasonUnreadable)
		case !d.Ours:
			d.keep(reasonOtherCluster)
		case b.Deleting:
			d.Reasons = []string{reasonDeleting}
		case times[b.UID] > 1: // somebody copied or planted a folder: what one of them is given up for may be the other's data
			d.keep(reasonAmbiguous)
		default:
			groups[b.Schedule] = append(groups[b.Schedule], d)
		}
	}
	for schedule, group := range groups {
		policy, found := in.Policies[schedule]
		found = found && schedule != ""
		slices.SortFunc(group, newestFirst)
		for _, d := range group {
			d.one(in, &policy, found)
		}
		counted := slices.DeleteFunc(slices.Clone(group), func(d *Decision) bool { return !d.Backup.Phase.Usable() })
		keepLastGood(counted)
		if found {
			applyRules(counted, &policy)
		}
		for _, d := range group {
			d.conclude(found && policy.rules())
		}
	}
	return out
}

// newestFirst orders by point in time; equal ones have an order too, so that a decision does not depend on that of a listing.
func newestFirst(a, b *Decision) int {
	return cmp.Or(b.Backup.Started.Compare(a.Backup.Started), b.Backup.Completed.Compare(a.Backup.Completed), strings.Compare(b.Backup.UID, a.Backup.UID))
}

// keepLastGood keeps the newest of a schedule's backups that can be restored, and where that one lacks something the newest that does not.
func keepLastGood(counted []*Decision) {
	if len(counted) == 0 {
		return
	}
	counted[0].keep(reasonNewest)
	complete := slices.IndexFunc(counted, func(d *Decision) bool { return d.Backup.Phase == v1alpha1.PhaseCompleted })
	if complete > 0 {
		counted[complete].keep(reasonComplete)
	}
}

func (d *Decision) keep(reason string) {
	d.Keep, d.Beyond = true, true
	d.Reasons = append(d.Reasons, reason)
}

// one finds the reasons that lie in the backup itself.
func (d *Decision) one(in Input, policy *Policy, found bool) {
	b := &d.Backup
	if b.Held {
		reason := "held"
		if b.HoldReason != "" {
			reason += ": " + b.HoldReason
		}
		d.keep(reason)
	}
	if use := in.InUse[b.UID]; use != "" {
		d.keep("in use by " + use)
	}
	if found && policy.KeepAll != "" {
		d.keep(policy.KeepAll)
	}
	switch {
	case b.Expires != nil && in.Now.Before(*b.Expires):
		d.Keep, d.Until = true, b.Expires
		d.Reasons = append(d.Reasons, "TTL until "+b.Expires.UTC().Format(time.RFC3339))
	case b.Expires == nil && (!found || !policy.rules()):
		d.keep(reasonForever)
	}
}

// conclude says why what nothing keeps goes.
func (d *Decision) conclude(ruled bool) {
	if d.Keep {
		return
	}
	var why []string
	if d.Backup.Expires != nil {
		why = append(why, "TTL ended "+d.Backup.Expires.UTC().Format(time.RFC3339))
	}
	switch {
	case ruled && !d.Backup.Phase.Usable():
		why = append(why, "it cannot be restored, so that no rule counts it")
	case ruled:
		why = append(why, "no rule keeps it")
	}
	d.Reasons = []string{strings.Join(why, ", ")}
}

// period is a rule of the calendar: the newest backup of each of the last so many periods stays.
type period struct {
	rule  string
	count int
	key   func(time.Time) string
}

func periods(r *v1alpha1.RetentionPolicy) []period {
	layout := func(layout string) func(time.Time) string {
		return func(t time.Time) string { return t.Format(layout) }
	}
	return []period{
		{"keepHourly", r.KeepHourly, layout("2006-01-02 15h")},
		{"keepDaily", r.KeepDaily, layout(time.DateOnly)},
		{"keepWeekly", r.KeepWeekly, func(t time.Time) string {
			year, week := t.ISOWeek()
			return fmt.Sprintf("%04d-W%02d", year, week)
		}},
		{"keepMonthly", r.KeepMonthly, layout("2006-01")},
		{"keepYearly", r.KeepYearly, layout("2006")},
	}
}

// applyRules keeps what the rules keep of a schedule's backups that can be restored, the newest first.
func applyRules(counted []*Decision, policy *Policy) {
	zone := policy.Zone
	if zone == nil {
		zone = time.UTC
	}
	for i, d := range counted[:min(len(counted), max(policy.Rules.KeepLast, 0))] {
		d.keep(fmt.Sprintf("keepLast %d of %d", i+1, policy.Rules.KeepLast))
	}
	for _, p := range periods(&policy.Rules) {
		seen := map[string]bool{}
		for _, d := range counted {
			if len(seen) >= p.count {
				break
			}
			key := p.key(d.Backup.Started.In(zone))
			if !seen[key] {
				seen[key] = true
				d.keep(p.rule + " " + key)
			}
		}
	}
}
