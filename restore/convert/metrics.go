package convert

import "kedge.dev/kedge/internal/tree"

// Metrics of an autoscaler have one shape in autoscaling/v2 and v2beta2, and another in v2beta1 and in the annotations of
// autoscaling/v1, called legacy here.

// sources are the fields of a metric that hold its source, by its type.
var sources = []string{"resource", "containerResource", "pods", "object", "external"}

// legacyMetricUp changes one entry of spec.metrics.
func legacyMetricUp(metric map[string]any) {
	for _, key := range sources {
		if !tree.Has(metric, key) {
			continue
		}
		source := tree.Map(metric, key)
		switch key {
		case "object":
			objectUp(source, "target", "targetValue")
		case "external":
			namedUp(source, "metricSelector", targetOf(source, "Value", map[string]string{"targetValue": "value", "targetAverageValue": "averageValue"}))
		case "pods":
			fill(source, "targetAverageValue", "0") // what the old version read where it was left out
			namedUp(source, "selector", targetOf(source, "AverageValue", map[string]string{"targetAverageValue": "averageValue"}))
		default:
			target := targetOf(source, "Utilization", map[string]string{"targetAverageUtilization": "averageUtilization", "targetAverageValue": "averageValue"})
			if len(target) > 1 || !tree.Has(source, "target") {
				source["target"] = target
			}
		}
	}
}

// targetOf collects old fields in a target. Its type is kind where the field that shows it is there, else AverageValue.
func targetOf(source map[string]any, kind string, fields map[string]string) map[string]any {
	shows := map[string]string{"Value": "value", "AverageValue": "averageValue", "Utilization": "averageUtilization"}[kind]
	target := map[string]any{"type": "AverageValue"}
	for from, to := range fields {
		if v := source[from]; v != nil {
			target[to] = v
		}
		delete(source, from)
	}
	if target[shows] != nil {
		target["type"] = kind
	}
	return target
}

// namedUp makes {metricName, <selector>} into {metric: {name, selector}} and sets the target.
func namedUp(source map[string]any, selector string, target map[string]any) {
	metric := map[string]any{"name": tree.Text(source, "metricName")}
	if s := source[selector]; s != nil {
		metric["selector"] = s
	}
	delete(source, "metricName")
	delete(source, selector)
	source["metric"] = metric
	source["target"] = target
}

// objectUp changes the source or the status of an object's metric.
func objectUp(source map[string]any, reference, value string) {
	described, target := tree.Map(source, reference), map[string]any{"type": "Value"}
	delete(source, reference)
	fill(source, value, "0")
	target["value"] = source[value]
	if v := source["averageValue"]; v != nil {
		target["averageValue"], target["type"] = v, "AverageValue"
		// The old field could not be left out; a zero beside an average is no value, and v2 refuses it.
		if target["value"] == "0" {
			delete(target, "value")
		}
	}
	delete(source, value)
	delete(source, "averageValue")
	namedUp(source, "selector", target)
	source["describedObject"] = described
}

// legacyStatusUp changes one entry of status.currentMetrics.
func legacyStatusUp(metric map[string]any) {
	for _, key := range sources {
		if !tree.Has(metric, key) {
			continue
		}
		source := tree.Map(metric, key)
		if key == "object" {
			objectUp(source, "target", "currentValue")
		}
		current := tree.Map(source, "target")
		delete(source, "target")
		delete(current, "type")
		for from, to := range map[string]string{"currentValue": "value", "currentAverageValue": "averageValue", "currentAverageUtilization": "averageUtilization"} {
			if v := source[from]; v != nil {
				current[to] = v
			}
			delete(source, from)
		}
		switch key {
		case "external":
			namedUp(source, "metricSelector", nil)
		case "pods":
			namedUp(source, "selector", nil)
		}
		delete(source, "target")
		source["current"] = current
	}
}

// legacyMetricDown is the reverse of legacyMetricUp.
func legacyMetricDown(metric map[string]any) {
	for _, key := range sources {
		if !tree.Has(metric, key) {
			continue
		}
		source := tree.Map(metric, key)
		target := tree.Map(source, "target")
		delete(source, "target")
		flatten(source, target, key, "target")
	}
}

// legacyStatusDown is the reverse of legacyStatusUp.
func legacyStatusDown(metric map[string]any) {
	for _, key := range sources {
		if !tree.Has(metric, key) {
			continue
		}
		source := tree.Map(metric, key)
		current := tree.Map(source, "current")
		delete(source, "current")
		flatten(source, current, key, "current")
	}
}

// flatten writes values as <prefix>Value, <prefix>AverageValue and so on, and takes metric and describedObject apart.
func flatten(source, values map[string]any, key, prefix string) {
	if key == "object" {
		source["target"] = tree.Map(source, "describedObject")
		delete(source, "describedObject")
		if v := values["averageValue"]; v != nil {
			source["averageValue"] = v
		}
		source[prefix+"Value"] = "0" // not optional in the old version
		delete(values, "averageValue")
	}
	for from, to := range map[string]string{"value": prefix + "Value", "averageValue": prefix + "AverageValue", "averageUtilization": prefix + "AverageUtilization"} {
		if v := values[from]; v != nil {
			source[to] = v
		}
	}
	named := tree.Map(source, "metric")
	if name := named["name"]; name != nil {
		source["metricName"] = name
	}
	if selector := named["selector"]; selector != nil {
		if key == "external" {
			source["metricSelector"] = selector
		} else {
			source["selector"] = selector
		}
	}
	delete(source, "metric")
}
