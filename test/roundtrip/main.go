//go:build unix

// Command roundtrip applies folders of manifests to a Kubernetes API server of one version, backs them up, restores them into an
// empty server of the same or another version, and compares every object. See test/README.md.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	var o options
	flag.StringVar(&o.corpus, "corpus", "", "`folder` that holds folders of manifests, or manifests")
	flag.StringVar(&o.from, "from", "1.36.3", "Kubernetes `version` to back up")
	flag.StringVar(&o.to, "to", "", "Kubernetes `version` to restore into; the same if empty")
	flag.StringVar(&o.folder, "folder", "", "only this `folder`, or these, separated by commas")
	flag.IntVar(&o.jobs, "jobs", 1, "folders at once; each takes two control planes, about 1 GB")
	flag.BoolVar(&o.verbose, "v", false, "also name what was refused, converted and reported")
	flag.Parse()
	if flag.NArg() > 0 || o.corpus == "" {
		flag.Usage()
		os.Exit(2)
	}
	if o.to == "" {
		o.to = o.from
	}
	ok, err := run(ctx, o, os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "roundtrip:", err)
	}
	if err != nil || !ok {
		os.Exit(1)
	}
}

type options struct {
	corpus, from, to, folder string
	jobs                     int
	verbose                  bool
}

// run takes all folders; ok says that nothing was silent or unequal.
func run(ctx context.Context, o options, out io.Writer) (ok bool, err error) {
	index, err := readIndex(o.corpus)
	if err != nil {
		return false, err
	}
	names := strings.FieldsFunc(o.folder, func(r rune) bool { return r == ',' })
	if len(names) == 0 {
		if names, err = folderNames(o.corpus, index); err != nil {
			return false, err
		}
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(max(o.jobs, 1) + 1) // one more starts or empties its servers meanwhile
	trials := &trials{options: o, index: index, servers: newStable(), turns: make(chan struct{}, max(o.jobs, 1))}
	defer trials.servers.stop()
	total := &result{folder: "TOTAL", counts: map[verdict]int{}}
	var mu sync.Mutex
	for _, name := range names {
		group.Go(func() error {
			err := trials.folder(ctx, name, func(r *result) {
				mu.Lock()
				defer mu.Unlock()
				total.add(r)
				r.print(out, o.verbose)
			})
			if err != nil {
				return fmt.Errorf("folder %s: %w", name, err)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return false, err
	}
	if len(names) > 1 {
		total.print(out, false)
	}
	return total.counts[silent] == 0, nil
}

// trials are what all folders share: the servers, and the turns to use the machine.
type trials struct {
	options
	index   map[string]indexEntry
	servers *stable
	turns   chan struct{}
}

// folder takes one folder, tells its result, and empties the servers.
func (t *trials) folder(ctx context.Context, name string, tell func(*result)) error {
	f, err := readFolder(t.corpus, name, t.index)
	if err != nil {
		return err
	}
	servers, err := takePair(ctx, t.servers, t.from, t.to)
	if err != nil {
		return err
	}
	r, err := t.inTurn(ctx, f, servers)
	if err != nil {
		servers.each(func(s *server) { s.cluster.Stop() })
		return err
	}
	for _, bad := range f.Unreadable {
		r.refused = append(r.refused, bad.Error())
	}
	tell(r)
	var both sync.WaitGroup
	servers.each(func(s *server) { both.Go(func() { t.servers.giveBack(ctx, s) }) })
	both.Wait()
	return nil
}

func (t *trials) inTurn(ctx context.Context, f *folder, servers *pair) (*result, error) {
	select {
	case t.turns <- struct{}{}:
		defer func() { <-t.turns }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return roundtrip(ctx, f, servers)
}

func (r *result) add(other *result) {
	r.accepted += other.accepted
	r.archived += other.archived
	r.took += other.took
	for v, n := range other.counts {
		r.counts[v] += n
	}
}

func (r *result) print(out io.Writer, verbose bool) {
	_, _ = fmt.Fprintf(out, "%s\n", r)
	for _, f := range r.findings {
		if f.verdict == silent || (verbose && f.verdict != equal) {
			_, _ = fmt.Fprintf(out, "  %s %s: %s\n", f.verdict, f.key, strings.ReplaceAll(strings.TrimSpace(f.detail), "\n", "\n    "))
		}
	}
	if verbose {
		for _, refusal := range r.refused {
			_, _ = fmt.Fprintf(out, "  refused %s\n", refusal)
		}
		_, _ = fmt.Fprintf(out, "  took %s\n", r.took.Round(100*time.Millisecond))
	}
}
