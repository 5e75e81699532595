// Package volumes takes the data of a backup's claims: it decides what is done for each, has the providers make snapshots, waits for
// them, and says where everything is.
package volumes
