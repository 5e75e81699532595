package convert

import (
	"sort"
	"strings"

	"kedge.dev/kedge/internal/tree"
)

func ingressUp(c *conversion) {
	spec := c.spec()
	if tree.Has(spec, "backend") {
		backendUp(tree.Map(spec, "backend"))
	}
	move(spec, "backend", "defaultBackend")
	eachIngressPath(spec, func(path map[string]any) {
		fillText(path, "pathType", "ImplementationSpecific")
		backendUp(tree.Map(path, "backend"))
	})
}

func ingressDown(c *conversion) {
	spec := c.spec()
	if tree.Has(spec, "defaultBackend") {
		backendDown(tree.Map(spec, "defaultBackend"))
	}
	move(spec, "defaultBackend", "backend")
	eachIngressPath(spec, func(path map[string]any) { backendDown(tree.Map(path, "backend")) })
}

func eachIngressPath(spec map[string]any, fn func(map[string]any)) {
	tree.Each(spec, "rules", func(rule map[string]any) {
		tree.Each(tree.Map(rule, "http"), "paths", fn)
	})
}

// backendUp makes {serviceName, servicePort} into {service: {name, port: {name or number}}}.
func backendUp(backend map[string]any) {
	name, port := tree.Text(backend, "serviceName"), backend["servicePort"]
	_, named := port.(string)
	if name != "" || named || !zero(port) {
		target := map[string]any{}
		switch p := port.(type) {
		case string:
			target["name"] = p
		case int64, float64:
			if !zero(p) {
				target["number"] = p
			}
		}
		backend["service"] = map[string]any{"name": name, "port": target}
	}
	delete(backend, "serviceName")
	delete(backend, "servicePort")
}

func backendDown(backend map[string]any) {
	if !tree.Has(backend, "service") {
		return
	}
	service := tree.Map(backend, "service")
	port := tree.Map(service, "port")
	backend["serviceName"] = service["name"]
	backend["servicePort"] = int64(0)
	if name := tree.Text(port, "name"); name != "" {
		backend["servicePort"] = name
	} else if port["number"] != nil {
		backend["servicePort"] = port["number"]
	}
	delete(backend, "service")
}

const (
	zoneLabel     = "topology.kubernetes.io/zone"
	hostnameLabel = "kubernetes.io/hostname"
)

func endpointSliceUp(c *conversion) {
	lost := map[string]bool{}
	tree.Each(c.obj, "endpoints", func(endpoint map[string]any) {
		topology := tree.Map(endpoint, "topology")
		delete(endpoint, "topology")
		if zone, ok := topology[zoneLabel]; ok {
			endpoint["zone"] = zone
			delete(topology, zoneLabel)
		}
		if host, ok := topology[hostnameLabel]; ok && host == endpoint["nodeName"] {
			delete(topology, hostnameLabel)
		}
		if len(topology) > 0 {
			endpoint["deprecatedTopology"] = topology
			for key := range topology {
				lost[key] = true
			}
		}
	})
	if len(lost) > 0 {
		c.warn("endpoints' topology %s has no field of its own: a server that creates the object as v1 drops it", joined(lost))
	}
}

func endpointSliceDown(c *conversion) {
	tree.Each(c.obj, "endpoints", func(endpoint map[string]any) {
		topology, zone, node := tree.Map(endpoint, "deprecatedTopology"), endpoint["zone"], endpoint["nodeName"]
		delete(endpoint, "deprecatedTopology")
		delete(endpoint, "zone")
		if zone != nil {
			topology[zoneLabel] = zone
		}
		if node != nil && tree.Text(topology, hostnameLabel) == "" {
			topology[hostnameLabel] = node
		}
		if len(topology) > 0 {
			endpoint["topology"] = topology
		}
	})
}

func ipAddressFromAlpha(c *conversion) { delete(tree.Map(c.spec(), "parentRef"), "uid") }

// serviceCIDRFromAlpha gathers spec.ipv4 and spec.ipv6 of the first alpha into spec.cidrs.
func serviceCIDRFromAlpha(c *conversion) {
	spec := c.spec()
	var cidrs []any
	for _, key := range []string{"ipv4", "ipv6"} {
		if cidr := tree.Text(spec, key); cidr != "" {
			cidrs = append(cidrs, cidr)
		}
		delete(spec, key)
	}
	if len(cidrs) > 0 {
		fill(spec, "cidrs", cidrs)
	}
}

// joined lists a set for a message.
func joined(set map[string]bool) string {
	keys := make([]string, 0, len(set))
	for k := range set {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return strings.Join(keys, ", ")
}
