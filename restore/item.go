package restore

import (
	"strings"

	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/plugins"
)

// Outcome is what became of one object.
type Outcome uint8

// The outcomes. The counts of a report have one field for each of the last five.
const (
	// Pending objects have not been tried yet.
	Pending Outcome = iota
	Created
	Updated
	Unchanged
	Skipped
	Failed
)

var outcomeNames = [...]string{"Pending", "Created", "Updated", "Unchanged", "Skipped", "Failed"}

// String names the outcome as reports and journals do.
func (o Outcome) String() string { return outcomeNames[o] }

// MarshalText writes the name.
func (o Outcome) MarshalText() ([]byte, error) { return []byte(o.String()), nil }

// UnmarshalText reads the name; an unknown one is Pending.
func (o *Outcome) UnmarshalText(b []byte) error {
	*o = Pending
	for i, name := range outcomeNames {
		if name == string(b) {
			*o = Outcome(i)
		}
	}
	return nil
}

// itemFlags are facts about an item that take one bit each.
type itemFlags uint8

const (
	// flagApplied: a server-side apply manager owns fields, which takes a second request.
	flagApplied itemFlags = 1 << iota
	// flagOwner: another item names it as its owner, so its new uid is kept.
	flagOwner
	// flagMade: the item is not in the source; it is a namespace that is made for others.
	flagMade
	// flagCompare: the target's server makes the object; it is compared, never changed.
	flagCompare
	// flagHistory: a controller makes the item again if it is the current one of its owner, and never if it is an older one.
	flagHistory
	// flagParked: the target refused it for now.
	flagParked
	// flagPosted: our create went through, and what follows it (field managers, status) may be still to do.
	flagPosted
	// flagKept: where the target has the object, it stays as it is, whatever the policy: Kedge itself runs on it.
	flagKept
)

// item is one object of the plan, packed: a hundred thousand of them are in memory at once.
type item struct {
	name   string
	reason Reason // why it is left out, skipped or failed
	uid    uid    // in the source
	newUID uid    // in the target, once known
	ns     uint32 // index into Plan.namespaces
	chunk  int32  // of the source; -1 for made ones
	step   int32  // -1 for what is left out
	res    uint16 // index into Plan.resources
	flags  itemFlags
	state  Outcome
}

// resource is one archived version of one kind, and what the target has for it.
type resource struct {
	Group, Version, Resource, Kind string
	Namespaced                     bool

	stage  stage
	target target
	crd    int32 // the item that defines it, -1 where none of the plan does
	api    int32 // the APIService item behind its group and version, -1 where none
}

func (r *resource) ref(namespace, name string) plugins.Ref {
	return plugins.Ref{Group: r.Group, Version: r.Version, Resource: r.Resource, Namespace: namespace, Name: name}
}

func (r *resource) groupResource() string {
	return plugins.Ref{Group: r.Group, Resource: r.Resource}.GroupResource()
}

// ownerLink is one owner reference of an item.
type ownerLink struct {
	child int32
	owner int32 // index of the item, -1 where the plan has none
	uid   uid
	// kind tells what rules need to know of owners that are not in the plan.
	kind       ownerKind
	controller bool
	cut        bool
}

// ownerKind tells the owners that rules know from all others.
type ownerKind uint8

const (
	ownerOther ownerKind = iota
	ownerNode
	ownerPod
	ownerWorkload // a built-in controller of pods
)

func kindOfOwner(o *archive.Owner) ownerKind {
	group, _, _ := strings.Cut(o.APIVersion, "/")
	if !strings.Contains(o.APIVersion, "/") {
		group = ""
	}
	switch {
	case group == "" && o.Kind == "Node":
		return ownerNode
	case group == "" && o.Kind == "Pod":
		return ownerPod
	case group == "" && o.Kind == "ReplicationController",
		(group == "apps" || group == "extensions") && (o.Kind == "Deployment" || o.Kind == "ReplicaSet" || o.Kind == "DaemonSet" || o.Kind == "StatefulSet"),
		group == "batch" && (o.Kind == "Job" || o.Kind == "CronJob"):
		return ownerWorkload
	}
	return ownerOther
}

// interner gives equal strings one number and one copy.
type interner struct {
	index map[string]uint32
	list  []string
}

func newInterner() interner {
	return interner{index: map[string]uint32{"": 0}, list: []string{""}}
}

func (n *interner) intern(s string) uint32 {
	if i, ok := n.index[s]; ok {
		return i
	}
	s = strings.Clone(s)
	i := uint32(len(n.list))
	n.list = append(n.list, s)
	n.index[s] = i
	return i
}
