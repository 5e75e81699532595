package volumes_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/plugins/efs"
	"kedge.dev/kedge/restore/volumes"
	"kedge.dev/kedge/test/aws"
	"kedge.dev/kedge/volume/files"
)

// folder is a volume of EFS, and the row of its copy.
func folder(handle, region string) (*corev1.PersistentVolume, archive.Volume) {
	var pv corev1.PersistentVolume
	pv.Name = "assets"
	pv.Spec.CSI = &corev1.CSIPersistentVolumeSource{Driver: efs.Driver, VolumeHandle: handle}
	return &pv, archive.Volume{
		Namespace: "shop", Claim: "assets", Volume: "assets", Provider: "files", CopyID: "c", CopyKind: files.Kind,
		Source: plugins.Volume{Handle: efs.Driver + "/" + handle, Region: region, Attributes: map[string]string{"path": "/assets"}},
	}
}

// TestFillFolder: the way to a folder whose files stay is seen to, and never guessed.
func TestFillFolder(t *testing.T) {
	cloud := aws.New(t, aws.Options{})
	provider, err := efs.New(cloud.Config(cloud.Region()), efs.Options{Sleep: func(ctx context.Context, _ time.Duration) error { return ctx.Err() }})
	if err != nil {
		t.Fatal(err)
	}
	here, other := cloud.CreateFileSystem(nil), cloud.CreateFileSystem(nil)
	const away = "fs-00000000000000000"
	mapped := map[string]string{here: other, away: other}
	for _, c := range []struct {
		name, handle, region string
		providers            []plugins.VolumeProvider
		mapping              map[string]string
		want                 string // the start of the handle; empty for an error
		says                 string
	}{
		{"there", here, "eu-west-1", []plugins.VolumeProvider{provider}, nil, here, ""},
		{"made again", here + "::fsap-00000000000000000", "eu-west-1", []plugins.VolumeProvider{provider}, nil, here + "::fsap-", ""},
		{"on another file system", here + "::fsap-00000000000000001", "eu-west-1", []plugins.VolumeProvider{provider}, mapped, other + "::fsap-", ""},
		{"gone with its file system", away, "eu-west-1", []plugins.VolumeProvider{provider}, nil, "", "--file-system-mappings"},
		{"never seen: another account's", away, "", []plugins.VolumeProvider{provider}, nil, away, "is not known"},
		{"nobody to ask", here, "eu-west-1", nil, nil, here, "nobody here can ask"},
		{"nobody to make the way", here + "::fsap-00000000000000000", "eu-west-1", nil, mapped, "", "no region"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := &volumes.Filler{Providers: c.providers, MapFileSystems: c.mapping, Unconfigured: errors.New("no region")}
			pv, row := folder(c.handle, c.region)
			said := ""
			made, _, err := f.Fill(t.Context(), volumes.Request{
				Row: row, KeepFiles: true, Folder: true, Tags: map[string]string{volumes.TagUID: c.name}, Note: func(text string) { said += text },
			}, pv)
			if err != nil {
				said = err.Error()
			}
			if (err != nil) != (c.want == "") || !strings.Contains(said, c.says) || c.says == "" && said != "" {
				t.Fatalf("%+v, %v; said %q", made, err, said)
			}
			if got := pv.Spec.CSI.VolumeHandle; c.want == "" && got != c.handle || !strings.HasPrefix(got, c.want) {
				t.Errorf("the volume is %s", got)
			}
			if c.want != "" && made.Handle != efs.Driver+"/"+pv.Spec.CSI.VolumeHandle {
				t.Errorf("made is %s, the volume %s", made.Handle, pv.Spec.CSI.VolumeHandle)
			}
		})
	}
}

// TestUser: whoever has the folder of a volume, or a folder below it, by whatever access point.
func TestUser(t *testing.T) {
	cloud := aws.New(t, aws.Options{})
	provider, err := efs.New(cloud.Config(cloud.Region()), efs.Options{})
	if err != nil {
		t.Fatal(err)
	}
	fs := cloud.CreateFileSystem(nil)
	f := &volumes.Filler{Providers: []plugins.VolumeProvider{provider}}
	ours, _ := folder(fs+":/a", "")
	for handle, want := range map[string]bool{fs + ":/a": true, fs + ":/a/b": true, "efs:" + fs + ":/a": true, fs + ":/b": false, fs: false, "fs-00000000000000000:/a": false} {
		theirs, _ := folder(handle, "")
		user, err := f.User(t.Context(), ours, []*corev1.PersistentVolume{theirs})
		if err != nil || (user != nil) != want {
			t.Errorf("%s: %v, %v", handle, user, err)
		}
	}
}
