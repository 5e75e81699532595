package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/restore"
)

// The files of a restore's folder.
const (
	stateObject  = "restore.json" // the Restore, with the status that it had last
	stateReport  = "report.json"
	stateJournal = "journal.jsonl"
	stateLog     = "log.jsonl"
)

// stateDir is where restores of this machine keep what they need to go on.
func (a *app) stateDir() (string, error) {
	if dir := a.env.Getenv("KEDGE_STATE_DIR"); dir != "" {
		return dir, nil
	}
	if dir := a.env.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "kedge"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", usageError(fmt.Errorf("find the folder for journals: %w", err), "name one with KEDGE_STATE_DIR")
	}
	return filepath.Join(home, ".local", "state", "kedge"), nil
}

// restoreState is the folder of one restore on this machine.
type restoreState struct{ dir string }

// newRestoreState makes the folder of a restore; one of that name must not exist.
func (a *app) newRestoreState(name string) (*restoreState, error) {
	dir, err := a.stateDir()
	if err != nil {
		return nil, err
	}
	parent := filepath.Join(dir, "restores")
	if err := os.MkdirAll(parent, 0o700); err != nil {
		return nil, usageError(fmt.Errorf("make the folder for the restore's journal: %w", err), "name another with KEDGE_STATE_DIR")
	}
	s := &restoreState{dir: filepath.Join(parent, name)}
	err = os.Mkdir(s.dir, 0o700)
	if errors.Is(err, fs.ErrExist) {
		return nil, restoreExists(name)
	}
	if err != nil {
		return nil, usageError(fmt.Errorf("make the folder for the restore's journal: %w", err), "name another with KEDGE_STATE_DIR")
	}
	return s, nil
}

func restoreExists(name string) error {
	return usageError(fmt.Errorf("create restore %s: this machine knows a restore of that name already", name), "go on with it: kedge restore resume "+name+"; or choose another name")
}

// findRestoreState opens the folder of a restore; the error is errNoState where there is none.
func (a *app) findRestoreState(name string) (*restoreState, error) {
	dir, err := a.stateDir()
	if err != nil {
		return nil, err
	}
	if err := checkName("restore", name); err != nil {
		return nil, usageError(fmt.Errorf("find the restore: the name: %w", err), "")
	}
	s := &restoreState{dir: filepath.Join(dir, "restores", name)}
	if _, err := os.Stat(s.dir); err != nil {
		return nil, fmt.Errorf("find restore %s: %w", name, errNoState)
	}
	return s, nil
}

// errNoState means that this machine knows no restore of a name.
var errNoState = errors.New("this machine has no restore of that name")

// restoreNames are the restores that this machine knows.
func (a *app) restoreNames() ([]string, error) {
	dir, err := a.stateDir()
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(filepath.Join(dir, "restores"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list the restores of this machine: %w", err)
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() && checkName("restore", e.Name()) == nil {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

func (s *restoreState) path(file string) string { return filepath.Join(s.dir, file) }

// drop removes the folder of a restore that wrote nothing.
func (s *restoreState) drop() error { return os.RemoveAll(s.dir) }

// saveObject writes the restore with its status.
func (s *restoreState) saveObject(object *v1alpha1.Restore) error { return s.save(stateObject, object) }

// saveReport writes the report of a run.
func (s *restoreState) saveReport(report *restore.Report) error { return s.save(stateReport, report) }

func (s *restoreState) save(file string, value any) error {
	data, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return fmt.Errorf("save the restore's state: %w", err)
	}
	if err := replaceFile(s.path(file), append(data, '\n')); err != nil {
		return fmt.Errorf("save the restore's state: %w", err)
	}
	return nil
}

func (s *restoreState) object() (*v1alpha1.Restore, error) {
	var object v1alpha1.Restore
	if err := s.load(stateObject, &object); err != nil {
		return nil, err
	}
	return &object, nil
}

// report gives the report of the last run; nil where none has ended.
func (s *restoreState) report() (*restore.Report, error) {
	var report restore.Report
	err := s.load(stateReport, &report)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return &report, err
}

func (s *restoreState) load(file string, dst any) error {
	data, err := os.ReadFile(s.path(file))
	if err != nil {
		return fmt.Errorf("read the restore's state: %w", err)
	}
	if err := json.Unmarshal(data, dst); err != nil {
		return fmt.Errorf("read the restore's state: %s: %w", s.path(file), err)
	}
	return nil
}
