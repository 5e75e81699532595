package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/internal/kube"
	"kedge.dev/kedge/plugins"
)

func (a *app) backupShowCommand() *cobra.Command {
	var out outputFlag
	var location string
	var view showFlags
	cmd := &cobra.Command{
		Use:   "show NAME RESOURCE [NAMESPACE/]OBJECT",
		Short: "Print one object of a backup without restoring it",
		Long: `Print one object of a backup as it was, without restoring it. Only the part of the archive that holds it is read.

The values of Secrets are masked unless --show-secrets is given; metadata.managedFields is left out unless --show-managed-fields is.`,
		Example: `  kedge backup show nightly deployments.apps shop/cart
  kedge backup show nightly deploy cart -n shop
  kedge backup show nightly secret shop/db --show-secrets`,
		Args: argsBetween(3, "NAME", "RESOURCE", "OBJECT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, r, err := a.choose()
			if err != nil {
				return atCommand("show an object", err)
			}
			if r != nil {
				if err := refuseLocalFlags(cmd, "show an object", readFlags...); err != nil {
					return err
				}
				return r.showItem(cmd.Context(), &out, location, args, view)
			}
			f, err := a.findBackup(cmd.Context(), c, location, args[0])
			if err != nil {
				return err
			}
			reader, err := a.read(cmd.Context(), f)
			if err != nil {
				return err
			}
			refs, err := archivedRefs(reader.Record(), args[1], args[2], view.namespace)
			if err != nil {
				return err
			}
			return a.showItem(cmd.Context(), &out, reader, refs, view)
		},
	}
	out.bind(cmd.Flags(), formatYAML, formatJSON)
	cmd.Flags().StringVarP(&view.namespace, "namespace", "n", "", "`namespace` of the object, instead of writing it before the name")
	cmd.Flags().BoolVar(&view.secrets, "show-secrets", false, "print the values of Secrets")
	cmd.Flags().BoolVar(&view.managedFields, "show-managed-fields", false, "print metadata.managedFields")
	bindLocation(cmd.Flags(), &location)
	a.keys.bindIdentities(cmd.Flags())
	a.keys.bindTrust(cmd.Flags())
	a.kube.bind(cmd.Flags())
	return cmd
}

// showFlags say what of an object is printed.
type showFlags struct {
	namespace     string
	secrets       bool
	managedFields bool
}

// splitItem reads [NAMESPACE/]NAME.
func splitItem(name, namespace string) (itsNamespace, itsName string, err error) {
	if before, after, ok := strings.Cut(name, "/"); ok {
		if namespace != "" && namespace != before {
			return "", "", usageError(fmt.Errorf("show object: %q names another namespace than --namespace %s", name, namespace), "")
		}
		namespace, name = before, after
	}
	if name == "" || strings.Contains(name, "/") {
		return "", "", usageError(fmt.Errorf("show object: %q is not of the form NAMESPACE/NAME or NAME", name), "")
	}
	return namespace, name, nil
}

// archivedRefs gives what a resource as typed ("deploy", "deployments.apps") and a name may stand for in a backup.
func archivedRefs(record *archive.Record, resource, name, namespace string) ([]plugins.Ref, error) {
	namespace, name, err := splitItem(name, namespace)
	if err != nil {
		return nil, err
	}
	var refs []plugins.Ref
	unplaced := ""
	for _, api := range record.APIs {
		r := archivedResource(api)
		if r.Matches(resource) == kube.MatchNone && shortResource(resource) != r.GroupResource() {
			continue
		}
		if api.Namespaced && namespace == "" {
			unplaced = r.GroupResource()
			continue
		}
		ref := plugins.Ref{Group: api.Group, Resource: api.Resource, Name: name}
		if api.Namespaced {
			ref.Namespace = namespace
		}
		refs = append(refs, ref)
	}
	switch {
	case len(refs) == 0 && unplaced != "":
		return nil, usageError(fmt.Errorf("show object: %s are in namespaces, and none is named", unplaced), "write NAMESPACE/"+name)
	case len(refs) == 0:
		return nil, codeError(exitNotFound, fmt.Errorf("show object: the backup holds no resource %q", resource), "\"kedge backup describe\" lists the resources that it holds")
	}
	return refs, nil
}

func (a *app) showItem(ctx context.Context, out *outputFlag, reader *archive.Reader, refs []plugins.Ref, view showFlags) error {
	var raw []byte
	err := error(archive.ErrItemNotFound)
	for _, ref := range refs {
		if raw, err = reader.Item(ctx, ref); err == nil || !errors.Is(err, archive.ErrItemNotFound) {
			break
		}
	}
	if errors.Is(err, archive.ErrItemNotFound) {
		return codeError(exitNotFound, fmt.Errorf("show object: the backup holds no %s", refs[0]), "\"kedge backup items\" lists what it holds")
	}
	if err != nil {
		return err
	}
	return a.printItem(out, raw, view)
}

// printItem prints an archived object.
func (a *app) printItem(out *outputFlag, raw []byte, view showFlags) error {
	object, err := decodeObject(raw)
	if err != nil {
		return err
	}
	if !view.secrets {
		maskSecret(object)
	}
	if metadata, ok := object["metadata"].(map[string]any); ok && !view.managedFields {
		delete(metadata, "managedFields")
	}
	return a.printStructured(out.format, object)
}

// decodeObject decodes an archived object; numbers keep their digits.
func decodeObject(raw []byte) (map[string]any, error) {
	var object map[string]any
	decoder := json.NewDecoder(strings.NewReader(string(raw)))
	decoder.UseNumber()
	if err := decoder.Decode(&object); err != nil {
		return nil, codeError(exitRefused, fmt.Errorf("read an archived object: %w", err), `run "kedge backup verify --deep" to see how far it goes`)
	}
	return object, nil
}

// masked stands for the value of a Secret.
const masked = "***"

// maskSecret hides the values of a Secret, also in the annotation in which kubectl keeps what was applied.
func maskSecret(object map[string]any) {
	if object["kind"] != "Secret" {
		return
	}
	for _, field := range []string{"data", "stringData"} {
		if values, ok := object[field].(map[string]any); ok {
			for key := range values {
				values[key] = masked
			}
		}
	}
	metadata, _ := object["metadata"].(map[string]any)
	annotations, _ := metadata["annotations"].(map[string]any)
	const applied = "kubectl.kubernetes.io/last-applied-configuration"
	if _, ok := annotations[applied]; ok {
		annotations[applied] = masked
	}
}

// shortResource gives the resource of the short names that every cluster knows; archives do not record short names.
func shortResource(name string) string {
	return map[string]string{
		"cm": "configmaps", "ns": "namespaces", "no": "nodes", "pvc": "persistentvolumeclaims", "pv": "persistentvolumes", "po": "pods", "rc": "replicationcontrollers",
		"quota": "resourcequotas", "limits": "limitranges", "sa": "serviceaccounts", "svc": "services", "ep": "endpoints", "ds": "daemonsets.apps", "deploy": "deployments.apps",
		"rs": "replicasets.apps", "sts": "statefulsets.apps", "hpa": "horizontalpodautoscalers.autoscaling", "cj": "cronjobs.batch", "ing": "ingresses.networking.k8s.io",
		"netpol": "networkpolicies.networking.k8s.io", "pdb": "poddisruptionbudgets.policy", "pc": "priorityclasses.scheduling.k8s.io", "sc": "storageclasses.storage.k8s.io",
		"crd": "customresourcedefinitions.apiextensions.k8s.io", "crds": "customresourcedefinitions.apiextensions.k8s.io",
	}[strings.ToLower(name)]
}
