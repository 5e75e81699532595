//go:build unix

// Command bench measures backups and restores beside what no backup or restore could do without: lists whose bytes are thrown
// away, plain POSTs, plain reads and PUTs of blocks, by a program of their own in its best settings (test/bench/reference), on the same
// servers in the same run; and copies of files beside kopia's own command. Its last lines are one for each figure:
//
//	figure <name> ours=<n> reference=<n> ratio=<n> unit=<u>
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"kedge.dev/kedge/test/bench/objects"
	"kedge.dev/kedge/test/testbed"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		stop()
		os.Exit(1)
	}
}

// version is the server that is measured.
const version = "1.36.3"

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	kedge := flags.String("kedge", "bin/kedge", "the kedge binary")
	count := flags.Int("objects", 10000, "number of objects")
	only := flags.String("only", "", "measure only this: objects, volumes (or of these only files or blocks), or server; all where empty")
	volumes := flags.String("volumes", "small", "what volumes are measured with: small, large, or million for a tree of a million files alone")
	repeat := flags.Int("repeat", 8, "number of backups of which the best counts, as of the reference's settings")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *count < 1000 || *repeat < 1 || !slices.Contains([]string{"", "objects", "volumes", "files", "blocks", "server"}, *only) {
		return errors.New("--objects must be 1000 or more, --repeat 1 or more, and --only objects, volumes, files, blocks or server")
	}
	if _, ok := volumeSets[*volumes]; !ok {
		return errors.New("--volumes must be small, large or million")
	}
	dir, err := os.MkdirTemp("", "kedge-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b := &bench{out: out, dir: dir, repeat: *repeat, count: *count}
	if b.kedge, err = filepath.Abs(*kedge); err != nil {
		return err
	}
	b.reference = filepath.Join(dir, "reference")
	if err := b.build(ctx); err != nil {
		return err
	}
	fmt.Fprintf(out, "# Kubernetes %s, %d processors, %s, S3 by versitygw\n", version, runtime.NumCPU(), runtime.Version())
	if *only == "" || *only == "objects" {
		fmt.Fprintf(out, "# %d objects\n", *count)
		if err := b.measure(ctx); err != nil {
			return err
		}
	}
	if *only != "objects" && *only != "server" {
		if err := b.volumes(ctx, *volumes, *only != "blocks", *only != "files"); err != nil {
			return err
		}
	}
	if *only == "" || *only == "server" {
		if err := b.server(ctx); err != nil {
			return err
		}
	}
	b.print()
	return nil
}

// bench is one run with all that it found.
type bench struct {
	out              io.Writer
	dir              string
	kedge, reference string
	repeat, count    int

	s3      *testbed.S3
	bucket  *testbed.Bucket
	proxy   *countingProxy
	figures []figure
}

type figure struct {
	name            string
	ours, reference float64
	unit            string
}

func (b *bench) figure(name string, ours, reference float64, unit string) {
	b.figures = append(b.figures, figure{name, ours, reference, unit})
}

func (b *bench) print() {
	for _, f := range b.figures {
		fmt.Fprintf(b.out, "figure %s ours=%s reference=%s ratio=%.3f unit=%s\n", f.name, number(f.ours), number(f.reference), f.ours/f.reference, f.unit)
	}
}

func number(f float64) string {
	if f >= 100 {
		return strconv.FormatFloat(f, 'f', 0, 64)
	}
	return strconv.FormatFloat(f, 'f', 2, 64)
}

func (b *bench) build(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-o", b.reference, "./test/bench/reference")
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("build the reference: %w", err)
	}
	_, err := os.Stat(b.kedge)
	return err
}

// measure runs everything: a tenth of the objects first, for the growth of time with their number.
func (b *bench) measure(ctx context.Context) error {
	var err error
	if b.s3, err = testbed.StartS3(ctx, false); err != nil {
		return err
	}
	defer b.s3.Stop()
	if b.bucket, err = b.s3.MakeBucket(ctx, "bench"); err != nil {
		return err
	}
	if b.proxy, err = startProxy(b.s3.Endpoint); err != nil {
		return err
	}
	defer b.proxy.stop()
	if err := b.makeLocations(ctx); err != nil {
		return err
	}
	connections, err := b.bestConnections(ctx)
	if err != nil {
		return err
	}
	small, err := b.backups(ctx, b.count/10, connections)
	if err != nil {
		return err
	}
	large, err := b.backups(ctx, b.count, connections)
	if err != nil {
		return err
	}
	b.figure("backup-rate", large.rate, large.reference, "objects/s")
	b.figure("backup-memory", large.memory, limit(b.count, 100, 150), "MiB")
	b.figure("backup-time-10x", large.seconds, small.seconds, "s")
	restored, err := b.restore(ctx, large.name)
	if err != nil {
		return err
	}
	b.figure("restore-rate", restored.rate, large.createRate, "objects/s")
	b.figure("restore-memory", restored.memory, limit(b.count, 150, 250), "MiB")
	return b.restoreNamespace(ctx, large.name)
}

// limit is the memory that is allowed, in MiB: the first figure up to 10k objects, the second beyond.
func limit(count int, few, many float64) float64 {
	if count <= 10000 {
		return few
	}
	return many
}

// bestConnections finds with how many connections the reference creates fastest, each number on a fresh server.
func (b *bench) bestConnections(ctx context.Context) (int, error) {
	best, bestRate := 0, 0.0
	for _, n := range []int{1, 2, 4, 8, 16, 32} {
		err := b.onServer(ctx, func(s *server) error {
			line, err := b.create(ctx, s, min(b.count, 1500), n)
			if err != nil {
				return err
			}
			if r := value(line, "rate"); r > bestRate {
				best, bestRate = n, r
			}
			return nil
		})
		if err != nil {
			return 0, err
		}
	}
	return best, nil
}

// create has the reference create objects and gives its last line.
func (b *bench) create(ctx context.Context, s *server, count, connections int) (string, error) {
	if err := s.cluster.ApplyYAML(ctx, string(objects.Definition().Body)); err != nil {
		return "", err
	}
	return b.runReference(ctx, s, "create", "-objects", strconv.Itoa(count), "-connections", strconv.Itoa(connections))
}

func (b *bench) runReference(ctx context.Context, s *server, args ...string) (string, error) {
	return b.runReferenceAs(ctx, nil, append([]string{args[0], "-kubeconfig", s.kubeconfig}, args[1:]...)...)
}

// runReferenceAs runs the reference with variables of its own, and gives its last line.
func (b *bench) runReferenceAs(ctx context.Context, env []string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, b.reference, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stderr = os.Stderr
	text, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("reference %s: %w", strings.Join(args, " "), err)
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	for _, line := range lines {
		fmt.Fprintln(b.out, "reference", args[0], line)
	}
	return lines[len(lines)-1], nil
}

// value finds "key=<number>" in a line.
func value(line, key string) float64 {
	for word := range strings.FieldsSeq(line) {
		if v, found := strings.CutPrefix(word, key+"="); found {
			f, _ := strconv.ParseFloat(v, 64)
			return f
		}
	}
	return 0
}
