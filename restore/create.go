package restore

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"kedge.dev/kedge/internal/kube"
	"kedge.dev/kedge/internal/rawjson"
	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/restore/convert"
)

// metadataOnly asks for the metadata of an object alone, which spares both sides its encoding (API concepts, "Metadata-only
// fetches"); what cannot give it answers with the whole object.
const metadataOnly = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json"

// do tries one object. An error ends the run; what the target refuses is an outcome. Nil, here and in all that do calls, means that the
// object is finished or parked, or that the run is cancelled, which leaves it to the next one: nobody else will look at it again.
func (x *run) do(ctx context.Context, i int32, raw []byte) error {
	if waits := x.waitsForNamespace(i); waits != nil {
		return x.park(ctx, i, *waits)
	}
	p, decision, err := x.prep.prepare(ctx, i, raw)
	switch {
	case ctx.Err() != nil:
		return nil //nolint:nilerr // a cancelled run leaves the object for the next one
	case err != nil:
		return x.unprepared(ctx, i, err)
	case decision.Skip:
		return x.finish(ctx, i, result{outcome: Skipped, reason: Reason(decision.Reason), message: decision.Message})
	}
	if x.plan.items[i].flags&flagCompare != 0 {
		return x.compareDefault(ctx, p)
	}
	if x.flag(i, flagPosted) {
		return x.follow(ctx, p, result{outcome: Created})
	}
	if row, ok := x.fills(p); ok {
		return x.fill(ctx, p, row)
	}
	if row, ok := x.keepsFolder(p); ok {
		return x.createKept(ctx, p, row)
	}
	return x.create(ctx, p)
}

// unprepared is the outcome of an object that could not be made ready.
func (x *run) unprepared(ctx context.Context, i int32, err error) error {
	if none, ok := errors.AsType[*noTarget](err); ok {
		if none.wait != "" {
			return x.park(ctx, i, refusal{reason: none.reason, message: none.message, wait: none.wait})
		}
		return x.finish(ctx, i, result{outcome: outcomeOf(none.reason), reason: none.reason, message: none.message})
	}
	if waits, ok := errors.AsType[*ownerWaits](err); ok {
		return x.park(ctx, i, refusal{reason: OwnerWaits, message: err.Error(), wait: fmt.Sprintf("owner %d", waits.owner)})
	}
	if kube.Code(err) != 0 || errors.Is(err, kube.ErrUnreachable) {
		return x.refused(ctx, i, err)
	}
	if errors.Is(err, convert.ErrNoSuccessor) {
		return x.finish(ctx, i, result{outcome: Skipped, reason: NoSuccessor, message: err.Error()})
	}
	return x.finish(ctx, i, result{outcome: Failed, reason: Unprepared, message: err.Error()})
}

// create sends the object. It asks nothing before: only where the target has the object already does it look at it. What is there at
// each create and gone at each look is tried later.
func (x *run) create(ctx context.Context, p *prepared) error {
	const tries = 4
	mayBeOurs := x.resumed || x.flag(p.index, flagParked)
	var last error
	for range tries {
		resp, err := x.post(ctx, p)
		switch {
		case err == nil:
			return x.created(ctx, p, resp)
		case ctx.Err() != nil:
			return nil //nolint:nilerr // a cancelled run leaves the object for the next one
		case !isAlreadyExists(err) && !errors.Is(err, kube.ErrUnknownOutcome):
			return x.refused(ctx, p.index, err)
		}
		mayBeOurs = mayBeOurs || errors.Is(err, kube.ErrUnknownOutcome)
		again, lookErr := x.existing(ctx, p, mayBeOurs)
		if !again || lookErr != nil {
			return lookErr
		}
		last = err
	}
	return x.park(ctx, p.index, neverThere(last, p.from.GroupResource()))
}

// post sends a create when its turn comes.
func (x *run) post(ctx context.Context, p *prepared) (*kube.Response, error) {
	if err := x.pace.begin(ctx); err != nil {
		return nil, err
	}
	began, took := x.e.now(), time.Duration(0)
	defer func() { x.pace.end(took) }()
	resp, err := x.e.Kube.Do(ctx, kube.Request{
		Method: http.MethodPost, Path: p.collection(), Query: x.createQuery(p), Body: p.body, Accept: metadataOnly,
	})
	if err == nil {
		took = x.e.now().Sub(began) // refusals are quicker, and retries slower, than what the server gets through
	}
	return resp, err
}

func (x *run) createQuery(p *prepared) url.Values {
	if !p.strict {
		return x.query
	}
	return url.Values{"fieldManager": {x.manager}, "fieldValidation": {"Strict"}}
}

func isAlreadyExists(err error) bool {
	var se *kube.StatusError
	return errors.As(err, &se) && se.Code == http.StatusConflict && se.Reason == "AlreadyExists"
}

// created notes the new object and does what a create cannot: its status and its field managers.
func (x *run) created(ctx context.Context, p *prepared, resp *kube.Response) error {
	id, err := readUID(resp.Body)
	if err != nil {
		return x.finish(ctx, p.index, result{outcome: Failed, reason: ServerError, message: err.Error()})
	}
	p.remarks = append(p.remarks, warningsOf(resp.Header)...)
	return x.follow(ctx, p, result{outcome: Created, uid: id})
}

// follow sends what comes after a create.
func (x *run) follow(ctx context.Context, p *prepared, r result) error {
	wantsStatus := x.restoresStatus(p)
	if !wantsStatus && p.managed == nil {
		return x.finishPrepared(ctx, p, r)
	}
	if r.uid != (uid{}) {
		if err := x.posted(ctx, p.index, r.uid); err != nil {
			return err
		}
	}
	if wantsStatus {
		if err := x.putStatus(ctx, p); err != nil {
			p.remarks = append(p.remarks, plugins.Remark{Reason: string(StatusNotRestored), Message: err.Error()})
		}
	}
	if p.managed != nil {
		if err := x.putManagedFields(ctx, p, wantsStatus); err != nil {
			p.remarks = append(p.remarks, plugins.Remark{Reason: string(ManagedFieldsLost), Message: err.Error()})
		}
	}
	if ctx.Err() != nil {
		return nil //nolint:nilerr // a cancelled run leaves the object for the next one
	}
	return x.finishPrepared(ctx, p, r)
}

// readUID finds metadata.uid in an answer.
func readUID(body []byte) (uid, error) {
	var id string
	err := rawjson.Members(body, func(key string, value []byte) error {
		if key != "metadata" {
			return nil
		}
		return rawjson.Members(value, func(key string, value []byte) (err error) {
			if key == "uid" {
				id, err = rawjson.Text(value)
			}
			return err
		})
	})
	if err != nil {
		return uid{}, fmt.Errorf("read the answer to a create: %w", err)
	}
	return parseUID(id), nil
}

// warningsOf reads the warnings that the server gave with an answer (KEP-1693): 299 - "text".
func warningsOf(h http.Header) []plugins.Remark {
	var out []plugins.Remark
	for _, w := range h.Values("Warning") {
		_, text, ok := strings.Cut(w, `"`)
		if end := strings.LastIndexByte(text, '"'); ok && end >= 0 {
			text = strings.ReplaceAll(text[:end], `\"`, `"`)
			out = append(out, plugins.Remark{Reason: string(ServerWarning), Message: text})
		}
	}
	return out
}

// refused parks an object or gives it up, by what the target said.
func (x *run) refused(ctx context.Context, i int32, err error) error {
	if ctx.Err() != nil {
		return nil //nolint:nilerr // a cancelled run leaves the object for the next one
	}
	p := x.plan
	ns := p.mapped[p.items[i].ns]
	r := asRefusal(err, p.resources[p.items[i].res].groupResource(), ns)
	if r.wait == "" {
		return x.finish(ctx, i, result{outcome: Failed, reason: r.reason, by: r.by, message: r.message})
	}
	return x.park(ctx, i, r)
}

// waitsForNamespace spares an object the try where its namespace is itself still being tried.
func (x *run) waitsForNamespace(i int32) *refusal {
	ns := x.plan.mapped[x.plan.items[i].ns]
	if ns == "" {
		return nil
	}
	n, ok := x.namespace[ns]
	if !ok || !x.flag(n, flagParked) {
		return nil
	}
	return &refusal{reason: NamespaceTerminating, message: "its namespace " + ns + " is not ready", wait: waitNamespace(ns)}
}

func (x *run) flag(i int32, f itemFlags) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.plan.items[i].flags&f != 0
}

// ours says whether an object that this restore may have created was: by its field manager, after the restore began. Both are
// needed: an earlier restore of the same name used the same manager. An object without any field of its own, such as an
// empty ConfigMap, has no managers at all; then its age has to do.
func (x *run) ours(live *liveObject) bool {
	if live.created.Before(x.since.Truncate(time.Second)) {
		return false
	}
	return len(live.managers) == 0 || slices.Contains(live.managers, x.manager)
}
