// Package deploy holds what is installed in a cluster: the Helm chart of the server, with the definitions of Kedge's kinds.
package deploy

import (
	"embed"
	"io/fs"
)

//go:embed all:chart/kedge
var embedded embed.FS

// Chart is the Helm chart: Chart.yaml, values.yaml, values.schema.json, templates and files.
var Chart = sub(embedded, "chart/kedge")

// CRDs are the CustomResourceDefinitions, one file for each kind, below "crds".
var CRDs = sub(Chart, "files")

// Files are read-only files that can be listed.
type Files interface {
	fs.ReadDirFS
	fs.ReadFileFS
}

// sub is a folder of embedded files. It is there: the compiler has put it there.
func sub(files fs.FS, folder string) Files {
	below, err := fs.Sub(files, folder)
	if err != nil {
		panic(err) // only for a name that is no path
	}
	return below.(Files)
}
