package convert

import "kedge.dev/kedge/internal/tree"

// requestFields are the fields of a request for devices that v1beta2 moved into "exactly".
var requestFields = []string{
	"deviceClassName", "selectors", "allocationMode", "count", "adminAccess", "tolerations", "capacity", "derivedAttributes",
}

func claimUp(c *conversion) { requestsUp(c.spec()) }

func claimDown(c *conversion) { requestsDown(c.spec()) }

func claimTemplateUp(c *conversion) { requestsUp(tree.Map(c.spec(), "spec")) }

func claimTemplateDown(c *conversion) { requestsDown(tree.Map(c.spec(), "spec")) }

func requestsUp(claim map[string]any) {
	tree.Each(tree.Map(claim, "devices"), "requests", func(request map[string]any) {
		exactly := map[string]any{}
		for _, key := range requestFields {
			move(request, key, key)
			if v, ok := request[key]; ok && v != "" {
				exactly[key] = v
			}
			delete(request, key)
		}
		if len(exactly) > 0 {
			request["exactly"] = exactly
		}
	})
}

func requestsDown(claim map[string]any) {
	tree.Each(tree.Map(claim, "devices"), "requests", func(request map[string]any) {
		exactly := tree.Map(request, "exactly")
		delete(request, "exactly")
		fillText(request, "deviceClassName", "")
		for _, key := range requestFields {
			if v, ok := exactly[key]; ok {
				request[key] = v
			}
		}
	})
}

// claimFromAlpha takes claims of Kubernetes 1.31, which may still have named a controller of their own.
func claimFromAlpha(c *conversion) {
	if tree.Text(c.spec(), "controller") != "" {
		c.refuse("it is allocated by a control plane controller (spec.controller), which later versions do not have; write it for the device classes of its driver")
		return
	}
	delete(c.obj, "status") // allocations are made again; the alpha wrote them in another shape
	requestsUp(c.spec())
}

func claimTemplateFromAlpha(c *conversion) {
	claim := tree.Map(c.spec(), "spec")
	if tree.Text(claim, "controller") != "" {
		c.refuse("its claims are allocated by a control plane controller (spec.spec.controller), which later versions do not have; write it for the device classes of its driver")
		return
	}
	requestsUp(claim)
}

func deviceClassFromAlpha(c *conversion) {
	spec := c.spec()
	if spec["suitableNodes"] != nil {
		c.warn("spec.suitableNodes was dropped: later versions have no such field")
	}
	delete(spec, "suitableNodes")
}

// sliceUp takes the fields of each device out of "basic".
func sliceUp(c *conversion) {
	spec := c.spec()
	if tree.Text(spec, "nodeName") == "" {
		delete(spec, "nodeName")
	}
	if spec["allNodes"] == false {
		delete(spec, "allNodes")
	}
	tree.Each(spec, "devices", func(device map[string]any) {
		basic := tree.Map(device, "basic")
		delete(device, "basic")
		for key, v := range basic {
			fill(device, key, v)
		}
	})
}

func sliceDown(c *conversion) {
	tree.Each(c.spec(), "devices", func(device map[string]any) {
		basic := map[string]any{}
		for key, v := range device {
			if key != "name" {
				basic[key] = v
				delete(device, key)
			}
		}
		device["basic"] = basic
	})
}

func taintRuleFromAlpha(c *conversion) {
	selector := tree.Map(c.spec(), "deviceSelector")
	for _, key := range []string{"deviceClassName", "selectors"} {
		if !tree.Empty(selector[key]) && selector[key] != "" {
			c.refuse("spec.deviceSelector.%s does not exist in later versions, and the rule would taint more devices without it; write it with driver, pool and device", key)
			return
		}
		delete(selector, key)
	}
}
