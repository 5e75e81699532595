package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"slices"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/internal/kube"
	"kedge.dev/kedge/internal/rawjson"
	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/plugins/selection"
)

// liveDiff compares a backup with the live cluster, one resource after the other.
type liveDiff struct {
	app     *app
	client  *kube.Client
	reader  *archive.Reader
	compare *comparer
	result  *comparison
}

// liveObject is what is kept of an object of the cluster until its archived state is read.
type liveObject struct {
	ref   plugins.Ref
	print [sha256.Size]byte
	// extra says that the backup's own selection would take it.
	extra bool
}

// resourceRows are the archived objects of one resource.
type resourceRows struct {
	api  archive.API
	rows []located
}

func (d *liveDiff) run(ctx context.Context, s v1alpha1.Selection) error {
	discovery, err := d.client.Discover(ctx)
	if err != nil {
		return err
	}
	chosen, err := selection.Compile(s)
	if err != nil {
		return usageError(err, "")
	}
	made, err := selection.Compile(d.reader.Record().Spec.Selection)
	if err != nil {
		return fmt.Errorf("read the backup's own selection: %w", err)
	}
	resources, err := d.archived(ctx, s)
	if err != nil {
		return err
	}
	for _, r := range resources {
		live, ok := served(discovery, r.api)
		if !ok {
			d.app.ui.Warn("the cluster does not serve %s: its %s cannot be compared", groupResource(r.api.Resource, r.api.Group), plural(len(r.rows), "object"))
			continue
		}
		if err := d.resource(ctx, r, live, []*selection.Matcher{chosen, made}); err != nil {
			return err
		}
	}
	sortDifferences(d.result.Differences)
	return nil
}

// archived gives the selected rows by resource, in the archive's order.
func (d *liveDiff) archived(ctx context.Context, s v1alpha1.Selection) ([]resourceRows, error) {
	var list []resourceRows
	index := map[string]int{}
	for _, api := range d.reader.Record().APIs {
		index[groupResource(api.Resource, api.Group)] = len(list)
		list = append(list, resourceRows{api: api})
	}
	err := selectRows(ctx, d.reader, s, func(frame int, row archive.Row) error {
		if i, ok := index[row.GroupResource()]; ok {
			row.Labels, row.Owners = nil, nil
			list[i].rows = append(list[i].rows, located{frame, row})
		}
		return nil
	})
	return slices.DeleteFunc(list, func(r resourceRows) bool { return len(r.rows) == 0 }), err
}

// served finds the version in which the cluster's objects can be compared: the archived one.
func served(discovery *kube.Discovery, api archive.API) (kube.Resource, bool) {
	r, ok := discovery.Find(api.Group, api.Archived, api.Resource)
	return r, ok && r.Can("list")
}

func (d *liveDiff) resource(ctx context.Context, archived resourceRows, live kube.Resource, matchers []*selection.Matcher) error {
	objects, err := d.list(ctx, live, matchers)
	if err != nil {
		return err
	}
	byFrame := map[int][]archive.Row{}
	var frames []int
	for _, l := range archived.rows {
		if byFrame[l.frame] == nil {
			frames = append(frames, l.frame)
		}
		byFrame[l.frame] = append(byFrame[l.frame], l.row)
	}
	for _, frame := range frames {
		err := d.reader.Read(ctx, frame, byFrame[frame], func(row archive.Row, raw []byte) error {
			now, ok := objects[placeKey(row.Ref)]
			delete(objects, placeKey(row.Ref))
			return d.object(ctx, live, row.Ref, raw, now, ok)
		})
		if err != nil {
			return err
		}
	}
	for _, now := range objects {
		if now.extra {
			d.result.Differences = append(d.result.Differences, difference{Change: Added, Ref: now.ref})
		}
	}
	return nil
}

// list reads the objects of a resource and keeps their fingerprints.
func (d *liveDiff) list(ctx context.Context, live kube.Resource, matchers []*selection.Matcher) (map[string]liveObject, error) {
	objects := map[string]liveObject{}
	takes := true
	for _, m := range matchers {
		takes = takes && m.Resource(live) == selection.TakeMatching
	}
	var buffer []byte
	_, err := d.client.List(ctx, kube.ListRequest{Path: live.Path("", "")}, func(raw []byte) error {
		head, err := rawjson.ReadHead(raw)
		if err != nil {
			return err
		}
		if buffer, err = head.WithTypeMeta(buffer[:0], raw, live.APIVersion(), live.Kind); err != nil {
			return err
		}
		ref := plugins.Ref{Group: live.Group, Version: live.Version, Resource: live.Resource, Namespace: head.Namespace, Name: head.Name}
		print, err := d.compare.fingerprint(buffer)
		if err != nil {
			return err
		}
		extra := takes
		for _, m := range matchers {
			extra = extra && m.Item(ref, head.Labels) == selection.In
		}
		objects[placeKey(ref)] = liveObject{ref: ref, print: print, extra: extra}
		return nil
	})
	return objects, err
}

// object compares one archived object with its live state.
func (d *liveDiff) object(ctx context.Context, live kube.Resource, ref plugins.Ref, raw []byte, now liveObject, exists bool) error {
	if !exists {
		d.result.Differences = append(d.result.Differences, difference{Change: Removed, Ref: ref})
		return nil
	}
	print, err := d.compare.fingerprint(raw)
	if err != nil {
		return err
	}
	if print == now.print {
		d.result.Same++
		return nil
	}
	found := difference{Change: Changed, Ref: ref}
	if d.compare.patch {
		response, err := d.client.Do(ctx, kube.Request{Path: live.Path(ref.Namespace, ref.Name)})
		if err != nil {
			return err
		}
		found.Diff = d.compare.unified(ref, raw, response.Body)
	}
	d.result.Differences = append(d.result.Differences, found)
	return nil
}
