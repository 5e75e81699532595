package files

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// dir is an open directory. Everything below it is reached by one name at a time, and no symbolic link is followed, so
// that neither a tree that changes nor an archive can lead elsewhere.
type dir struct{ fd int }

// retry repeats what a signal interrupted.
func retry(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func openAt(fd int, name string, flags int, mode uint32) (got int, err error) {
	err = retry(func() error {
		got, err = unix.Openat(fd, name, flags|unix.O_CLOEXEC|unix.O_NOFOLLOW, mode)
		return err
	})
	return got, err
}

// openRoot opens the directory that the user named; here symbolic links are the user's own.
func openRoot(path string) (*dir, error) {
	var fd int
	err := retry(func() (err error) {
		fd, err = unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return &dir{fd: fd}, nil
}

func (d *dir) open(name string) (*dir, error) {
	fd, err := openAt(d.fd, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	return &dir{fd: fd}, nil
}

func (d *dir) close() {
	_ = unix.Close(d.fd)
	d.fd = -1
}

// stat is that of the directory itself.
func (d *dir) stat(st *unix.Stat_t) error {
	return retry(func() error { return unix.Fstat(d.fd, st) })
}

// lstat is that of an entry, which is not followed.
func (d *dir) lstat(name string, st *unix.Stat_t) error {
	return retry(func() error { return unix.Fstatat(d.fd, name, st, unix.AT_SYMLINK_NOFOLLOW) })
}

// openFile opens a regular file to read it. It neither waits for a FIFO's writer nor changes the access time where that can be had.
func (d *dir) openFile(name string) (*os.File, error) {
	flags := unix.O_RDONLY | unix.O_NONBLOCK
	fd, err := openAt(d.fd, name, flags|unix.O_NOATIME, 0)
	if errors.Is(err, unix.EPERM) { // another owner's file, without CAP_FOWNER
		fd, err = openAt(d.fd, name, flags, 0)
	}
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

func (d *dir) readlink(name string) (string, error) {
	buf := make([]byte, maxTarget+1)
	var n int
	err := retry(func() (err error) {
		n, err = unix.Readlinkat(d.fd, name, buf)
		return err
	})
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}

// listed is an entry as a directory lists it.
type listed struct {
	stored string // under which it is stored
	name   string // its real one
	dir    bool
}

// list calls fn for each entry, in the directory's own order.
func (d *dir) list(fn func(name string, isDir bool) error) error {
	// Another descriptor, so that two listings of one directory do not share an offset.
	fd, err := openAt(d.fd, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	buf := make([]byte, 32<<10)
	for {
		var n int
		err := retry(func() (err error) {
			n, err = unix.Getdents(fd, buf)
			return err
		})
		if err != nil {
			return err
		}
		if n == 0 {
			return nil
		}
		if err := d.dirents(buf[:n], fn); err != nil {
			return err
		}
	}
}

// direntHead is how many bytes of a struct linux_dirent64 come before the name.
const direntHead = int(unsafe.Offsetof(unix.Dirent{}.Name))

func (d *dir) dirents(buf []byte, fn func(name string, isDir bool) error) error {
	for len(buf) > 0 {
		if len(buf) < direntHead {
			return io.ErrUnexpectedEOF
		}
		ent := (*unix.Dirent)(unsafe.Pointer(&buf[0])) //nolint:gosec // the kernel aligns them, and the length is checked
		size := int(ent.Reclen)
		if size < direntHead || size > len(buf) {
			return io.ErrUnexpectedEOF
		}
		name := unix.ByteSliceToString(buf[direntHead:size])
		kind := ent.Type
		buf = buf[size:]
		if name == "." || name == ".." {
			continue
		}
		isDir := kind == unix.DT_DIR
		if kind == unix.DT_UNKNOWN {
			var st unix.Stat_t
			if err := d.lstat(name, &st); err != nil && !errors.Is(err, unix.ENOENT) {
				return err
			}
			isDir = st.Mode&unix.S_IFMT == unix.S_IFDIR
		}
		if err := fn(name, isDir); err != nil {
			return err
		}
	}
	runtime.KeepAlive(buf)
	return nil
}

// procPath is a path to an entry that neither its length nor a directory that moves can spoil. Only calls that do not
// follow the last name may use it.
func (d *dir) procPath(name string) string {
	return "/proc/self/fd/" + strconv.Itoa(d.fd) + "/" + name
}

// kindOf names what a file is, for remarks.
func kindOf(mode uint32) string {
	switch mode & unix.S_IFMT {
	case unix.S_IFSOCK:
		return "a socket"
	case unix.S_IFIFO:
		return "a FIFO"
	case unix.S_IFCHR, unix.S_IFBLK:
		return "a device"
	case unix.S_IFLNK:
		return "a symbolic link"
	case unix.S_IFDIR:
		return "a folder"
	case unix.S_IFREG:
		return "a file"
	}
	return fmt.Sprintf("a file of type %#o", mode&unix.S_IFMT)
}
