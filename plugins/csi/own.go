package csi

import (
	"context"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kedge.dev/kedge/plugins"
)

// What this package makes in the namespaces of applications can be made there, replaced and labelled by whoever works there. So nothing that belongs to
// no namespace is changed or deleted because an object of a namespace says so: a PersistentVolume or a VolumeSnapshotContent, which its people cannot
// write, has to say the same.

// Tags of the callers that tell whose a volume is (backup/volumes, restore/volumes).
const (
	tagBackup  = "kedge.dev/backup-uid"
	tagAttempt = "kedge.dev/attempt"
	tagRestore = "kedge.dev/restore-uid"
	tagRole    = "kedge.dev/role"
	tagPlace   = "kedge.dev/location"
)

// boundByController is on PersistentVolumes that were there before the claim they are bound to was found for them.
const boundByController = "pv.kubernetes.io/bound-by-controller"

// foreign is the refusal of an object that is not what Kedge made.
func foreign(format string, args ...any) error {
	return configured("look at who made it, and delete it if nobody needs it", format, args...)
}

func (c *content) ref(key string) string {
	value, _ := c.Spec.Ref[key].(string)
	return value
}

// isOf says whether a content was made for a VolumeSnapshot, by the snapshot controller.
func (c *content) isOf(s *snapshot) bool {
	return s.Metadata.UID != "" && c.ref("uid") == string(s.Metadata.UID) && c.ref("namespace") == s.Metadata.Namespace && c.ref("name") == s.Metadata.Name &&
		c.Spec.Source.Volume != ""
}

// helps says whether a content is one of Kedge's, for the claim that a volume is made by. token is a label's value; "" is any.
func (c *content) helps(namespace, name, token string) bool {
	return c.Metadata.Labels[LabelRole] == RoleHelper && (token == "" || c.Metadata.Labels[labelToken] == token) &&
		c.Metadata.Name == name && c.ref("namespace") == namespace && c.ref("name") == name
}

// helper gives the content of Kedge's that the volume of a claim is made of; nil where there is none.
func (p *Provider) helper(ctx context.Context, namespace, name, token string) (*content, error) {
	c := &content{}
	if err := p.get(ctx, contents.Path("", name), c); err != nil {
		return nil, unlessGone(err)
	}
	if !c.helps(namespace, name, token) {
		return nil, foreign("VolumeSnapshotContent %s is not what Kedge made for claim %s/%s", name, namespace, name)
	}
	return c, nil
}

// isRequested says whether a claim is what askVolume makes.
func isRequested(claim *corev1.PersistentVolumeClaim, req *plugins.VolumeRequest) bool {
	if claim.Labels[LabelRole] != RoleHelper || claim.Labels[labelToken] != digest(req.Token) {
		return false
	}
	of := claim.Spec.DataSource
	if req.SnapshotID == "" {
		return of == nil
	}
	return of != nil && of.Kind == "VolumeSnapshot" && of.Name == claim.Name
}

// provisionedFor says whether a driver made a PersistentVolume for a claim, which no claim can bring about for a volume that was there before.
func provisionedFor(pv *corev1.PersistentVolume, claim *corev1.PersistentVolumeClaim) bool {
	ref := pv.Spec.ClaimRef
	return ref != nil && claim.UID != "" && ref.UID == claim.UID && pv.Spec.CSI != nil && pv.Annotations[provisionedBy] != "" &&
		pv.Annotations[boundByController] == "" && !pv.CreationTimestamp.Before(&claim.CreationTimestamp)
}

// isPending says of a VolumeSnapshot that is not kept whether ask makes such ones.
func isPending(s *snapshot) bool {
	m := &s.Metadata
	return m.Labels[LabelRole] == RoleSnapshot && strings.HasPrefix(m.Name, namePrefix) && s.Spec.Source.Claim != "" && s.Spec.Source.Content == ""
}

// claimTags are the tags of a claim whose volume is not adopted yet, and whether the claim is Kedge's. That of a volume of a snapshot has a content that
// says so. An empty one has nothing: it is told of, for a person to judge, as a volume of a restore, which nothing removes by itself.
func (p *Provider) claimTags(ctx context.Context, claim *corev1.PersistentVolumeClaim, of *content) (map[string]string, bool, error) {
	own := tagsOf(&claim.ObjectMeta)
	if of != nil {
		tags := tagsOf(&of.Metadata)
		if own[tagRole] == "" {
			delete(tags, tagRole) // the content's alone
		}
		return tags, of.helps(claim.Namespace, claim.Name, claim.Labels[labelToken]), nil
	}
	if claim.Spec.DataSource != nil || own[tagRestore] == "" || own[tagBackup] != "" || own[tagAttempt] != "" || own[tagPlace] != "" {
		return nil, false, nil
	}
	if claim.Spec.VolumeName == "" {
		return own, true, nil
	}
	var pv corev1.PersistentVolume
	if err := p.get(ctx, volumes.Path("", claim.Spec.VolumeName), &pv); err != nil {
		return own, false, unlessGone(err)
	}
	return own, provisionedFor(&pv, claim), nil
}

// hasToken says whether an object is of a token.
func hasToken(m *metav1.ObjectMeta, role, token string) bool {
	return m.Labels[LabelRole] == role && m.Labels[labelToken] == digest(token)
}
