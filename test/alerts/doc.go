// Package alerts tries the alert rules and the dashboard of deploy with Prometheus' own engine. It is a module of its own, so that nothing of
// Prometheus becomes a dependency of Kedge.
package alerts
