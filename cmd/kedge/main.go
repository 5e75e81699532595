// Command kedge anchors a Kubernetes cluster: it backs its objects up to a bucket, shows what a backup holds, and restores
// it into the same or another cluster. This package is wiring only: flags are bound to the fields of the API's specs, engines
// are handed what they need, and their results are printed.
package main

import (
	"context"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"kedge.dev/kedge/internal/term"
	"kedge.dev/kedge/volume/mover"
)

// Set by the linker: -X main.version=v1.2.3 -X main.commit=abc1234.
var (
	version = "dev"
	commit  = ""
)

func main() { os.Exit(mainCode()) }

// mainCode runs the command line and returns the exit code.
func mainCode() int {
	tuneGC(os.Getenv)
	giveBackStart()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	a := newApp(environment{
		Plugin: strings.HasPrefix(filepath.Base(os.Args[0]), "kubectl-"),
		Getenv: os.Getenv,
		Now:    time.Now,
		Stdin:  os.Stdin,
		Stdout: os.Stdout,
		Stderr: os.Stderr,
	})
	finished := context.AfterFunc(ctx, func() {
		stop() // from here on the next signal ends the process
		if !a.following.Load() {
			a.ui.Warn("cancelling; what is half done is finished or taken back (press Ctrl-C again to kill)")
		}
	})
	defer finished()
	return a.run(ctx, os.Args[1:])
}

// environment is everything that the commands take from the process.
type environment struct {
	// Plugin says that kubectl runs this program, as "kubectl kedge".
	Plugin                bool
	Getenv                func(string) string
	Now                   func() time.Time
	Stdin, Stdout, Stderr *os.File
}

// app is one invocation.
type app struct {
	env environment
	ui  *term.UI

	flags globalFlags
	// kube are the flags of commands that talk to a cluster.
	kube clusterFlags
	// keys are the flags of commands that read encrypted data.
	keys keyFlags
	// movers say how commands that run in this process start Jobs for the files of volumes.
	movers mover.Settings
	// following says that a server works, and that this process only looks on.
	following atomic.Bool
}

// globalFlags are understood by every command.
type globalFlags struct {
	configFile string
	local      optionalBool
	namespace  string
	quiet      bool
	noColor    bool
}

func newApp(env environment) *app {
	return &app{
		env: env,
		ui: term.New(env.Stdin, env.Stdout, env.Stderr, term.Options{
			NoColor: env.Getenv("NO_COLOR") != "",
			Dumb:    env.Getenv("TERM") == "dumb",
			Now:     env.Now,
		}),
	}
}

// run executes a command line and turns its error into a message and an exit code.
func (a *app) run(ctx context.Context, args []string) int {
	root := a.rootCommand()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	f := explain(ctx, err)
	f.hint = a.called(f.hint)
	f.print(a.ui)
	return f.code
}
