//go:build unix

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// kopia is a repository of kopia's own command, with the settings of Kedge's: the hash, the size of packs, the compression of files and of
// folders, the files at once. What Kedge does not do is switched off: logs in files and in the repository, maintenance, looking for updates.
type kopia struct {
	program string
	dir     string // its own, with configuration, cache and home
	env     []string
}

// The settings of volume/repository and volume/files.
const (
	kopiaHash       = "HMAC-SHA256-128"
	kopiaDerivation = "pbkdf2-sha256-600000"
	kopiaPackMiB    = 16
	kopiaZstd       = "zstd"
	kopiaParallel   = 8
)

// newKopia makes a repository below a prefix of the bucket.
func (b *bench) newKopia(ctx context.Context, program, name string) (*kopia, error) {
	k := &kopia{program: program, dir: filepath.Join(b.dir, "kopia-"+name)}
	if err := os.MkdirAll(k.dir, 0o700); err != nil {
		return nil, err
	}
	k.env = append(os.Environ(), "HOME="+k.dir, "KOPIA_PASSWORD=a password for benchmarks", "KOPIA_CHECK_FOR_UPDATES=false")
	address := strings.TrimPrefix(b.s3.Endpoint, "http://")
	for _, args := range [][]string{
		{
			"repository", "create", "s3", "--bucket", b.bucket.Name, "--prefix", "kopia-" + name + "/", "--endpoint", address, "--region", b.s3.Region, "--disable-tls",
			"--access-key", b.s3.AccessKey, "--secret-access-key", b.s3.SecretKey, "--block-hash", kopiaHash,
			"--format-block-key-derivation-algorithm", kopiaDerivation, "--cache-directory", filepath.Join(k.dir, "cache"),
		},
		{"repository", "set-parameters", "--max-pack-size-mb", strconv.Itoa(kopiaPackMiB)},
		{"policy", "set", "--global", "--compression", kopiaZstd},
	} {
		if _, _, err := k.run(ctx, args...); err != nil {
			return nil, err
		}
	}
	return k, nil
}

func (k *kopia) run(ctx context.Context, args ...string) ([]byte, usage, error) {
	what := "kopia " + args[0] + " " + args[1]
	args = append(args, "--config-file", filepath.Join(k.dir, "repository.config"), "--no-progress", "--log-level", "error", "--disable-file-logging",
		"--disable-content-log", "--disable-repository-log", "--no-auto-maintenance")
	cmd := exec.CommandContext(ctx, k.program, args...)
	cmd.Env = k.env
	var said bytes.Buffer
	cmd.Stderr = &said
	text, took, err := timed(cmd)
	if err != nil {
		return nil, usage{}, fmt.Errorf("%s: %w\n%s", what, err, said.Bytes())
	}
	return text, took, nil
}

// snapshot copies a tree, and sees to it that all files are in the copy and as many as should be were read.
func (k *kopia) snapshot(ctx context.Context, dir string, files int, first bool) (usage, error) {
	text, took, err := k.run(ctx, "snapshot", "create", dir, "--parallel", strconv.Itoa(kopiaParallel), "--no-send-snapshot-report", "--json", "--json-verbose")
	if err != nil {
		return usage{}, err
	}
	var made struct {
		Stats struct{ CachedFiles, NonCachedFiles int }
	}
	if err := json.Unmarshal(text, &made); err != nil {
		return usage{}, fmt.Errorf("read what kopia snapshot create printed: %w", err)
	}
	return took, checkRead("kopia", made.Stats.CachedFiles+made.Stats.NonCachedFiles, made.Stats.NonCachedFiles, files, first)
}

// checkRead says whether a copy has all files, and read all or none of them.
func checkRead(who string, have, read, files int, first bool) error {
	want := 0
	if first {
		want = files
	}
	if have != files || read != want {
		return fmt.Errorf("%s copied %d files of %d and read %d of them, not %d", who, have, files, read, want)
	}
	return nil
}
