package archive

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"kedge.dev/kedge/plugins"
)

const (
	tarBlock       = 512
	tarRoot        = "resources/"
	clusterFolder  = "_cluster"
	itemSuffix     = ".json"
	maxFileName    = 255 // of the file systems on which people unpack archives
	keptOfLongName = 180
	hexDigits      = "0123456789ABCDEF"
)

var zeroBlock [tarBlock]byte

// appendPath appends the path of an item's tar entry: resources/<resource>[.<group>]/<version>/<namespace|_cluster>/<name>.json.
func appendPath(dst []byte, ref *plugins.Ref) []byte {
	dst = append(append(dst, tarRoot...), ref.Resource...)
	if ref.Group != "" {
		dst = append(append(dst, '.'), ref.Group...)
	}
	dst = append(append(append(dst, '/'), ref.Version...), '/')
	if ref.Namespace == "" {
		dst = append(dst, clusterFolder...)
	} else {
		dst = append(dst, ref.Namespace...)
	}
	return appendFileName(append(dst, '/'), ref.Name)
}

// appendFileName appends the file name of an object. Bytes that tools or file systems may trip over are written as
// %XX; a name too long for a file system keeps its beginning and, after '~', its hash. Different names never meet,
// because '%' and '~' themselves are written as %25 and %7E.
func appendFileName(dst []byte, name string) []byte {
	start := len(dst)
	for i := range len(name) {
		c := name[i]
		if c <= ' ' || c >= 0x7e || c == '%' || c == '/' || c == '\\' {
			dst = append(dst, '%', hexDigits[c>>4], hexDigits[c&15])
		} else {
			dst = append(dst, c)
		}
	}
	if len(dst)-start+len(itemSuffix) > maxFileName {
		sum := sha256.Sum256([]byte(name))
		dst = append(dst[:start+keptOfLongName], '~')
		dst = hex.AppendEncode(dst, sum[:16])
	}
	return append(dst, itemSuffix...)
}

// decodeFileName is the reverse; long is true where the name was too long to be in the path.
func decodeFileName(file string) (name string, long bool, err error) {
	enc, found := strings.CutSuffix(file, itemSuffix)
	if !found {
		return "", false, fmt.Errorf("no %s at the end", itemSuffix)
	}
	if strings.Contains(enc, "~") {
		return "", true, nil
	}
	if !strings.Contains(enc, "%") {
		return enc, false, nil
	}
	out := make([]byte, 0, len(enc))
	for i := 0; i < len(enc); i++ {
		if enc[i] != '%' {
			out = append(out, enc[i])
			continue
		}
		if i+3 > len(enc) {
			return "", false, errors.New("cut escape")
		}
		b, err := hex.DecodeString(enc[i+1 : i+3])
		if err != nil {
			return "", false, err
		}
		out = append(out, b[0])
		i += 2
	}
	return string(out), false, nil
}

// validItem says whether an object of that name can be in an archive. Kubernetes refuses the same names.
func validItem(ref plugins.Ref) bool {
	if ref.Namespace != "" && (!isPlain(ref.Namespace) || len(ref.Namespace) > 253 || ref.Namespace[0] == '.' || ref.Namespace[0] == '_') {
		return false
	}
	return ref.Name != "" && ref.Name != "." && ref.Name != ".." && len(ref.Name) <= 4096 && !strings.ContainsAny(ref.Name, "/\x00")
}

// appendHeader appends the tar header of a file. Mode, owner and time are constant, so that equal items give equal bytes.
func appendHeader(dst, path []byte, size int64) ([]byte, error) {
	if len(path) > 100 {
		return appendLongHeader(dst, string(path), size)
	}
	start := len(dst)
	dst = append(dst, zeroBlock[:]...)
	h := dst[start:]
	copy(h, path)
	copy(h[100:], "0000600\x000000000\x000000000\x00")
	octal(h[124:135], size)
	copy(h[136:], "00000000000\x00        0")
	copy(h[257:], "ustar\x0000")
	sum := int64(0)
	for _, c := range h {
		sum += int64(c)
	}
	octal(h[148:154], sum)
	h[154], h[155] = 0, ' '
	return dst, nil
}

func octal(dst []byte, n int64) {
	for i := len(dst) - 1; i >= 0; i-- {
		dst[i] = '0' + byte(n&7)
		n >>= 3
	}
}

// appendLongHeader is for paths that the plain header has no room for.
func appendLongHeader(dst []byte, path string, size int64) ([]byte, error) {
	buf := bytes.NewBuffer(dst)
	err := tar.NewWriter(buf).WriteHeader(&tar.Header{
		Typeflag: tar.TypeReg, Name: path, Size: size, Mode: 0o600, ModTime: time.Unix(0, 0),
	})
	if err != nil {
		return dst, fmt.Errorf("write tar header: %w", err)
	}
	return buf.Bytes(), nil
}

// appendItem appends a whole tar entry.
func appendItem(dst, path, raw []byte) ([]byte, error) {
	dst, err := appendHeader(dst, path, int64(len(raw)))
	if err != nil {
		return dst, err
	}
	dst = append(dst, raw...)
	if rest := len(raw) % tarBlock; rest != 0 {
		dst = append(dst, zeroBlock[rest:]...)
	}
	return dst, nil
}

// tarEnd is the end of a tar file.
func tarEnd() []byte { return make([]byte, 2*tarBlock) }

// walkTar calls fn for each item of a decompressed frame. Every entry must be byte for byte what a writer makes of
// the item's name and size, and belong to the frame; raw is valid until fn returns.
func walkTar(f *Frame, data []byte, fn func(offset int64, ref plugins.Ref, raw []byte) error) error {
	var last string
	var scratch, path []byte
	n, total, pos := 0, int64(0), 0
	for pos < len(data) {
		if n == f.Items {
			return fmt.Errorf("it goes on after its %d items", n)
		}
		ref, raw, err := nextEntry(f, data[pos:])
		if err != nil {
			return fmt.Errorf("entry %d at byte %d of the frame: %w", n, pos, err)
		}
		path = appendPath(path[:0], &ref)
		if scratch, err = appendHeader(scratch[:0], path, int64(len(raw))); err != nil {
			return err
		}
		end := pos + len(scratch) + (len(raw)+tarBlock-1)/tarBlock*tarBlock
		if !bytes.HasPrefix(data[pos:], scratch) || end > len(data) || !isZero(data[pos+len(scratch)+len(raw):end]) {
			return fmt.Errorf("entry %d at byte %d of the frame: not as written for %s", n, pos, ref)
		}
		if err := f.checkMember(ref, last, n == 0); err != nil {
			return fmt.Errorf("entry %d at byte %d of the frame: %w", n, pos, err)
		}
		if err := fn(int64(pos), ref, raw); err != nil {
			return &callbackError{err}
		}
		last = Key(ref.Namespace, ref.Name)
		n, total, pos = n+1, total+int64(len(raw)), end
	}
	if total != f.Bytes {
		return fmt.Errorf("its items have %d bytes, its table says %d", total, f.Bytes)
	}
	return f.checkEnd(last, n)
}

func isZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// nextEntry reads the first entry of data: whom its path names, and its content.
func nextEntry(f *Frame, data []byte) (plugins.Ref, []byte, error) {
	path, size, header, err := entryHeader(data)
	if err != nil {
		return plugins.Ref{}, nil, err
	}
	if size < 0 || size > MaxItem || int64(len(data)-header) < size {
		return plugins.Ref{}, nil, fmt.Errorf("entry of %d bytes", size)
	}
	raw := data[header : int64(header)+size]
	ref, err := refOf(f, path, raw)
	return ref, raw, err
}

// entryHeader takes the plain form apart by hand and leaves the rare others to archive/tar.
func entryHeader(data []byte) (path string, size int64, header int, err error) {
	if len(data) < tarBlock {
		return "", 0, 0, errors.New("cut tar header")
	}
	if data[156] == tar.TypeReg && data[345] == 0 {
		name, _, _ := bytes.Cut(data[:100], []byte{0})
		for _, c := range data[124:135] {
			if c < '0' || c > '7' {
				return "", 0, 0, errors.New("impossible size in the tar header")
			}
			size = size<<3 | int64(c-'0')
		}
		return string(name), size, tarBlock, nil
	}
	r := bytes.NewReader(data)
	h, err := tar.NewReader(r).Next()
	if errors.Is(err, io.EOF) {
		err = errors.New("tar end within a frame")
	}
	if err != nil {
		return "", 0, 0, err
	}
	return h.Name, h.Size, len(data) - r.Len(), nil
}

// refOf reads the path of an entry. Nothing of it ever becomes a path of a file system.
func refOf(f *Frame, path string, raw []byte) (plugins.Ref, error) {
	ref := plugins.Ref{Group: f.Group, Version: f.Version, Resource: f.Resource}
	rest, found := strings.CutPrefix(path, tarRoot+f.GroupResource()+"/"+f.Version+"/")
	if !found {
		return ref, fmt.Errorf("entry %q in a frame of %s %s", path, f.GroupResource(), f.Version)
	}
	namespace, file, _ := strings.Cut(rest, "/")
	if namespace != clusterFolder {
		ref.Namespace = namespace
	}
	name, long, err := decodeFileName(file)
	if err != nil {
		return ref, fmt.Errorf("entry %q: %w", path, err)
	}
	if long {
		// The hash in the path is checked with the rest of the header, against this name.
		var object struct {
			Metadata struct{ Name string }
		}
		if err := json.Unmarshal(raw, &object); err != nil {
			return ref, fmt.Errorf("entry %q: %w", path, err)
		}
		name = object.Metadata.Name
	}
	ref.Name = name
	return ref, nil
}
