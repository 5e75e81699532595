package kedge_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

const module = "kedge.dev/kedge"

// layers lists the rooms of the tree from the lowest to the highest. A package imports only packages of lower layers,
// of its own room (the folder named here and what is below it), and never of a room that stands beside it.
// Where one room is inside another (backup/archive in backup), the longest match decides.
var layers = [][]string{
	{"internal", "api", "deploy"},
	{"plugins"},
	{
		"plugins/actions", "plugins/decorate", "plugins/file", "plugins/hooks", "plugins/kms", "plugins/s3", "plugins/selection",
		"plugins/storetest", "plugins/volumetest", "plugins/ebs", "plugins/efs", "plugins/csi", "backup/archive", "volume",
	},
	{"backup", "restore"},
	{"server"},
	{"cmd"},
	{"test"},
}

// sharedRooms may be imported by the rooms beside them.
var sharedRooms = map[string]bool{
	"internal":          true, // leaves that know no domain
	"api":               true,
	"deploy":            true, // embedded manifests
	"plugins/selection": true, // both engines select alike
}

// providers are the folders that know one service; the engines get them handed in.
var providers = []string{
	module + "/plugins/s3", module + "/plugins/file", module + "/plugins/kms", module + "/plugins/ebs", module + "/plugins/efs", module + "/plugins/csi",
}

// forbidden names what a room may not import from outside: the engines know no command line, no controllers, no provider.
var forbidden = map[string][]string{
	"backup":         append([]string{"github.com/spf13/cobra", "github.com/aws/", "sigs.k8s.io/controller-runtime"}, providers...),
	"restore":        append([]string{"github.com/spf13/cobra", "github.com/aws/", "sigs.k8s.io/controller-runtime"}, providers...),
	"volume":         append([]string{"github.com/spf13/cobra", "github.com/aws/", "k8s.io/client-go", "sigs.k8s.io/controller-runtime"}, providers...),
	"backup/archive": {"github.com/spf13/cobra", "github.com/aws/", "k8s.io/client-go"},
	"plugins":        {"github.com/spf13/cobra", "github.com/aws/"},
	"api":            {"github.com/", "k8s.io/client-go"},
	"server":         {"github.com/spf13/cobra"},
}

// badNames are folders named for no concept.
var badNames = map[string]bool{"util": true, "utils": true, "common": true, "helper": true, "helpers": true, "types": true, "pkg": true, "misc": true, "hack": true}

// topLevel is every file and folder that may stand at the top of the tree.
var topLevel = map[string]bool{
	"api": true, "backup": true, "cmd": true, "deploy": true, "docs": true, "internal": true, "plugins": true, "restore": true, "server": true, "test": true, "volume": true,
	"Dockerfile": true, "Makefile": true, "README.md": true, "CONTRIBUTING.md": true, "SECURITY.md": true, "CHANGELOG.md": true, "LICENSE": true,
	"go.mod": true, "go.sum": true, "layers_test.go": true,
}

// room finds the layer and the room of a folder (relative to the module); -1 where no layer knows it.
func room(dir string) (int, string) {
	layer, best := -1, ""
	for i, rooms := range layers {
		for _, r := range rooms {
			if (dir == r || strings.HasPrefix(dir, r+"/")) && len(r) > len(best) {
				layer, best = i, r
			}
		}
	}
	return layer, best
}

// allowed says whether a package in folder from may import one in folder to.
func allowed(from, to string) bool {
	fromLayer, fromRoom := room(from)
	toLayer, toRoom := room(to)
	switch {
	case fromLayer < 0 || toLayer < 0:
		return false
	case fromRoom == toRoom:
		return true
	case fromLayer == toLayer:
		return sharedRooms[toRoom] && (fromRoom != "api" && fromRoom != "internal")
	default:
		return toLayer < fromLayer
	}
}

func TestAllowed(t *testing.T) {
	for _, c := range []struct {
		from, to string
		want     bool
	}{
		{"restore", "backup", false},
		{"restore", "backup/archive", true},
		{"restore/convert", "plugins", true},
		{"backup/archive", "backup", false},
		{"backup/archive", "plugins/file", false},
		{"backup", "plugins/selection", true},
		{"plugins/s3", "plugins/file", false},
		{"plugins/s3", "plugins", true},
		{"plugins", "plugins/s3", false},
		{"internal/kube", "internal/rawjson", true},
		{"internal/kube", "api/v1alpha1", false},
		{"cmd/kedge", "restore", true},
		{"restore", "cmd/kedge", false},
		{"somewhere", "internal/kube", false},
	} {
		if got := allowed(c.from, c.to); got != c.want {
			t.Errorf("allowed(%q, %q) = %v, want %v", c.from, c.to, got, c.want)
		}
	}
}

// TestLayers reads the imports of every Go file and refuses those that point upward or sideways. Tests of a package may use
// the real servers of test/testbed, stores and suites; they are not part of what is built.
func TestLayers(t *testing.T) {
	fset := token.NewFileSet()
	files := 0
	err := filepath.WalkDir(".", func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name := d.Name(); file != "." && (strings.HasPrefix(name, ".") || name == "testdata") {
				return fs.SkipDir
			}
			if badNames[d.Name()] {
				t.Errorf("%s: a folder is named for what it is about", file)
			}
			return nil
		}
		if !strings.HasSuffix(file, ".go") || file == "layers_test.go" {
			return nil
		}
		files++
		f, err := parser.ParseFile(fset, file, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, imp := range f.Imports {
			target, err := strconv.Unquote(imp.Path.Value)
			if err != nil {
				return err
			}
			checkImport(t, file, target)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 10 {
		t.Fatalf("only %d Go files found: run this from the module's folder", files)
	}
}

// checkImport reports an import that file may not have.
func checkImport(t *testing.T, file, target string) {
	t.Helper()
	dir := path.Dir(filepath.ToSlash(file))
	isTest := strings.HasSuffix(file, "_test.go")
	if own, ok := strings.CutPrefix(target, module+"/"); ok && !isTest && !allowed(dir, own) {
		t.Errorf("%s imports %s: only lower layers, or the package's own room", file, own)
	}
	if isTest {
		return
	}
	for r, prefixes := range forbidden {
		if _, own := room(dir); own != r {
			continue
		}
		for _, prefix := range prefixes {
			if strings.HasPrefix(target, prefix) {
				t.Errorf("%s imports %s: %s must not know it", file, target, r)
			}
		}
	}
}

// TestTopLevel keeps the top of the tree to what is agreed.
func TestTopLevel(t *testing.T) {
	entries, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if name := e.Name(); !strings.HasPrefix(name, ".") && name != "bin" && !topLevel[name] {
			t.Errorf("%s: not a room of the house; put it where it belongs, or add it to topLevel with a reason", name)
		}
	}
}
