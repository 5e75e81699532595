package restore

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/util/validation"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/internal/kube"
	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/plugins/actions"
	"kedge.dev/kedge/plugins/hooks"
	"kedge.dev/kedge/plugins/selection"
	"kedge.dev/kedge/restore/transform"
)

// Request is one restore as a user asks for it.
type Request struct {
	// Name is the restore's; the field manager of what it creates is "kedge/<name>".
	Name string
	// UID tells restores of one name apart: in the journal and where the report is kept.
	UID  string
	Spec v1alpha1.RestoreSpec
}

// DefaultWaitTimeout bounds a wait for readiness where the spec does not.
const DefaultWaitTimeout = 5 * time.Minute

// Plan is what a restore will do, as data. It is made for one target at one moment, and changes nothing by itself.
type Plan struct {
	Request Request
	Source  Info
	// Target is the cluster that is restored into.
	Target v1alpha1.ClusterInfo
	// Steps are in an order in which they could run one by one; Step.Needs says what really waits for what.
	Steps []Step
	// Remarks are about the selection and the target as a whole.
	Remarks []plugins.Remark

	items      []item
	resources  []resource
	namespaces []string // names in the source; item.ns is an index
	mapped     []string // the same namespaces, as the target calls them
	byUID      map[uid]int32
	cycles     map[int32]bool  // items with an owner reference that was cut
	live       map[string]bool // namespaces of the target when the plan was made; true where one was being deleted
	started    time.Time       // by the target's clock, at second precision
	discovery  *kube.Discovery
	pipeline   *transform.Pipeline
	matcher    *selection.Matcher
	reader     *reader

	lookupOnce sync.Once
	byRef      map[string]int32
}

// Len is the number of objects in the plan, those left out included.
func (p *Plan) Len() int { return len(p.items) }

// Writes is the number of objects that the plan's steps write or compare.
func (p *Plan) Writes() int {
	n := 0
	for i := range p.Steps {
		n += len(p.Steps[i].items)
	}
	return n
}

// Planned is one object of a plan.
type Planned struct {
	// Ref is the object in the source.
	Ref plugins.Ref `json:"ref"`
	// Step is the name of the step that writes it; "" where it is left out.
	Step string `json:"step,omitempty"`
	// Reason says why it is left out, or "" where it is not.
	Reason Reason `json:"reason,omitempty"`
	// Message explains the reason, or says how the object is converted.
	Message string `json:"message,omitempty"`
}

// Objects calls fn for each object of the plan, those left out included, in the order of the source, and stops at fn's first error.
func (p *Plan) Objects(fn func(Planned) error) error {
	for i := range p.items {
		it := &p.items[i]
		out := Planned{Ref: p.ref(int32(i)), Reason: it.reason}
		if it.step >= 0 {
			out.Step = p.Steps[it.step].Name()
			out.Message = p.resources[it.res].target.message
		} else {
			out.Message = p.explain(int32(i))
		}
		if err := fn(out); err != nil {
			return err
		}
	}
	return nil
}

// ref names item i in the source.
func (p *Plan) ref(i int32) plugins.Ref {
	it := &p.items[i]
	return p.resources[it.res].ref(p.namespaces[it.ns], it.name)
}

// explain says for people why an item is left out.
func (p *Plan) explain(i int32) string {
	it := &p.items[i]
	r := &p.resources[it.res]
	if it.reason == r.target.reason && r.target.message != "" {
		return r.target.message
	}
	if it.reason == NeverRestored {
		if why, never := actions.NeverRestored(r.groupResource()); never {
			return why
		}
	}
	return reasonTexts[it.reason]
}

func (p *Plan) waitTimeout() time.Duration {
	if d := p.Request.Spec.WaitTimeout.Duration; d > 0 {
		return d
	}
	return DefaultWaitTimeout
}

// Plan reads the source's rows, asks the target what it serves, and makes the plan. It reads objects only where the selection
// depends on them.
func (e *Engine) Plan(ctx context.Context, req Request) (*Plan, error) {
	if err := validate(&req); err != nil {
		return nil, err
	}
	b, err := e.begin(ctx, req)
	if err != nil {
		return nil, fmt.Errorf("plan restore %s: %w", req.Name, err)
	}
	if err := b.build(ctx); err != nil {
		return nil, fmt.Errorf("plan restore %s: %w", req.Name, err)
	}
	return b.plan, nil
}

// validate refuses what no target could carry out, naming the field.
func validate(req *Request) error {
	if problems := validation.IsDNS1123Subdomain(req.Name); len(problems) > 0 {
		return fmt.Errorf("metadata.name: %q: %s", req.Name, problems[0])
	}
	return checkPolicies(&req.Spec)
}

// CheckSpec refuses a spec that no target could carry out, naming the field: what Plan refuses, without a backup or a target.
func CheckSpec(spec *v1alpha1.RestoreSpec) error {
	s := spec.DeepCopy()
	if _, err := hooks.CompileRestore(s.Hooks); err != nil {
		return err
	}
	if _, err := selection.Compile(s.Selection); err != nil {
		return err
	}
	if err := checkPolicies(s); err != nil {
		return err
	}
	for i, pattern := range s.RestoreStatus {
		if _, err := selection.Compile(v1alpha1.Selection{IncludedResources: []string{pattern}}); err != nil {
			if field, ok := errors.AsType[*selection.FieldError](err); ok {
				err = field.Err
			}
			return fmt.Errorf("spec.restoreStatus[%d]: %w", i, err)
		}
	}
	_, err := transform.Compile(transform.Options{NamespaceMapping: s.NamespaceMapping, Transforms: s.Transforms})
	return err
}

// checkPolicies checks the policies and fills in those that are unset.
func checkPolicies(s *v1alpha1.RestoreSpec) error {
	switch s.ExistingResourcePolicy {
	case "":
		s.ExistingResourcePolicy = v1alpha1.PolicySkip
	case v1alpha1.PolicySkip, v1alpha1.PolicyUpdate, v1alpha1.PolicyRecreate, v1alpha1.PolicyFail:
	default:
		return fmt.Errorf("spec.existingResourcePolicy: %q is not one of Skip, Update, Recreate, Fail", s.ExistingResourcePolicy)
	}
	switch s.UpdateMode {
	case "":
		s.UpdateMode = v1alpha1.UpdateMerge
	case v1alpha1.UpdateMerge, v1alpha1.UpdateExact:
	default:
		return fmt.Errorf("spec.updateMode: %q is neither Merge nor Exact", s.UpdateMode)
	}
	switch s.EBSDriver {
	case "", actions.DefaultEBSDriver, actions.AutoModeEBSDriver:
	default:
		return fmt.Errorf("spec.ebsDriver: %q is neither %s nor %s", s.EBSDriver, actions.DefaultEBSDriver, actions.AutoModeEBSDriver)
	}
	if s.WaitTimeout.Duration < 0 {
		return errors.New("spec.waitTimeout: it is negative")
	}
	return nil
}
