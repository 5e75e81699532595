package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/internal/term"
	"kedge.dev/kedge/plugins"
)

// locationOut is a location as commands print it.
func locationOut(l *v1alpha1.BackupStorageLocation) *v1alpha1.BackupStorageLocation {
	l.TypeMeta = metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "BackupStorageLocation"}
	l.ManagedFields = nil
	return l
}

// locations gives the location of a name, or all where it is "".
func (r *remote) locations(ctx context.Context, name string) ([]v1alpha1.BackupStorageLocation, error) {
	if name != "" {
		var l v1alpha1.BackupStorageLocation
		if err := r.get(ctx, name, &l); err != nil {
			return nil, fmt.Errorf("find location %s: %w", name, err)
		}
		return []v1alpha1.BackupStorageLocation{l}, nil
	}
	var list v1alpha1.BackupStorageLocationList
	if err := r.list(ctx, &list); err != nil {
		return nil, fmt.Errorf("list the locations: %w", err)
	}
	slices.SortFunc(list.Items, func(x, y v1alpha1.BackupStorageLocation) int { return cmp.Compare(x.Name, y.Name) })
	return list.Items, nil
}

func (r *remote) getLocations(ctx context.Context, out *outputFlag, name string) error {
	found, err := r.locations(ctx, name)
	if err != nil {
		return err
	}
	if out.structured() {
		return printList(r.app, out, found, name != "", "BackupStorageLocationList", func(l *v1alpha1.BackupStorageLocation) { locationOut(l) })
	}
	if out.format == formatName {
		for i := range found {
			r.app.printf("%s\n", found[i].Name)
		}
		return nil
	}
	now := r.app.env.Now()
	table := term.Table{Columns: []term.Column{
		{Name: "NAME"}, {Name: "STATUS", Color: availableColor}, {Name: "DEFAULT"}, {Name: "ACCESS"}, {Name: "BACKUPS", Right: true}, {Name: "SYNCED"}, {Name: "WHERE"},
		{Name: "REGION", Wide: true}, {Name: "KMS KEY", Wide: true}, {Name: "PUBLIC KEY", Wide: true},
	}}
	for i := range found {
		l := &found[i]
		s := &l.Status
		access, isDefault, region, synced := "read-write", "", "", "never"
		if l.Spec.ReadOnly {
			access = "read-only"
		}
		if l.Spec.Default {
			isDefault = "yes"
		}
		if l.Spec.S3 != nil {
			region = l.Spec.S3.Region
		}
		if s.LastSyncTime != nil {
			synced = term.Age(now, s.LastSyncTime.Time) + " ago"
		}
		table.Add(l.Name, orElse(string(s.Phase), "New"), isDefault, access, term.Count(int64(s.Backups)), synced, orElse(s.URL, where(&l.Spec)),
			region, l.Spec.KMSKeyID, orElse(l.Spec.PublicKey, s.PublicKey))
	}
	return r.app.printTable(&table, out.format, `No locations in namespace `+r.namespace+`. "kedge location create" makes one.`)
}

func availableColor(text string) term.Color {
	switch v1alpha1.LocationPhase(text) {
	case v1alpha1.LocationAvailable:
		return term.Green
	case v1alpha1.LocationUnavailable:
		return term.Red
	}
	return term.Yellow
}

func (r *remote) describeLocation(ctx context.Context, name string) error {
	found, err := r.locations(ctx, name)
	if err != nil {
		return err
	}
	l := &found[0]
	r.app.describeLocation(&config{}, l)
	d := r.app.describe()
	if s := l.Spec.S3; s != nil && s.CredentialsSecret != nil {
		d.field("Credentials Secret", s.CredentialsSecret.Name)
	}
	for _, recipient := range l.Spec.AgeRecipients {
		d.field("Age recipient", recipient)
	}
	if s := l.Spec.AgeIdentitySecret; s != nil {
		d.field("Age identity Secret", s.Name)
	}
	if s := l.Spec.SigningKeySecret; s != nil {
		d.field("Signing key Secret", s.Name)
	}
	s := &l.Status
	d.field("Status", orElse(string(s.Phase), "New: no server has looked at it"))
	d.field("Id", s.ID)
	if l.Spec.PublicKey == "" {
		d.field("Public key (not pinned)", s.PublicKey)
	}
	d.field("Backups", term.Count(int64(s.Backups)))
	if s.LastValidationTime != nil {
		d.moment("Last answer", s.LastValidationTime.Time)
	}
	if s.LastSyncTime != nil {
		d.moment("Last sync", s.LastSyncTime.Time)
	}
	r.app.printConditions(s.Conditions)
	return nil
}

// checkLocation prints what the server found out about a location; without a name, about all.
func (r *remote) checkLocation(ctx context.Context, out *outputFlag, name string) error {
	found, err := r.locations(ctx, name)
	if err != nil {
		return err
	}
	if len(found) == 0 {
		return codeError(exitNotFound, fmt.Errorf("check location: there is none in namespace %s", r.namespace), `"kedge location create" makes one`)
	}
	var findings []plugins.Finding
	for i := range found {
		prefix := ""
		if name == "" {
			prefix = found[i].Name + ": "
		}
		findings = append(findings, locationFindings(&found[i], prefix)...)
	}
	return r.app.printFindings(out, findings)
}

// locationFindings are the conditions of a location as findings.
func locationFindings(l *v1alpha1.BackupStorageLocation, prefix string) []plugins.Finding {
	if len(l.Status.Conditions) == 0 {
		return []plugins.Finding{{Name: prefix + "Ready", Level: plugins.LevelFailed, Detail: "no server has looked at it yet", Remedy: "\"kedge doctor\" checks whether a server runs"}}
	}
	var findings []plugins.Finding
	for _, c := range l.Status.Conditions {
		f := plugins.Finding{Name: prefix + c.Type, Level: plugins.LevelOK, Detail: oneLine(c.Message)}
		switch c.Status {
		case metav1.ConditionTrue:
		case metav1.ConditionFalse:
			f.Level, f.Detail = plugins.LevelFailed, c.Reason+": "+f.Detail
		default:
			f.Level, f.Detail = plugins.LevelWarning, c.Reason+": "+f.Detail
		}
		findings = append(findings, f)
	}
	return findings
}

// deleteLocation removes a location's object. The bucket and the Secrets stay: one of them may be the last copy of a key.
func (r *remote) deleteLocation(ctx context.Context, name string) error {
	found, err := r.locations(ctx, name)
	if err != nil {
		return err
	}
	l := &found[0]
	if err := r.delete(ctx, l); err != nil {
		return fmt.Errorf("delete location %s: %w", name, err)
	}
	r.app.ui.Note("Location %s is forgotten by the server. %s and its backups are untouched; \"kedge location add\" registers it again.", name, where(&l.Spec))
	for _, secret := range locationSecrets(&l.Spec) {
		r.app.ui.Note("Secret %s stays: kubectl delete secret -n %s %s", secret, r.namespace, secret)
	}
	return nil
}

func locationSecrets(spec *v1alpha1.BackupStorageLocationSpec) []string {
	var names []string
	refs := []*v1alpha1.SecretKeyReference{spec.AgeIdentitySecret, spec.SigningKeySecret}
	if spec.S3 != nil {
		refs = append(refs, spec.S3.CredentialsSecret)
	}
	for _, ref := range refs {
		if ref != nil && !slices.Contains(names, ref.Name) {
			names = append(names, ref.Name)
		}
	}
	return names
}

// lookedAtFor is how long a new location is followed until a server has looked at it.
const lookedAtFor = 45 * time.Second

// awaitLocation follows a new location until the server says whether it can use it, and pins its key.
func (r *remote) awaitLocation(ctx context.Context, l *v1alpha1.BackupStorageLocation) error {
	r.app.ui.Note("Location %s is made; the server looks at it.", l.Name)
	begun := r.app.env.Now()
	var ready *metav1.Condition
	err := r.follow(ctx, l, func() bool {
		ready = meta.FindStatusCondition(l.Status.Conditions, "Ready")
		return ready != nil && ready.Status != metav1.ConditionUnknown || r.app.env.Now().Sub(begun) > lookedAtFor
	})
	switch {
	case ctx.Err() != nil:
		return codeError(exitCancelled, fmt.Errorf("follow location %s: stopped; the location stays", l.Name), fmt.Sprintf("\"kedge location check %s\" shows what the server says of it", l.Name))
	case err != nil:
		return err
	case ready == nil:
		return codeError(exitUnreachable, errors.New("no server has looked at it yet; it stays"), "\"kedge doctor\" checks whether a server runs")
	case ready.Status != metav1.ConditionTrue:
		return codeError(exitFailed, fmt.Errorf("the server cannot use it yet: %s: %s", ready.Reason, oneLine(ready.Message)), fmt.Sprintf("it stays and is tried again: \"kedge location check %s\"; \"kedge location delete %s\" takes it back", l.Name, l.Name))
	}
	if l.Spec.PublicKey == "" && l.Status.PublicKey != "" {
		if err := r.merge(ctx, l, fmt.Sprintf(`{"spec":{"publicKey":%q}}`, l.Status.PublicKey)); err != nil {
			return fmt.Errorf("pin its key: %w", err)
		}
		r.app.ui.Note("Its key %s is pinned.", l.Spec.PublicKey)
	}
	r.app.ui.Note("Location %s is ready: %s holds %s.", l.Name, l.Status.URL, plural(l.Status.Backups, "backup"))
	return nil
}
