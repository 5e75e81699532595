package file_test

import (
	"testing"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/plugins/file"
	"kedge.dev/kedge/plugins/storetest"
)

func open(tb testing.TB, path string) *file.Store {
	tb.Helper()
	store, err := file.New(v1alpha1.FileLocation{Path: path}, file.Options{})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { store.Close() })
	return store
}

func TestConformance(t *testing.T) {
	paths := map[plugins.ObjectStore]string{}
	storetest.Run(t, func(t *testing.T) plugins.ObjectStore {
		t.Helper()
		path := t.TempDir()
		store := open(t, path)
		paths[store] = path
		return store
	}, storetest.Config{
		Reopen: func(t *testing.T, store plugins.ObjectStore) plugins.ObjectStore {
			t.Helper()
			return open(t, paths[store])
		},
	})
}
