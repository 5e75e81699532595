package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"kedge.dev/kedge/server/location"
	"kedge.dev/kedge/volume/files"
	"kedge.dev/kedge/volume/mover"
	"kedge.dev/kedge/volume/repository"
)

func (a *app) moverCommand() *cobra.Command {
	return group("mover", "Copy the files of a mounted volume, or restore them", `Copy the files of a mounted volume into a location, or restore them. These commands work on a folder of the machine or pod that
they run in, and talk to the location's bucket only, never to a cluster. docs/mover.md shows pods that run them.`,
		a.moverCopyCommand(), a.moverRestoreCommand())
}

// terminationLog is where a container says how it ended, unless its pod names another file.
const terminationLog = "/dev/termination-log"

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

// move runs a mover and tells its result on stdout and in the result file, however it ends.
func (a *app) move(ctx context.Context, f *moverFlags, result *mover.Result, run func(context.Context) error) error {
	result.Started = a.env.Now().UTC()
	err := run(ctx)
	if n := result.Lacks(); err == nil && n > 0 {
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

func (a *app) tellResult(f *moverFlags, result *mover.Result) error {
	line, err := result.Line(maxConfigBytes)
	if err != nil {
		return err
	}
	if err := a.write(line); err != nil {
		return err
	}
	if line, err = result.Line(mover.MaxMessage); err != nil {
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
