package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"kedge.dev/kedge/server/location"
	"kedge.dev/kedge/volume/files"
	"kedge.dev/kedge/volume/repository"
)

func (a *app) moverCommand() *cobra.Command {
	return group("mover", "Copy the files of a mounted volume, or restore them", `Copy the files of a mounted volume into a location, or restore them. These commands work on a folder of the machine or pod that
they run in, and talk to the location's bucket only, never to a cluster. docs/mover.md shows pods that run them.`,
		a.moverCopyCommand(), a.moverRestoreCommand())
}

const (
	// terminationLog is where a container says how it ended, unless its pod names another file.
	terminationLog = "/dev/termination-log"
	// maxResult is how much of a termination message Kubernetes keeps (Kubernetes documentation, "Determine the Reason for Pod Failure").
	maxResult = 4096
)

// moverFlags are what both directions take.
type moverFlags struct {
	path, location       string
	spoolDir, cacheDir   string
	parallel             int
	resultFile           string
	resultFileIsExplicit func() bool
}

func (f *moverFlags) bind(a *app, flags *pflag.FlagSet) {
	bindLocation(flags, &f.location)
	flags.IntVar(&f.parallel, "parallel", 0, "`number` of files worked on at once (default 8 for a copy, 16 for a restore)")
	flags.StringVar(&f.spoolDir, "spool-dir", "", "`folder` for lists that outgrow the memory: names and attributes, no content (default: one of its own in the system's for temporary files)")
	flags.StringVar(&f.cacheDir, "cache-dir", "", "`folder` that keeps what was read of the repository's indexes, for this process alone (default: memory)")
	flags.StringVar(&f.resultFile, "result-file", terminationLog, "`file` that gets the result as well, cut to 4096 bytes; the default is left alone where it does not exist")
	f.resultFileIsExplicit = func() bool { return flags.Changed("result-file") }
	a.keys.bindIdentities(flags)
}

func (f *moverFlags) check(command string) error {
	switch {
	case f.path == "":
		return usageError(fmt.Errorf("%s: no folder is named", command), "name the folder where the volume is mounted with --path")
	case f.parallel < 0 || f.parallel > 1000:
		return usageError(fmt.Errorf("%s: --parallel: %d is not between 0 and 1000", command, f.parallel), "")
	}
	return nil
}

// moverResult is what a mover prints, and leaves for whoever started its pod.
type moverResult struct {
	Operation string `json:"operation"`
	// Copy is the copy's id in the repository, Base that of the one it was compared with.
	Copy     string    `json:"copy,omitempty"`
	Base     string    `json:"base,omitempty"`
	Cluster  string    `json:"cluster,omitempty"`
	Provider string    `json:"provider,omitempty"`
	Handle   string    `json:"handle,omitempty"`
	Started  time.Time `json:"started,omitzero"`
	Ended    time.Time `json:"ended,omitzero"`
	// Files are of any sort, but folders; Bytes are in them.
	Files   int64 `json:"files"`
	Folders int64 `json:"folders"`
	Bytes   int64 `json:"bytes"`
	// Of a copy: what was read, and what went to the bucket.
	ReadFiles     int64 `json:"readFiles,omitempty"`
	ReadBytes     int64 `json:"readBytes,omitempty"`
	UploadedBytes int64 `json:"uploadedBytes,omitempty"`
	// Of a restore: what was not there already, and what went because the copy does not have it.
	WrittenFiles int64 `json:"writtenFiles,omitempty"`
	WrittenBytes int64 `json:"writtenBytes,omitempty"`
	Deleted      int64 `json:"deleted,omitempty"`
	// Counts are of all remarks, by kind; Remarks the first of them, as many as there is room for.
	Counts  map[files.RemarkKind]int64 `json:"counts,omitempty"`
	Remarks []files.Remark             `json:"remarks,omitempty"`
	// Code is the exit code; Error says why it failed.
	Code  int    `json:"code"`
	Error string `json:"error,omitempty"`
}

// lacks says that something is missing in the copy, or in the restored tree.
func (r *moverResult) lacks() int64 { return r.Counts[files.Unreadable] + r.Counts[files.Failed] }

// line is the result as one line of JSON of at most limit bytes: remarks go first, then the end of the error.
func (r moverResult) line(limit int) ([]byte, error) {
	for {
		data, err := json.Marshal(&r)
		if err != nil {
			return nil, fmt.Errorf("encode the result: %w", err)
		}
		over := len(data) + 1 - limit
		switch n := len(r.Remarks); {
		case over <= 0:
			return append(data, '\n'), nil
		case n > 0:
			r.Remarks = r.Remarks[:n/2]
		case r.Error != "":
			r.Error = string([]rune(r.Error)[:len([]rune(r.Error))/2])
		default:
			return nil, fmt.Errorf("encode the result: it has %d bytes more than the %d that it may have", over, limit)
		}
	}
}

// move runs a mover and tells its result on stdout and in the result file, however it ends.
func (a *app) move(ctx context.Context, f *moverFlags, result *moverResult, run func(context.Context) error) error {
	result.Started = a.env.Now().UTC()
	err := run(ctx)
	if n := result.lacks(); err == nil && n > 0 {
		a.ui.Warn("files and folders that could not be %s: %d", map[string]string{"copy": "read", "restore": "restored as they were"}[result.Operation], n)
		err = silent(exitPartial)
	}
	if err != nil {
		why := explain(ctx, err)
		result.Code, result.Error = why.code, why.message
	}
	result.Ended = a.env.Now().UTC()
	told := a.tellResult(f, result)
	if err == nil {
		return told
	}
	if told != nil {
		a.ui.Warn("%v", told)
	}
	return err
}

func (a *app) tellResult(f *moverFlags, result *moverResult) error {
	line, err := result.line(maxConfigBytes)
	if err != nil {
		return err
	}
	if err := a.write(line); err != nil {
		return err
	}
	if line, err = result.line(maxResult); err != nil {
		return err
	}
	flag := os.O_WRONLY | os.O_TRUNC
	if f.resultFileIsExplicit() {
		flag |= os.O_CREATE
	}
	file, err := os.OpenFile(f.resultFile, flag, 0o600)
	if errors.Is(err, os.ErrNotExist) && !f.resultFileIsExplicit() {
		return nil
	}
	if err == nil {
		_, err = file.Write(line)
		err = errors.Join(err, file.Close())
	}
	if err != nil {
		return fmt.Errorf("write the result: %w", err)
	}
	return nil
}

// withRepository opens the location's repository, to write to it or only to read, and a folder for what does not fit the memory, for as long
// as run takes.
func (a *app) withRepository(ctx context.Context, f *moverFlags, write bool, run func(*repository.Repository) error) (err error) {
	c, err := a.loadConfig()
	if err != nil {
		return err
	}
	p, err := a.openPlace(ctx, c, f.location)
	if err != nil {
		return err
	}
	if write && p.object.Spec.ReadOnly {
		return codeError(exitRefused, fmt.Errorf("copy files: location %s is read-only", p.object.Name), "name another with --storage-location")
	}
	keys, err := a.unlock(ctx, p)
	if err != nil {
		return err
	}
	if f.spoolDir == "" {
		if f.spoolDir, err = os.MkdirTemp("", "kedge-mover-"); err != nil {
			return usageError(fmt.Errorf("make the folder for what does not fit the memory: %w", err), "name one with --spool-dir or TMPDIR")
		}
		defer func() { err = errors.Join(err, os.RemoveAll(f.spoolDir)) }()
	}
	repo, err := location.Repository(ctx, p.store, keys, repository.Options{Now: a.env.Now, CacheDir: f.cacheDir, ReadOnly: !write})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, repo.Close(context.WithoutCancel(ctx))) }()
	return run(repo)
}

// remarkFiles tells the first remarks of a mover as they come.
func (a *app) remarkFiles() func(files.Remark) {
	warn := a.warnings()
	return func(m files.Remark) { warn(fmt.Sprintf("%s: %q: %s", m.Kind, m.Path, m.Detail)) }
}
