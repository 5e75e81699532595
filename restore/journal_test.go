package restore

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"kedge.dev/kedge/plugins"
)

func records(t testing.TB, j Journal) []Record {
	t.Helper()
	var out []Record
	if err := j.Replay(t.Context(), func(r Record) error { out = append(out, r); return nil }); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestFileJournal(t *testing.T) {
	path := filepath.Join(t.TempDir(), "j.jsonl")
	j, err := OpenFileJournal(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := OpenFileJournal(path); err == nil {
		t.Error("a journal in use was opened twice")
	}
	if s, err := ReadStart(t.Context(), j); s != nil || err != nil {
		t.Errorf("an empty journal starts with %v, %v", s, err)
	}
	item := Record{Item: &ItemRecord{Ref: plugins.Ref{Version: "v1", Resource: "configmaps", Name: "a"}, Outcome: Created, UID: "u"}}
	if err := j.Append(t.Context(), Record{Start: &Start{Name: "r", BackupUID: "b"}}, item); err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	first := bytes.IndexByte(whole, '\n') + 1
	for cut := first; cut < len(whole)-1; cut++ {
		if err := os.WriteFile(path, whole[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		j, err := OpenFileJournal(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := records(t, j); len(got) != 1 || got[0].Start == nil {
			t.Fatalf("cut at %d: %+v", cut, got)
		}
		if err := j.Append(t.Context(), item); err != nil {
			t.Fatal(err)
		}
		if got := records(t, j); len(got) != 2 || got[1].Item == nil || got[1].Item.Outcome != Created {
			t.Fatalf("cut at %d, went on: %+v", cut, got)
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestJournalMismatch(t *testing.T) {
	p := &Plan{Request: Request{Name: "r", UID: "1"}, Source: Info{UID: "b"}}
	p.Target.UID = "t"
	good := Start{Name: "r", UID: "1", BackupUID: "b"}
	good.Target.UID = "t"
	if err := good.matches(p); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(*Start){
		"backup": func(s *Start) { s.BackupUID = "x" }, "target": func(s *Start) { s.Target.UID = "x" }, "restore": func(s *Start) { s.UID = "x" },
	} {
		s := good
		change(&s)
		if err := s.matches(p); !errors.Is(err, ErrJournalMismatch) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzJournal(f *testing.F) {
	f.Add([]byte("{\"start\":{\"name\":\"r\"}}\n{\"item\":{\"ref\":{\"resource\":\"pods\"},\"outcome\":\"Created\"}}\n"))
	f.Add([]byte("{\n\n{\"end\":{}}\n{"))
	f.Fuzz(func(t *testing.T, content []byte) {
		path := filepath.Join(t.TempDir(), "j")
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		j, err := OpenFileJournal(path)
		if err != nil {
			t.Fatal(err)
		}
		defer j.Close()
		_ = j.Replay(t.Context(), func(r Record) error { return nil })
	})
}
