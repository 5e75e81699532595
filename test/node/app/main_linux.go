// Command app is the application of the tests on a real node. It fills a folder with files of many sorts, and tells what is in one, as seen from
// inside of its container.
package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "app:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 0 {
		return errors.New("no command")
	}
	at := func(i int) string {
		if i < len(args) {
			return args[i]
		}
		return ""
	}
	switch args[0] {
	case "hold": // DIR NAME: fills a folder that NAME has not filled yet, and waits to be told to end
		return hold(at(1), at(2))
	case "filled": // DIR: fails until that is done; NAME comes from the environment, as the kubelet puts no variables into probes
		_, err := os.Stat(filepath.Join(at(1), os.Getenv("NAME"), "done"))
		return err
	case "tree": // DIR: prints what is in it
		tree, err := describe(at(1))
		if err != nil {
			return err
		}
		return json.NewEncoder(os.Stdout).Encode(tree)
	case "cat":
		data, err := os.ReadFile(at(1))
		if err == nil {
			_, err = os.Stdout.Write(data)
		}
		return err
	case "put": // FILE: writes what it is given on stdin
		data, err := io.ReadAll(os.Stdin)
		if err != nil {
			return err
		}
		return os.WriteFile(at(1), data, 0o644)
	case "remove":
		return os.Remove(at(1))
	}
	return fmt.Errorf("no such command: %q", args)
}

// hold fills DIR/NAME once. A restored folder is filled already.
func hold(dir, name string) error {
	told := make(chan os.Signal, 1)
	signal.Notify(told, syscall.SIGTERM, syscall.SIGINT)
	own := filepath.Join(dir, name)
	if _, err := os.Stat(filepath.Join(own, "done")); err != nil {
		if err := fill(own); err != nil {
			return fmt.Errorf("fill %s: %w", own, err)
		}
		fmt.Println("filled", own)
	} else {
		fmt.Println("found", own)
	}
	<-told
	return nil
}

// long is when all was written, by the times of the files: long ago, with a fraction of a second.
var long = time.Date(2021, 3, 4, 5, 6, 7, 89_012_345, time.UTC)

// fill makes the folder, and in the end the file "done".
func fill(dir string) error {
	in := func(name string) string { return filepath.Join(dir, filepath.FromSlash(name)) }
	var errs []error
	do := func(err error) { errs = append(errs, err) }
	do(os.MkdirAll(in("sub/deep"), 0o755))
	do(os.Mkdir(in("private"), 0o755))
	for i := range 20 {
		do(os.WriteFile(in(fmt.Sprintf("sub/f%02d", i)), []byte(strings.Repeat(fmt.Sprint(dir, i, "\n"), 200*i)), 0o644))
	}
	do(os.WriteFile(in("large"), bytes.Repeat([]byte("0123456789abcdef"), 1<<18), 0o600)) // 4 MiB
	do(os.WriteFile(in("private/key"), []byte("secret of "+dir), 0o600))
	do(os.WriteFile(in("tool"), []byte("#!/none\n"), 0o755))
	do(os.WriteFile(in("name with spaces, ümlaut and \xff"), []byte("odd"), 0o644))
	do(os.Link(in("sub/f03"), in("sub/deep/hard")))
	do(os.Symlink("../sub/f04", in("sub/relative")))
	do(os.Symlink("/nowhere", in("dangling")))
	do(syscall.Mkfifo(in("fifo"), 0o620))
	do(syscall.Setxattr(in("sub/f05"), "user.note", []byte("kept"), 0))
	for name, owner := range map[string][2]int{"sub/f06": {1001, 1002}, "private/key": {2001, 2001}, "private": {2001, 2002}, "tool": {0, 1002}, "dangling": {3001, 3002}} {
		do(os.Lchown(in(name), owner[0], owner[1]))
	}
	do(os.Chmod(in("tool"), 0o755|fs.ModeSetuid)) // after the change of owner, which takes the bit away
	do(os.Chmod(in("private"), 0o750|fs.ModeSetgid))
	do(os.Chmod(in("sub/deep"), 0o777|fs.ModeSticky))
	do(os.WriteFile(in("done"), nil, 0o444))
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Type() == fs.ModeSymlink {
			return err
		}
		return os.Chtimes(path, long, long)
	})
}

// describe tells, by name, all that there is to know of what is in a folder. Names of one file have the same number.
func describe(dir string) (map[string]string, error) {
	out, numbers := map[string]string{}, map[uint64]int{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		st := info.Sys().(*syscall.Stat_t)
		what := fmt.Sprintf("%v %d:%d", info.Mode(), st.Uid, st.Gid)
		switch {
		case info.Mode().IsRegular():
			if st.Nlink > 1 && numbers[st.Ino] == 0 {
				numbers[st.Ino] = len(numbers) + 1
			}
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			note := make([]byte, 64)
			n, _ := syscall.Getxattr(path, "user.note", note)
			what += fmt.Sprintf(" #%d %x %s %q", numbers[st.Ino], sha256.Sum256(data), stamp(info), note[:max(n, 0)])
		case info.Mode().Type() == fs.ModeSymlink:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			what += " " + target
		default:
			what += " " + stamp(info)
		}
		name, err := filepath.Rel(dir, path)
		out[readable(name)] = what
		return err
	})
	return out, err
}

func stamp(info fs.FileInfo) string { return info.ModTime().UTC().Format(time.RFC3339Nano) }

// readable is a name that JSON can hold as it is.
func readable(name string) string {
	if strings.ToValidUTF8(name, "") == name {
		return name
	}
	return "hex " + hex.EncodeToString([]byte(name))
}
