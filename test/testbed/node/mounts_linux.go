package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
)

// mountAll makes the node's view of the machine: everything is there, but what the node would leave behind or change is its own.
func mountAll(s *settings) error {
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("part the node's mounts from the machine's: %w", err)
	}
	if err := syscall.Mount("proc", "/proc", "proc", syscall.MS_NOSUID|syscall.MS_NODEV|syscall.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount the node's /proc: %w", err)
	}
	if err := mountCgroups(); err != nil {
		return err
	}
	for file, text := range s.Kernel {
		if err := pretend(s.Dir, filepath.Join("/proc/sys", file), text); err != nil {
			return err
		}
	}
	for folder, names := range s.Shadow {
		if err := shadow(filepath.Join(s.Dir, "shadow"), folder, names); err != nil {
			return err
		}
	}
	// Where volumes' mounts reach containers that run already, the kubelet's must be shared.
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_SHARED, ""); err != nil {
		return fmt.Errorf("share the node's mounts with its containers: %w", err)
	}
	return nil
}

// pretend covers a file of the kernel's with an ordinary one. Kernels that have no such file need none.
func pretend(dir, file, text string) error {
	if _, err := os.Stat(file); err != nil {
		return nil //nolint:nilerr // nothing to cover
	}
	cover := filepath.Join(dir, "kernel", filepath.Base(file))
	if err := os.MkdirAll(filepath.Dir(cover), 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(cover, []byte(text+"\n"), 0o600); err != nil {
		return err
	}
	return bind(cover, file)
}

// shadow puts a folder of memory in the place of one of the machine's. All that is in that is there too, but the names given, which the
// node has empty, and for itself.
func shadow(scratch, folder string, names []string) error {
	if err := os.MkdirAll(scratch, 0o700); err != nil {
		return err
	}
	if err := syscall.Mount("tmpfs", scratch, "tmpfs", 0, "mode=0755"); err != nil {
		return fmt.Errorf("make the node's %s: %w", folder, err)
	}
	entries, err := os.ReadDir(folder)
	if err != nil && !os.IsNotExist(err) {
		return err
	}
	for _, e := range entries {
		if slices.Contains(names, e.Name()) {
			continue
		}
		if err := mirror(filepath.Join(folder, e.Name()), filepath.Join(scratch, e.Name()), e.Type()); err != nil {
			return err
		}
	}
	for _, name := range names {
		if err := os.Mkdir(filepath.Join(scratch, name), 0o755); err != nil {
			return err
		}
	}
	if err := syscall.Mount(scratch, folder, "", syscall.MS_MOVE, ""); err != nil {
		return fmt.Errorf("put the node's %s in its place: %w", folder, err)
	}
	return nil
}

// mirror makes one entry of a folder appear in another.
func mirror(from, to string, kind os.FileMode) error {
	switch {
	case kind&os.ModeSymlink != 0:
		target, err := os.Readlink(from)
		if err != nil {
			return err
		}
		return os.Symlink(target, to)
	case kind.IsDir():
		if err := os.Mkdir(to, 0o755); err != nil {
			return err
		}
	default:
		if err := os.WriteFile(to, nil, 0o600); err != nil {
			return err
		}
	}
	return bind(from, to)
}

func bind(from, to string) error {
	if err := syscall.Mount(from, to, "", syscall.MS_BIND|syscall.MS_REC, ""); err != nil {
		return fmt.Errorf("show %s at %s in the node: %w", from, to, err)
	}
	return nil
}
