package actions

import (
	"fmt"
	"strings"

	utiljson "k8s.io/apimachinery/pkg/util/json"

	"kedge.dev/kedge/internal/tree"
	"kedge.dev/kedge/plugins"
)

const lastAppliedAnnotation = "kubectl.kubernetes.io/last-applied-configuration"

// service drops what the old cluster allocated: cluster IPs (headless Services keep their None), and node ports unless a
// user chose them, or unless all are asked to be kept. IP families and everything else stay.
func service(opts Options) plugins.Action {
	return &rule{
		name:    "Service",
		matches: on("services", `"clusterIP"`, `"clusterIPs"`, `"nodePort"`, `"healthCheckNodePort"`),
		apply: func(item *plugins.Item) plugins.Decision {
			meta, spec := tree.Map(item.Object, "metadata"), tree.Map(item.Object, "spec")
			if tree.Text(meta, "namespace") == "default" && tree.Text(meta, "name") == "kubernetes" {
				return skip(ReasonRemade, "the API server makes its own Service")
			}
			chosen := chosenIn(item)
			if !opts.PreserveClusterIPs {
				dropClusterIPs(item, spec, chosen)
			}
			if !opts.PreserveNodePorts {
				dropNodePorts(spec, chosen)
			}
			return goOn
		},
	}
}

func dropClusterIPs(item *plugins.Item, spec map[string]any, chosen choices) {
	ip := tree.Text(spec, "clusterIP")
	if ip == "None" {
		return
	}
	tree.Drop(spec, "clusterIP", "clusterIPs")
	if chosen.clusterIP && ip != "" {
		item.Remark(ReasonDropped, "clusterIP %s was chosen by a user; the target allocates another (preserveClusterIPs keeps it)", ip)
	}
}

func dropNodePorts(spec map[string]any, chosen choices) {
	tree.Each(spec, "ports", func(port map[string]any) {
		if _, ok := port["nodePort"]; ok && !chosen.nodePorts[portKey(port)] {
			delete(port, "nodePort")
		}
	})
	if !chosen.healthCheck {
		delete(spec, "healthCheckNodePort")
	}
}

// choices are the allocated fields of a Service that a user set.
type choices struct {
	nodePorts              map[string]bool
	healthCheck, clusterIP bool
}

// chosenIn finds them in the configuration last applied with kubectl, and in the fields that a manager owns: a server
// does not make anybody the owner of a port that it allocated.
func chosenIn(item *plugins.Item) choices {
	c := choices{nodePorts: map[string]bool{}}
	if s, ok := tree.Annotation(item.Object, lastAppliedAnnotation); ok {
		var applied map[string]any
		if utiljson.Unmarshal([]byte(s), &applied) == nil {
			c.fromApplied(tree.Map(applied, "spec"))
		}
	}
	owned := map[string]any{"managedFields": tree.Map(item.Object, "metadata")["managedFields"]}
	var entries []any
	if len(item.ManagedFields) > 0 && utiljson.Unmarshal(item.ManagedFields, &entries) == nil {
		owned["managedFields"] = entries
	}
	tree.Each(owned, "managedFields", func(entry map[string]any) {
		if !controllers[tree.Text(entry, "manager")] {
			c.fromOwned(tree.In(entry, "fieldsV1", "f:spec"))
		}
	})
	return c
}

// controllers are managers that set ports on nobody's behalf.
var controllers = map[string]bool{
	"kube-controller-manager": true, "cloud-controller-manager": true, "aws-cloud-controller-manager": true, "kube-apiserver": true,
}

func (c *choices) fromApplied(spec map[string]any) {
	tree.Each(spec, "ports", func(port map[string]any) {
		if n := port["nodePort"]; n != nil && n != int64(0) {
			c.nodePorts[portKey(port)] = true
		}
	})
	c.healthCheck = c.healthCheck || spec["healthCheckNodePort"] != nil
	c.clusterIP = c.clusterIP || tree.Text(spec, "clusterIP") != ""
}

// fromOwned reads FieldsV1: {"f:ports": {"k:{\"port\":80,\"protocol\":\"TCP\"}": {"f:nodePort": {}}}}.
func (c *choices) fromOwned(spec map[string]any) {
	for key, v := range tree.Map(spec, "f:ports") {
		fields, _ := v.(map[string]any)
		if _, owns := fields["f:nodePort"]; !owns {
			continue
		}
		var port map[string]any
		if raw, ok := strings.CutPrefix(key, "k:"); ok && utiljson.Unmarshal([]byte(raw), &port) == nil {
			c.nodePorts[portKey(port)] = true
		}
	}
	_, owns := spec["f:healthCheckNodePort"]
	c.healthCheck = c.healthCheck || owns
	_, owns = spec["f:clusterIP"]
	c.clusterIP = c.clusterIP || owns
}

// portKey identifies a port of a Service: number and protocol, as in a list that is merged by them.
func portKey(port map[string]any) string {
	protocol := tree.Text(port, "protocol")
	if protocol == "" {
		protocol = "TCP"
	}
	return fmt.Sprintf("%v/%s", port["port"], protocol)
}
