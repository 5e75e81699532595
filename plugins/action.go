package plugins

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
)

// Item is one Kubernetes object on its way into or out of a backup.
type Item struct {
	// Ref is where the object was, in the group, version and resource that Object has now.
	Ref Ref
	// Object is the decoded JSON: map[string]any, []any, string, bool, nil, int64 and float64, as
	// k8s.io/apimachinery/pkg/util/json decodes it. Actions change it in place.
	Object map[string]any
	// ManagedFields is metadata.managedFields as archived, in JSON, where an engine has taken it out of Object.
	ManagedFields []byte
	// Remarks are what the reader of the report should know about what was changed.
	Remarks []Remark
}

// Remark is one line of a report about an item. It never quotes data of Secrets.
type Remark struct {
	// Reason is a CamelCase word for programs.
	Reason string `json:"reason"`
	// Message is a sentence for people.
	Message string `json:"message"`
}

// Remark adds a line to the item's remarks.
func (it *Item) Remark(reason, format string, args ...any) {
	it.Remarks = append(it.Remarks, Remark{Reason: reason, Message: fmt.Sprintf(format, args...)})
}

// Match names items that an Action wants to see.
type Match struct {
	// Resources are group resources as Ref.GroupResource writes them: "services", "deployments.apps"; "*" is every resource.
	Resources []string
	// Names narrows the match to items of these names; empty means any.
	Names []string
	// Contains narrows the match: the item's JSON has at least one of these byte strings somewhere, else the action would
	// change nothing. It spares decoding; it must never be narrower than what Apply looks for. Empty means always.
	Contains []string
}

// Decision is what an Action makes of an item. The zero value lets it go on.
type Decision struct {
	// Skip leaves the item out; Reason (CamelCase) and Message say why.
	Skip    bool
	Reason  string
	Message string
}

// Action inspects or changes items on their way. It is a function of the item alone (and of what the action was made
// with): no clock, no network unless its own page says so; the same item gives the same result, and a second Apply on
// the result changes nothing. It must cope with any JSON: what it does not understand it leaves alone.
//
// Apply may be called from many goroutines with different items. An error means that the item cannot be restored as it
// is; the item is then reported as failed, and its object is not used.
type Action interface {
	// Name is what reports call the action: "Service".
	Name() string
	// AppliesTo says which items Apply is called for; it is asked once.
	AppliesTo() []Match
	// Apply changes the item in place, or decides that it is left out.
	Apply(ctx context.Context, item *Item) (Decision, error)
}

// Merger is an Action whose items are merged into the target's object of the same name where there is one, whatever the
// policy for existing objects is.
type Merger interface {
	Action
	// Merge adds to live, in place, what item has and live lacks. It says whether live was changed, and remarks on what
	// it left out. Item has gone through Apply.
	Merge(ctx context.Context, item *Item, live map[string]any) (changed bool, err error)
	// Merges says whether items of this reference are merged; others follow the policy.
	Merges(ref Ref) bool
}

// Chain runs actions in order over the items that they apply to. It is safe for concurrent use.
type Chain struct {
	byResource map[string][]link
	everywhere []link
}

// link is one action as registered for a resource.
type link struct {
	order    int
	action   Action
	names    []string
	contains [][]byte
}

// NewChain makes a chain of actions. It refuses an action without a name or without a resource.
func NewChain(actions ...Action) (*Chain, error) {
	c := &Chain{byResource: map[string][]link{}}
	for i, a := range actions {
		if a.Name() == "" {
			return nil, errors.New("register action: an action has no name")
		}
		matches := a.AppliesTo()
		if len(matches) == 0 {
			return nil, fmt.Errorf("register action %s: it applies to nothing", a.Name())
		}
		for _, m := range matches {
			if err := c.add(i, a, m); err != nil {
				return nil, err
			}
		}
	}
	return c, nil
}

func (c *Chain) add(order int, a Action, m Match) error {
	if len(m.Resources) == 0 {
		return fmt.Errorf("register action %s: a match names no resource", a.Name())
	}
	l := link{order: order, action: a, names: m.Names}
	for _, s := range m.Contains {
		l.contains = append(l.contains, []byte(s))
	}
	for _, r := range m.Resources {
		switch r {
		case "":
			return fmt.Errorf("register action %s: a match names an empty resource", a.Name())
		case "*":
			c.everywhere = append(c.everywhere, l)
		default:
			c.byResource[r] = append(c.byResource[r], l)
		}
	}
	return nil
}

// Wants says whether an action could have something to do on this item, from its reference and its JSON alone; where it
// is false, Apply need not be called and the item need not be decoded.
func (c *Chain) Wants(ref Ref, raw []byte) bool {
	for _, l := range c.everywhere {
		if l.wants(ref.Name, raw) {
			return true
		}
	}
	if len(c.byResource) == 0 {
		return false
	}
	for _, l := range c.byResource[ref.GroupResource()] {
		if l.wants(ref.Name, raw) {
			return true
		}
	}
	return false
}

func (l link) wants(name string, raw []byte) bool {
	if len(l.names) > 0 && !slices.Contains(l.names, name) {
		return false
	}
	for _, s := range l.contains {
		if bytes.Contains(raw, s) {
			return true
		}
	}
	return len(l.contains) == 0
}

// Apply runs the actions of the item's resource in the order of registration, each once, and stops at the first that
// leaves the item out. Errors name the action and the item.
func (c *Chain) Apply(ctx context.Context, item *Item) (Decision, error) {
	last := -1
	some, all := c.byResource[item.Ref.GroupResource()], c.everywhere
	for len(some)+len(all) > 0 {
		var l link
		if len(all) == 0 || len(some) > 0 && some[0].order <= all[0].order {
			l, some = some[0], some[1:]
		} else {
			l, all = all[0], all[1:]
		}
		if l.order == last {
			continue
		}
		last = l.order
		d, err := l.action.Apply(ctx, item)
		if err != nil {
			return Decision{}, fmt.Errorf("run action %s on %s: %w", l.action.Name(), item.Ref, err)
		}
		if d.Skip {
			return d, nil
		}
	}
	return Decision{}, nil
}

// Merger gives the action that merges items of this reference into existing objects, or nil.
func (c *Chain) Merger(ref Ref) Merger {
	for _, links := range [][]link{c.byResource[ref.GroupResource()], c.everywhere} {
		for _, l := range links {
			if m, ok := l.action.(Merger); ok && m.Merges(ref) {
				return m
			}
		}
	}
	return nil
}
