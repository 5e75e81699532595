package restore

import (
	"context"
	"encoding/json"
	"fmt"

	utiljson "k8s.io/apimachinery/pkg/util/json"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/internal/rawjson"
	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/restore/convert"
	"kedge.dev/kedge/restore/transform"
)

// prepared is one object made ready for the target.
type prepared struct {
	index  int32
	from   plugins.Ref // in the source
	to     plugins.Ref // in the target
	target *target
	body   []byte
	// managed is the archived metadata.managedFields, where they are to be put back; status likewise.
	managed, status []byte
	// strict asks the target to refuse fields that it does not know, where nothing else would tell that they are lost.
	strict  bool
	remarks []plugins.Remark
	filled  string // which volume was made for it, and of what
}

// path is the object's URL path, collection that of its kind in its namespace.
func (p *prepared) path() string       { return p.target.Path(p.to.Namespace, p.to.Name) }
func (p *prepared) collection() string { return p.target.Path(p.to.Namespace, "") }

// ownerWaits means that an object's owner is still being tried.
type ownerWaits struct{ owner int32 }

func (*ownerWaits) Error() string { return "its owner is not there yet" }

// noTarget means that the target does not take objects of a resource, or not yet, where wait says what for.
type noTarget struct {
	reason  Reason
	message string
	wait    string
}

func (e *noTarget) Error() string { return e.message }

// preparer makes objects ready. It is safe for concurrent use.
type preparer struct {
	plan  *Plan
	chain *plugins.Chain
	// targetOf gives what the target has for the item's resource at this moment.
	targetOf func(i int32) (*target, error)
	// relink makes owner references point at the target's objects, and remarks on those that it leaves out.
	relink func(ctx context.Context, i int32, raw []byte, remark func(Reason, string)) ([]byte, error)
}

// prepare turns an archived object into what is sent. A decision to skip says why it is not sent at all.
func (pr *preparer) prepare(ctx context.Context, i int32, raw []byte) (*prepared, plugins.Decision, error) {
	p := pr.plan
	res := &p.resources[p.items[i].res]
	t, err := pr.targetOf(i)
	if err != nil {
		return nil, plugins.Decision{}, err
	}
	out := &prepared{index: i, from: p.ref(i), target: t}
	if p.items[i].flags&flagMade != 0 {
		out.to = p.pipeline.Ref(out.from)
		out.body, err = madeNamespace(out.to.Name)
		return out, plugins.Decision{}, err
	}
	rw := rewriting{ref: out.from, kind: res.Kind, relink: func(owners []byte) ([]byte, error) {
		return pr.relink(ctx, i, owners, func(r Reason, msg string) {
			out.remarks = append(out.remarks, plugins.Remark{Reason: string(r), Message: msg})
		})
	}}
	if p.items[i].flags&flagHistory != 0 && runsPods(raw) {
		return nil, plugins.Decision{Skip: true, Reason: string(Remade), Message: "its Deployment's controller makes its current ReplicaSet again"}, nil
	}
	out.to = plugins.Ref{Group: t.Group, Version: t.Version, Resource: t.Resource.Resource, Namespace: out.from.Namespace, Name: out.from.Name}
	subject := transform.Subject{Ref: out.from, Kind: res.Kind}
	compared := p.items[i].flags&flagCompare != 0 // as it is: what an action would change is the server's
	whole := !compared && (t.state == targetTable || t.state == targetOther || isSchedule(out.from) || pr.chain.Wants(out.to, raw) || p.pipeline.Wants(subject, raw))
	noStatus := t.hasStatus() || builtIn(t.Group) // else it is ordinary data of a custom resource
	rw.dropStatus = noStatus && !whole
	done, err := rw.rewrite(make([]byte, 0, len(raw)), raw)
	if err != nil {
		return nil, plugins.Decision{}, err
	}
	if done.deleting {
		return nil, plugins.Decision{Skip: true, Reason: string(BeingDeleted), Message: reasonTexts[BeingDeleted]}, nil
	}
	out.body, out.status = done.body, done.status
	if p.items[i].flags&flagApplied != 0 {
		out.managed = done.managed
	}
	decision := plugins.Decision{}
	if whole {
		decision, err = pr.change(ctx, out, subject, done.managed)
	}
	out.to = p.pipeline.Ref(out.to)
	return out, decision, err
}

// runsPods says whether a ReplicaSet asks for pods, as the current one of a Deployment does.
func runsPods(raw []byte) bool {
	runs := false
	err := rawjson.Members(raw, func(key string, value []byte) error {
		if key != "spec" {
			return nil
		}
		return rawjson.Members(value, func(key string, value []byte) error {
			runs = runs || key == "replicas" && string(value) != "0"
			return nil
		})
	})
	return err == nil && runs
}

func isSchedule(ref plugins.Ref) bool {
	return ref.Group == v1alpha1.GroupVersion.Group && ref.Resource == "schedules"
}

// change decodes the object, converts it, lets actions and transforms change it, and encodes it again.
func (pr *preparer) change(ctx context.Context, out *prepared, subject transform.Subject, managed []byte) (plugins.Decision, error) {
	var obj map[string]any
	if err := utiljson.Unmarshal(out.body, &obj); err != nil {
		return plugins.Decision{}, fmt.Errorf("decode: %w", err)
	}
	if err := out.convert(obj); err != nil {
		return plugins.Decision{}, err
	}
	if isSchedule(out.from) {
		arrivePaused(obj)
	}
	item := &plugins.Item{Ref: out.to, Object: obj, ManagedFields: managed}
	decision, err := pr.chain.Apply(ctx, item)
	out.remarks = append(out.remarks, item.Remarks...)
	if err != nil || decision.Skip {
		return decision, err
	}
	if meta, ok := item.Object["metadata"].(map[string]any); ok {
		subject.Labels = labelsOf(meta)
	}
	changed, err := pr.plan.pipeline.Apply(ctx, subject, item.Object)
	if err != nil {
		return plugins.Decision{}, err
	}
	out.remarks = append(out.remarks, changed.Remarks...)
	if out.target.hasStatus() || builtIn(out.target.Group) {
		delete(changed.Object, "status")
	}
	if out.body, err = json.Marshal(changed.Object); err != nil {
		return plugins.Decision{}, fmt.Errorf("encode: %w", err)
	}
	return plugins.Decision{}, nil
}

// convert brings the object to the target's version.
func (p *prepared) convert(obj map[string]any) error {
	switch p.target.state {
	case targetTable:
		warnings, err := convert.Convert(obj, schema.GroupVersion{Group: p.target.Group, Version: p.target.Version})
		if err != nil {
			return err
		}
		p.remarks = append(p.remarks, plugins.Remark{Reason: string(Converted), Message: p.target.message})
		for _, w := range warnings {
			p.remarks = append(p.remarks, plugins.Remark{Reason: string(Converted), Message: w})
		}
	case targetOther:
		obj["apiVersion"] = p.target.APIVersion()
		p.strict = true
		p.remarks = append(p.remarks, plugins.Remark{Reason: string(Converted), Message: p.target.message})
	case targetSame, targetPending, targetNone:
	}
	return nil
}

// arrivePaused keeps a restored Schedule from running beside the one that it was copied from: by the clock, and because of a request for a run that was made
// of the old one, and which its status, left behind, says was met. Its retention waits too, until somebody has looked and unpauses it.
func arrivePaused(obj map[string]any) {
	spec, ok := obj["spec"].(map[string]any)
	if !ok {
		spec = map[string]any{}
		obj["spec"] = spec
	}
	spec["paused"] = true
	meta, ok := obj["metadata"].(map[string]any)
	if !ok {
		meta = map[string]any{}
		obj["metadata"] = meta
	}
	annotations, ok := meta["annotations"].(map[string]any)
	if !ok {
		annotations = map[string]any{}
		meta["annotations"] = annotations
	}
	delete(annotations, v1alpha1.RunRequestedAnnotation)
	annotations[v1alpha1.RestoredAnnotation] = "true"
}

func labelsOf(meta map[string]any) map[string]string {
	raw, ok := meta["labels"].(map[string]any)
	if !ok {
		return nil
	}
	out := make(map[string]string, len(raw))
	for k, v := range raw {
		if s, ok := v.(string); ok {
			out[k] = s
		}
	}
	return out
}
