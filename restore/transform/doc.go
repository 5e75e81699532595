// Package transform changes objects on their way into a cluster: it renames namespaces together with what refers to them, maps
// storage classes, images, node selectors, zones, role ARNs and load balancer values, and applies the user's modifiers.
package transform
