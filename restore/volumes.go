package restore

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/internal/kube"
	"kedge.dev/kedge/internal/rawjson"
	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/restore/volumes"
	"kedge.dev/kedge/volume/files"
)

// VolumeSource is a Source that has the data of volumes.
type VolumeSource interface {
	Source
	// Volumes says where the data of each claim is, by claim.
	Volumes(ctx context.Context) ([]archive.Volume, error)
}

// filling is what a run knows of the volumes that it gives data.
type filling struct {
	rows   map[string]archive.Volume // by the name of the PersistentVolume in the source
	filler *volumes.Filler
	// kept are volumes whose files stay as they are, as nobody asked for those of the backup, by name. Those in moved are reached another way now, so
	// that nobody knows whether their files are there.
	kept, moved map[string]archive.Volume
	// renamed are PersistentVolumes that got another name, because the target's of that name is another claim's.
	renamed map[string]string
}

// learnFilling reads which volumes the source has data of, and where the target could use them.
func (x *run) learnFilling(ctx context.Context) error {
	source, ok := x.e.Source.(VolumeSource)
	if !ok || x.plan.Request.Spec.Volumes == v1alpha1.VolumesKeep || !x.plansVolumes() {
		return nil
	}
	rows, err := source.Volumes(ctx)
	if err != nil || len(rows) == 0 {
		return err
	}
	f := &filling{
		rows: map[string]archive.Volume{}, kept: map[string]archive.Volume{}, moved: map[string]archive.Volume{}, renamed: map[string]string{},
		filler: &volumes.Filler{Providers: needed(x.e.Providers, rows), Unconfigured: x.e.Unconfigured, Repository: x.e.Repository, Mover: x.e.Mover},
	}
	for _, row := range rows {
		if keepsFiles(&row, x.plan.Request.Spec.Volumes) {
			f.kept[row.Volume] = row
			continue
		}
		f.rows[row.Volume] = row
		if own := x.ownName(row.Volume); x.volumes[refKey(plugins.Ref{Resource: "persistentvolumes", Name: own})] {
			f.renamed[row.Volume] = own // by this restore, before it was interrupted
		}
	}
	if t := x.plan.Request.Spec.Transforms; t != nil {
		f.filler.MapZones, f.filler.MapFileSystems = t.Zones, t.FileSystems
	}
	f.filler.MapKeys = x.plan.pipeline.KMSKey
	if f.filler.Zones, err = x.zones(ctx); err != nil {
		return err
	}
	x.filling = f
	return nil
}

// needed are the providers that have to do with the rows: files alone need none that takes snapshots, and outside of AWS none would answer.
func needed(all []plugins.VolumeProvider, rows []archive.Volume) []plugins.VolumeProvider {
	folders := slices.ContainsFunc(rows, func(row archive.Volume) bool { return strings.HasPrefix(row.Source.Handle, efsDriver+"/") })
	var out []plugins.VolumeProvider
	for _, p := range all {
		_, ok := p.(plugins.FolderProvider)
		own := slices.ContainsFunc(rows, func(row archive.Volume) bool { return row.Provider == p.Name() })
		if ok && folders || !ok && own {
			out = append(out, p)
		}
	}
	return out
}

// finishFilling ends the filling of volumes; once none is to be made any more, what was needed only for that is removed.
func (x *run) finishFilling(ctx context.Context, done bool) []plugins.Remark {
	if x.filling == nil {
		return nil
	}
	err := x.filling.filler.Close(ctx)
	if done {
		err = errors.Join(err, x.filling.filler.Finish(ctx, x.plan.Request.UID))
	}
	remarks := x.filling.remarks()
	if err != nil {
		remarks = append(remarks, plugins.Remark{Reason: string(TemporaryLeft), Message: fmt.Sprintf("temporary snapshots, and objects of movers, with the tag or label %s=%s, could not all be removed: remove them by hand: %v", volumes.TagUID, x.plan.Request.UID, err)})
	}
	return remarks
}

func (x *run) plansVolumes() bool {
	return slices.ContainsFunc(x.plan.Steps, func(s Step) bool { return s.position.stage == stageVolumes })
}

// zones gives the zones in which the target has nodes, sorted; none where they may not be seen.
func (x *run) zones(ctx context.Context) ([]string, error) {
	nodes := kube.Resource{Version: "v1", Resource: "nodes"}
	var out []string
	_, err := x.e.look().List(ctx, kube.ListRequest{Path: nodes.Path("", "")}, func(raw []byte) error {
		h, err := rawjson.ReadHead(raw)
		if zone := h.Labels[corev1.LabelTopologyZone]; zone != "" && !slices.Contains(out, zone) {
			out = append(out, zone)
		}
		return err
	})
	if err != nil && kube.Code(err) != http.StatusForbidden {
		return nil, fmt.Errorf("list the target's nodes for their zones: %w", err)
	}
	slices.Sort(out)
	return out, nil
}

// volumeName is what the target calls a PersistentVolume of the source.
func (x *run) volumeName(name string) string {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.filling != nil {
		if renamed, ok := x.filling.renamed[name]; ok {
			return renamed
		}
	}
	return name
}

// fills says whether the object is a PersistentVolume that gets data of the source.
func (x *run) fills(p *prepared) (archive.Volume, bool) {
	if p.from.Group != "" || p.from.Resource != "persistentvolumes" || !x.bringsData(p.from.Name) {
		return archive.Volume{}, false
	}
	return x.filling.rows[p.from.Name], true
}

// bringsData says whether a PersistentVolume of the source gets data: where there is some, and its claim comes too.
func (x *run) bringsData(name string) bool {
	if x.filling == nil {
		return false
	}
	row, ok := x.filling.rows[name]
	return ok && x.bringsClaim(x.claimOf(row))
}

// rowOf is the row of a PersistentVolume; an empty one where there is none.
func (f *filling) rowOf(name string) archive.Volume {
	if f == nil {
		return archive.Volume{}
	}
	return f.rows[name]
}

// makesNew says whether a PersistentVolume of the source gets new storage with its data. Files go into the storage that it names.
func (x *run) makesNew(name string) bool {
	row := x.filling.rowOf(name)
	return x.bringsData(name) && !row.InPlace()
}

// claimOf is the claim of a row as the target calls it.
func (x *run) claimOf(row archive.Volume) string {
	ref := x.plan.pipeline.Ref(plugins.Ref{Version: "v1", Resource: "persistentvolumeclaims", Namespace: row.Namespace, Name: row.Claim})
	return ref.Namespace + "/" + ref.Name
}

// fill makes the volume of a PersistentVolume that is about to be created. It asks the target first, unlike other creates: a volume
// costs money, and must not be made for an object that is there already.
func (x *run) fill(ctx context.Context, p *prepared, row archive.Volume) error {
	live, err := x.get(ctx, p.path())
	if err != nil {
		return x.refused(ctx, p.index, err)
	}
	claim := x.claimOf(row)
	if live != nil && !live.serves(claim) {
		x.rename(p)
		if live, err = x.get(ctx, p.path()); err != nil {
			return x.refused(ctx, p.index, err)
		}
	}
	if live != nil {
		again, err := x.existing(ctx, p, x.resumed || x.flag(p.index, flagParked))
		if again {
			return x.finishPrepared(ctx, p, result{outcome: Failed, reason: Conflict, message: "the target's volume went away while it was looked at: restore it again"})
		}
		return err
	}
	var made plugins.Volume
	var from string
	if row.CopyKind == files.Kind || row.Provider == archive.ProviderCluster { // what makes the volume has rights of its own
		err = x.mayMake(ctx, p)
	}
	if err == nil {
		made, from, err = x.makeVolume(ctx, p, row, claim, false)
	}
	switch {
	case ctx.Err() != nil:
		return nil //nolint:nilerr // a cancelled run leaves the object for the next one; the token finds what was made
	case err != nil:
		return x.finishPrepared(ctx, p, result{outcome: Failed, reason: VolumeNotFilled, message: err.Error()})
	}
	verb := "was made of"
	if strings.HasPrefix(from, "copy ") && row.CopyKind == files.Kind {
		verb = "has the files of"
	}
	if made.Handle != row.Source.Handle && row.InPlace() {
		p.remarks = append(p.remarks, plugins.Remark{Reason: string(Changed), Message: fmt.Sprintf("the folder %s is reached as %s now", row.Source.Handle, made.Handle)})
	}
	p.filled = fmt.Sprintf("%s %s %s, the state of %s", made.Handle, verb, from, row.Taken.Format("2006-01-02 15:04:05 MST"))
	return x.create(ctx, p)
}

// serves says whether a live PersistentVolume is bound to, or waits for, the claim.
func (l *liveObject) serves(claim string) bool {
	var has struct {
		Spec struct {
			ClaimRef struct{ Namespace, Name string }
		}
		Status struct{ Phase string }
	}
	if json.Unmarshal(l.raw, &has) != nil || has.Status.Phase == string(corev1.VolumeReleased) || has.Status.Phase == string(corev1.VolumeFailed) {
		return false
	}
	return has.Spec.ClaimRef.Namespace+"/"+has.Spec.ClaimRef.Name == claim
}

// ownName is the name that a volume gets where its own is taken. It is always the same, so that a resumed restore knows it again.
func (x *run) ownName(name string) string {
	sum := sha256.Sum256([]byte(x.plan.Request.UID + "/" + name))
	return "kedge-" + hex.EncodeToString(sum[:16])
}

// rename gives the volume a name of this restore's own.
func (x *run) rename(p *prepared) {
	name := x.ownName(p.from.Name)
	x.mu.Lock()
	x.filling.renamed[p.from.Name] = name
	x.mu.Unlock()
	p.remarks = append(p.remarks, plugins.Remark{Reason: string(Changed), Message: "the target has a volume " + p.to.Name + " of another claim; this one is called " + name})
	p.to.Name = name
}

func (x *run) makeVolume(ctx context.Context, p *prepared, row archive.Volume, claim string, keep bool) (made plugins.Volume, from string, err error) {
	var pv corev1.PersistentVolume
	if err := json.Unmarshal(p.body, &pv); err != nil {
		return made, "", fmt.Errorf("decode PersistentVolume %s: %w", p.from.Name, err)
	}
	pv.Name = p.to.Name
	made, from, err = x.filling.filler.Fill(ctx, volumes.Request{
		Token: x.plan.Request.UID + "/" + row.Volume, Row: row, KeepFiles: keep, Folder: isFolder(&row),
		MayFill: func(ctx context.Context, pv *corev1.PersistentVolume) error { return x.mayFill(ctx, pv, claim) },
		Note: func(text string) {
			p.remarks = append(p.remarks, plugins.Remark{Reason: string(VolumeUnchecked), Message: text})
		},
		Tags: map[string]string{
			volumes.TagRestore: x.plan.Request.Name, volumes.TagUID: x.plan.Request.UID, volumes.TagCluster: x.plan.Target.UID, volumes.TagClaim: claim,
		},
	}, &pv)
	if err != nil {
		return made, "", err
	}
	body, err := json.Marshal(map[string]any{"apiVersion": pv.APIVersion, "kind": pv.Kind, "metadata": pv.ObjectMeta, "spec": pv.Spec})
	if err != nil {
		return made, "", fmt.Errorf("encode PersistentVolume %s: %w", pv.Name, err)
	}
	p.body = body
	return made, from, nil
}
