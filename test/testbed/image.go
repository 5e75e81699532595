//go:build unix

package testbed

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path"
	"runtime"
	"slices"
	"strings"
)

// Image is a container image of one layer that is made of files of this machine: what a Dockerfile of COPY, USER and ENTRYPOINT makes on an empty base.
type Image struct {
	// Name is the whole reference, with registry and tag: "registry.example/kedge:test".
	Name string
	// Files are, by path in the image, those of this machine. They belong to root and may be executed by all.
	Files map[string]string
	// User is as in a Dockerfile: "65532:65532". Empty is root.
	User       string
	Entrypoint []string
}

// The parts of an image, as the OCI's image specification names them.
const (
	mediaIndex    = "application/vnd.oci.image.index.v1+json"
	mediaManifest = "application/vnd.oci.image.manifest.v1+json"
	mediaConfig   = "application/vnd.oci.image.config.v1+json"
	mediaLayer    = "application/vnd.oci.image.layer.v1.tar"
)

type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int               `json:"size"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Platform    map[string]string `json:"platform,omitempty"`
}

// write writes the image as a tar of an OCI image layout.
func (i Image) write(w io.Writer) error {
	layer, err := i.layer()
	if err != nil {
		return err
	}
	platform := map[string]string{"os": "linux", "architecture": runtime.GOARCH}
	blobs := map[string][]byte{}
	put := func(media string, data []byte) descriptor {
		sum := sha256.Sum256(data)
		digest := hex.EncodeToString(sum[:])
		blobs["blobs/sha256/"+digest] = data
		return descriptor{MediaType: media, Digest: "sha256:" + digest, Size: len(data)}
	}
	layerPart := put(mediaLayer, layer)
	config, err := json.Marshal(map[string]any{
		"os": platform["os"], "architecture": platform["architecture"],
		"config": map[string]any{"User": i.User, "Entrypoint": i.Entrypoint, "Env": []string{"PATH=/usr/local/bin:/usr/bin:/bin"}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{layerPart.Digest}},
	})
	if err != nil {
		return err
	}
	manifest, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": mediaManifest, "config": put(mediaConfig, config), "layers": []descriptor{layerPart},
	})
	if err != nil {
		return err
	}
	entry := put(mediaManifest, manifest)
	entry.Platform = platform
	entry.Annotations = map[string]string{"io.containerd.image.name": i.Name}
	if blobs["index.json"], err = json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": mediaIndex, "manifests": []descriptor{entry}}); err != nil {
		return err
	}
	blobs["oci-layout"] = []byte(`{"imageLayoutVersion":"1.0.0"}`)
	return writeTar(w, blobs, 0o644)
}

func (i Image) layer() ([]byte, error) {
	files := map[string][]byte{}
	for name, from := range i.Files {
		if !path.IsAbs(name) || path.Clean(name) != name {
			return nil, fmt.Errorf("%q is no absolute path", name)
		}
		data, err := os.ReadFile(from)
		if err != nil {
			return nil, err
		}
		files[strings.TrimPrefix(name, "/")] = data
	}
	var b bytes.Buffer
	err := writeTar(&b, files, 0o755)
	return b.Bytes(), err
}

// writeTar writes files, and the folders that they are in.
func writeTar(w io.Writer, files map[string][]byte, mode int64) error {
	names, folders := []string{}, map[string]bool{}
	for name := range files {
		names = append(names, name)
		for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
			if !folders[dir] {
				folders[dir] = true
				names = append(names, dir)
			}
		}
	}
	slices.Sort(names)
	out := tar.NewWriter(w)
	for _, name := range names {
		header := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(files[name]))}
		if folders[name] {
			header.Typeflag, header.Name, header.Mode = tar.TypeDir, name+"/", 0o755
		}
		if err := out.WriteHeader(header); err != nil {
			return err
		}
		if _, err := out.Write(files[name]); err != nil {
			return err
		}
	}
	return out.Close()
}
