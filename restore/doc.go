// Package restore brings the objects of a backup, or of another source, into a cluster: it plans the order as a graph, says
// what a plan would change, carries it out in a way that can be cancelled and resumed, and reports what became of each object.
package restore
