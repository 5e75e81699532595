package restore

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"path"

	"kedge.dev/kedge/internal/kube"
	"kedge.dev/kedge/plugins"
)

// restoresStatus says whether the spec asks for the status of the object's resource.
func (x *run) restoresStatus(p *prepared) bool {
	if p.status == nil || !p.target.hasStatus() {
		return false
	}
	for _, pattern := range x.plan.Request.Spec.RestoreStatus {
		for _, name := range []string{p.from.GroupResource(), p.from.Resource} {
			if ok, err := path.Match(pattern, name); err == nil && ok {
				return true
			}
		}
	}
	return false
}

// putStatus writes the archived status. A merge patch needs no resourceVersion, so it is one request.
func (x *run) putStatus(ctx context.Context, p *prepared) error {
	body := append(append([]byte(`{"status":`), p.status...), '}')
	_, err := x.e.Kube.Do(ctx, kube.Request{
		Method: http.MethodPatch, Path: p.path() + "/status", Query: x.query, Body: body,
		ContentType: "application/merge-patch+json", Accept: metadataOnly, Idempotent: true,
	})
	if err != nil {
		return fmt.Errorf("write the status: %w", err)
	}
	return nil
}

// managedEntry is an entry of metadata.managedFields (meta/v1 ManagedFieldsEntry); its fields are passed through.
type managedEntry struct {
	Manager     string          `json:"manager"`
	Operation   string          `json:"operation"`
	APIVersion  string          `json:"apiVersion"`
	Time        string          `json:"time,omitempty"`
	FieldsType  string          `json:"fieldsType"`
	FieldsV1    json.RawMessage `json:"fieldsV1,omitempty"`
	Subresource string          `json:"subresource,omitempty"`
}

// putManagedFields gives the object's fields back to their managers: a create makes all of them ours, and the owner that applies
// them next would meet conflicts. A patch that sets metadata.managedFields replaces the list (Server-Side Apply, "Transferring
// ownership"); entries of versions that the target does not serve would be dropped by it, so they get the object's.
func (x *run) putManagedFields(ctx context.Context, p *prepared, withStatus bool) error {
	var entries []managedEntry
	if err := json.Unmarshal(p.managed, &entries); err != nil {
		return fmt.Errorf("read the archived field managers: %w", err)
	}
	kept := entries[:0]
	for _, m := range entries {
		if m.Subresource == "status" && !withStatus {
			continue
		}
		if group, version, err := plugins.SplitAPIVersion(m.APIVersion); err != nil || !x.serves(group, version, p) {
			m.APIVersion = p.target.APIVersion()
		}
		kept = append(kept, m)
	}
	if len(kept) == 0 {
		return nil
	}
	body, err := json.Marshal(map[string]any{"metadata": map[string]any{"managedFields": kept}})
	if err != nil {
		return fmt.Errorf("encode the field managers: %w", err)
	}
	_, err = x.e.Kube.Do(ctx, kube.Request{
		Method: http.MethodPatch, Path: p.path(), Query: x.query, Body: body,
		ContentType: "application/merge-patch+json", Accept: metadataOnly, Idempotent: true,
	})
	if err != nil {
		return fmt.Errorf("put the field managers back: %w", err)
	}
	return nil
}

// serves says whether the target serves the object's resource in a version.
func (x *run) serves(group, version string, p *prepared) bool {
	if group == p.target.Group && version == p.target.Version {
		return true
	}
	_, ok := x.plan.discovery.Find(group, version, p.target.Resource.Resource)
	return ok
}
