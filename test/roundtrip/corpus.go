//go:build unix

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"kedge.dev/kedge/test/testbed"
)

// folder is one folder of manifests.
type folder struct {
	Name string
	// Namespace is where objects go that name none.
	Namespace string
	// Needs are the objects of other folders that this one builds on.
	Needs []*unstructured.Unstructured
	// Objects are its own.
	Objects []*unstructured.Unstructured
	// Unreadable are the files that hold no manifests.
	Unreadable []error
}

// indexEntry is what a corpus says of a folder in its INDEX.json.
type indexEntry struct {
	DefaultNamespace string   `json:"defaultNamespace"`
	Needs            []string `json:"needs"`
}

// notForApply is the default namespace of folders that are for decoding and conversion only.
const notForApply = "-"

// readIndex reads a corpus's INDEX.json. A corpus need not have one.
func readIndex(corpus string) (map[string]indexEntry, error) {
	data, err := os.ReadFile(filepath.Join(corpus, "INDEX.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var index map[string]indexEntry
	if err := json.Unmarshal(data, &index); err != nil {
		return nil, fmt.Errorf("read the index of corpus %s: %w", corpus, err)
	}
	return index, nil
}

// folderNames lists the folders of a corpus that are for applying. A corpus without folders is one folder itself, ".".
func folderNames(corpus string, index map[string]indexEntry) ([]string, error) {
	entries, err := os.ReadDir(corpus)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() && !strings.HasPrefix(e.Name(), ".") && index[e.Name()].DefaultNamespace != notForApply {
			names = append(names, e.Name())
		}
	}
	if len(names) == 0 {
		names = []string{"."}
	}
	return names, nil
}

// readFolder reads all manifests below a folder of a corpus, and those that it needs.
func readFolder(corpus, name string, index map[string]indexEntry) (*folder, error) {
	f := &folder{Name: name, Namespace: index[name].DefaultNamespace}
	if f.Namespace == "" || f.Namespace == notForApply {
		f.Namespace = "default"
	}
	var err error
	if f.Objects, f.Unreadable, err = readManifests(filepath.Join(corpus, name)); err != nil {
		return nil, err
	}
	for _, need := range index[name].Needs {
		objects, _, err := readManifests(filepath.Join(corpus, need))
		if err != nil {
			return nil, fmt.Errorf("read what folder %s needs: %w", name, err)
		}
		// Where the needed folder has objects without a namespace, they go to its own.
		for _, obj := range objects {
			if obj.GetNamespace() == "" && index[need].DefaultNamespace != "" {
				obj.SetNamespace(index[need].DefaultNamespace)
			}
		}
		f.Needs = append(f.Needs, objects...)
	}
	return f, nil
}

func readManifests(dir string) (objects []*unstructured.Unstructured, unreadable []error, err error) {
	err = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(path)) || entry.Name() == "INDEX.json" {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		parsed, err := testbed.Parse(data)
		if err != nil {
			unreadable = append(unreadable, fmt.Errorf("%s: %w", path, err))
			return nil
		}
		for _, obj := range parsed {
			if obj.GetKind() != "" && obj.GetAPIVersion() != "" {
				objects = append(objects, obj)
			}
		}
		return nil
	})
	return objects, unreadable, err
}
