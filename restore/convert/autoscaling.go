package convert

import (
	"strings"
	"unicode"

	"kedge.dev/kedge/internal/tree"
)

// Annotations in which the API servers keep, in older versions of a HorizontalPodAutoscaler, what those have no field for.
const (
	metricsAnnotation        = "autoscaling.alpha.kubernetes.io/metrics"
	currentMetricsAnnotation = "autoscaling.alpha.kubernetes.io/current-metrics"
	conditionsAnnotation     = "autoscaling.alpha.kubernetes.io/conditions"
	behaviorAnnotation       = "autoscaling.alpha.kubernetes.io/behavior"
)

// defaultUtilization is the percentage of CPU that an autoscaler without metrics aims at.
const defaultUtilization = int64(80)

func dropAutoscalerAnnotations(o map[string]any) {
	for _, a := range []string{metricsAnnotation, currentMetricsAnnotation, conditionsAnnotation, behaviorAnnotation} {
		tree.DropAnnotations(o, a)
	}
}

func cpuMetric(utilization any) map[string]any {
	return map[string]any{"type": "Resource", "resource": map[string]any{
		"name": "cpu", "target": map[string]any{"type": "Utilization", "averageUtilization": utilization},
	}}
}

func autoscalerFromV1(c *conversion) {
	spec := c.spec()
	metrics := annotatedMetrics(c, metricsAnnotation, legacyMetricUp)
	if target := spec["targetCPUUtilizationPercentage"]; target != nil {
		metrics = append(metrics, cpuMetric(target))
	}
	delete(spec, "targetCPUUtilizationPercentage")
	if len(metrics) == 0 {
		metrics = append(metrics, cpuMetric(defaultUtilization))
	}
	if tree.Has(c.obj, "spec") {
		spec["metrics"] = metrics
	}
	behaviorFromAnnotation(c)
	autoscalerStatusFromV1(c)
	dropAutoscalerAnnotations(c.obj)
}

func autoscalerStatusFromV1(c *conversion) {
	status := tree.Map(c.obj, "status")
	if percent := status["currentCPUUtilizationPercentage"]; percent != nil {
		status["currentMetrics"] = []any{map[string]any{"type": "Resource", "resource": map[string]any{
			"name": "cpu", "current": map[string]any{"averageUtilization": percent},
		}}}
	}
	delete(status, "currentCPUUtilizationPercentage")
	if metrics := annotatedMetrics(c, currentMetricsAnnotation, legacyStatusUp); metrics != nil {
		status["currentMetrics"] = metrics
	}
	var conditions []any
	if s, ok := tree.Annotation(c.obj, conditionsAnnotation); ok && decode(s, &conditions) {
		status["conditions"] = conditions
	}
	if len(status) > 0 {
		c.obj["status"] = status
	}
}

// annotatedMetrics reads a list of metrics from an annotation. One that is damaged counts for nothing, as in the servers.
func annotatedMetrics(c *conversion, key string, up func(map[string]any)) []any {
	s, ok := tree.Annotation(c.obj, key)
	if !ok {
		return nil
	}
	var metrics []any
	if !decode(s, &metrics) {
		c.warn("annotation %s is not a list in JSON and was dropped", key)
		return nil
	}
	for _, m := range metrics {
		if metric, ok := m.(map[string]any); ok {
			up(metric)
		}
	}
	return metrics
}

// behaviorFromAnnotation moves spec.behavior out of its annotation, where the servers write its fields with capitals.
func behaviorFromAnnotation(c *conversion) {
	s, ok := tree.Annotation(c.obj, behaviorAnnotation)
	if !ok {
		return
	}
	var behavior map[string]any
	if !decode(s, &behavior) {
		c.warn("annotation %s is not an object in JSON and was dropped", behaviorAnnotation)
		return
	}
	behavior, _ = renameKeys(behavior, lowerFirst).(map[string]any)
	if len(behavior) > 0 && tree.Has(c.obj, "spec") {
		c.spec()["behavior"] = behavior
	}
}

// renameKeys renames the fields of maps at every depth, and drops nulls.
func renameKeys(v any, rename func(string) string) any {
	switch x := v.(type) {
	case map[string]any:
		out := make(map[string]any, len(x))
		for k, e := range x {
			if e != nil {
				out[rename(k)] = renameKeys(e, rename)
			}
		}
		return out
	case []any:
		for i, e := range x {
			x[i] = renameKeys(e, rename)
		}
	}
	return v
}

func lowerFirst(s string) string {
	for i, r := range s {
		return string(unicode.ToLower(r)) + s[i+len(string(r)):]
	}
	return s
}

func upperFirst(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

func autoscalerFromBeta2(c *conversion) { dropAutoscalerAnnotations(c.obj) }

func autoscalerToBeta2(c *conversion) {
	dropAutoscalerAnnotations(c.obj)
	dropTolerance(c)
}

// dropTolerance removes what versions before autoscaling/v2 of Kubernetes 1.33 do not know.
func dropTolerance(c *conversion) {
	behavior := tree.Map(c.spec(), "behavior")
	for _, direction := range []string{"scaleUp", "scaleDown"} {
		rules := tree.Map(behavior, direction)
		if rules["tolerance"] != nil {
			c.warn("spec.behavior.%s.tolerance was dropped: %s has no such field", direction, c.to)
		}
		delete(rules, "tolerance")
	}
}

func autoscalerFromBeta1(c *conversion) {
	tree.Each(c.spec(), "metrics", legacyMetricUp)
	tree.Each(tree.Map(c.obj, "status"), "currentMetrics", legacyStatusUp)
	behaviorFromAnnotation(c)
	dropAutoscalerAnnotations(c.obj)
}

func autoscalerToBeta1(c *conversion) {
	dropAutoscalerAnnotations(c.obj)
	dropTolerance(c)
	tree.Each(c.spec(), "metrics", legacyMetricDown)
	tree.Each(tree.Map(c.obj, "status"), "currentMetrics", legacyStatusDown)
	behaviorToAnnotation(c)
}

func behaviorToAnnotation(c *conversion) {
	spec := c.spec()
	if tree.Has(spec, "behavior") {
		tree.SetAnnotation(c.obj, behaviorAnnotation, encode(renameKeys(spec["behavior"], upperFirst)))
	}
	delete(spec, "behavior")
}

func autoscalerToV1(c *conversion) {
	dropAutoscalerAnnotations(c.obj)
	spec, status := c.spec(), tree.Map(c.obj, "status")
	var others []any
	tree.Each(spec, "metrics", func(metric map[string]any) {
		resource := tree.Map(metric, "resource")
		utilization := tree.Map(resource, "target")["averageUtilization"]
		if tree.Text(metric, "type") == "Resource" && tree.Text(resource, "name") == "cpu" && utilization != nil {
			fill(spec, "targetCPUUtilizationPercentage", utilization)
			return
		}
		legacyMetricDown(metric)
		others = append(others, metric)
	})
	delete(spec, "metrics")
	if len(others) > 0 {
		tree.SetAnnotation(c.obj, metricsAnnotation, encode(others))
	}
	behaviorToAnnotation(c)
	tree.Each(status, "currentMetrics", func(metric map[string]any) {
		resource := tree.Map(metric, "resource")
		if percent := tree.Map(resource, "current")["averageUtilization"]; tree.Text(resource, "name") == "cpu" && percent != nil {
			status["currentCPUUtilizationPercentage"] = percent
		}
		legacyStatusDown(metric)
	})
	if !tree.Empty(status["currentMetrics"]) {
		tree.SetAnnotation(c.obj, currentMetricsAnnotation, encode(status["currentMetrics"]))
	}
	if !tree.Empty(status["conditions"]) {
		tree.SetAnnotation(c.obj, conditionsAnnotation, encode(status["conditions"]))
	}
	delete(status, "currentMetrics")
	delete(status, "conditions")
}
