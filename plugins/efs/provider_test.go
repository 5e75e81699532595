package efs_test

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	awsefs "github.com/aws/aws-sdk-go-v2/service/efs"
	"github.com/aws/aws-sdk-go-v2/service/efs/types"
	"github.com/google/go-cmp/cmp"

	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/plugins/efs"
	"kedge.dev/kedge/test/aws"
)

// world is an EFS with one file system and access points to it.
type world struct {
	cloud  *aws.Cloud
	client *awsefs.Client
	*efs.Provider
	fileSystem string
}

func newWorld(t *testing.T, opts aws.Options) *world {
	t.Helper()
	opts.VolumePolls, opts.PageSize = 2, 2
	w := &world{cloud: aws.New(t, opts)}
	cfg := w.cloud.Config(w.cloud.Region())
	w.client = awsefs.NewFromConfig(cfg)
	var err error
	if w.Provider, err = efs.New(cfg, efs.Options{MaxAttempts: 2, Sleep: func(ctx context.Context, _ time.Duration) error { return ctx.Err() }}); err != nil {
		t.Fatal(err)
	}
	w.fileSystem = w.cloud.CreateFileSystem(nil)
	return w
}

// accessPoint makes one and gives the handle of a volume that is mounted by it.
func (w *world) accessPoint(t *testing.T, path string) string {
	t.Helper()
	out, err := w.client.CreateAccessPoint(t.Context(), &awsefs.CreateAccessPointInput{
		ClientToken: sdk.String("test" + path), FileSystemId: &w.fileSystem,
		PosixUser: &types.PosixUser{Uid: sdk.Int64(1000), Gid: sdk.Int64(4294967295), SecondaryGids: []int64{7, 8}},
		RootDirectory: &types.RootDirectory{
			Path: &path, CreationInfo: &types.CreationInfo{OwnerUid: sdk.Int64(1000), OwnerGid: sdk.Int64(0), Permissions: sdk.String("0750")},
		},
		Tags: []types.Tag{{Key: sdk.String("efs.csi.aws.com/cluster"), Value: sdk.String("true")}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return w.fileSystem + "::" + *out.AccessPointId
}

func (w *world) delete(t *testing.T, handle string) {
	t.Helper()
	h, err := efs.ParseHandle(handle)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.client.DeleteAccessPoint(t.Context(), &awsefs.DeleteAccessPointInput{AccessPointId: &h.AccessPoint}); err != nil {
		t.Fatal(err)
	}
}

func (w *world) describe(t *testing.T, handle string) plugins.Volume {
	t.Helper()
	found, err := w.Describe(t.Context(), []string{handle})
	if err != nil || len(found) != 1 {
		t.Fatalf("describe %s: %v, %v", handle, found, err)
	}
	return found[handle]
}

var cluster = map[string]string{"kedge.dev/restore-uid": "u"}

func TestDescribe(t *testing.T) {
	w := newWorld(t, aws.Options{})
	var handles []string
	for _, path := range []string{"/a", "/b", "/c"} { // two pages
		handles = append(handles, w.accessPoint(t, path))
	}
	handles = append(handles, w.fileSystem, w.fileSystem+":/x", "fs-00000000000000000", w.fileSystem+"::fsap-00000000000000000")
	found, err := w.Describe(t.Context(), handles)
	if err != nil {
		t.Fatal(err)
	}
	if got := slices.Sorted(maps.Keys(found)); !slices.Equal(got, slices.Sorted(slices.Values(handles[:5]))) {
		t.Errorf("described %q", got)
	}
	want := plugins.Volume{
		Handle: handles[1], Region: w.cloud.Region(), Tags: map[string]string{"efs.csi.aws.com/cluster": "true"},
		Attributes: map[string]string{
			"path": "/b", "posixUid": "1000", "posixGid": "4294967295", "posixSecondaryGids": "7,8", "ownerUid": "1000", "ownerGid": "0", "permissions": "0750",
		},
	}
	if diff := cmp.Diff(want, found[handles[1]]); diff != "" {
		t.Error(diff)
	}
	if _, err := w.Describe(t.Context(), []string{"vol-1"}); !errors.Is(err, plugins.ErrConfig) {
		t.Errorf("a handle of another service gives %v", err)
	}
}

// TestEnsure: what is there is left alone, what is gone is made again, once, and is like the old one in all but its id.
func TestEnsure(t *testing.T) {
	w := newWorld(t, aws.Options{})
	handle := w.accessPoint(t, "/data")
	source := w.describe(t, handle)
	req := plugins.FolderRequest{Token: "t", Source: source, Tags: cluster}
	same, err := w.Ensure(t.Context(), req)
	if err != nil || same.Handle != handle || len(w.cloud.AccessPoints()) != 1 {
		t.Fatalf("what is there becomes %+v, %v, among %q", same, err, w.cloud.AccessPoints())
	}
	w.delete(t, handle)
	made, err := w.Ensure(t.Context(), req)
	if err != nil || made.Handle == handle || !strings.HasPrefix(made.Handle, w.fileSystem+"::fsap-") {
		t.Fatalf("what is gone becomes %+v, %v", made, err)
	}
	again, err := w.Ensure(t.Context(), req)
	if err != nil || again.Handle != made.Handle || len(w.cloud.AccessPoints()) != 1 {
		t.Errorf("asked again: %+v, %v, among %q", again, err, w.cloud.AccessPoints())
	}
	want, got := source, w.describe(t, made.Handle)
	want.Handle, want.Tags = made.Handle, map[string]string{"efs.csi.aws.com/cluster": "true", "kedge.dev/restore-uid": "u", efs.TokenTag: got.Tags[efs.TokenTag]}
	if diff := cmp.Diff(want, got); diff != "" || len(got.Tags[efs.TokenTag]) != 64 {
		t.Error(diff)
	}
}

func TestEnsureLostReply(t *testing.T) {
	w := newWorld(t, aws.Options{})
	handle := w.accessPoint(t, "/data")
	source := w.describe(t, handle)
	w.delete(t, handle)
	w.cloud.Inject(aws.Fault{Op: "CreateAccessPoint", LoseReply: true})
	if made, err := w.Ensure(t.Context(), plugins.FolderRequest{Token: "t", Source: source}); err != nil || len(w.cloud.AccessPoints()) != 1 {
		t.Errorf("%+v, %v, among %q", made, err, w.cloud.AccessPoints())
	}
}

func TestEnsureElsewhere(t *testing.T) {
	w := newWorld(t, aws.Options{})
	other := w.cloud.CreateFileSystem(nil)
	source := w.describe(t, w.accessPoint(t, "/data"))
	made, err := w.Ensure(t.Context(), plugins.FolderRequest{Token: "t", Source: source, FileSystem: other})
	if err != nil || !strings.HasPrefix(made.Handle, other+"::fsap-") || len(w.cloud.AccessPoints()) != 2 {
		t.Fatalf("%+v, %v", made, err)
	}
	if got := w.describe(t, made.Handle).Attributes; !maps.Equal(got, source.Attributes) {
		t.Errorf("on the other file system it is %v", got)
	}
	for from, want := range map[string]string{w.fileSystem: other, "efs:" + w.fileSystem + ":/x": "efs:" + other + ":/x"} {
		if got, err := w.Ensure(t.Context(), plugins.FolderRequest{Source: plugins.Volume{Handle: from}, FileSystem: other}); err != nil || got.Handle != want {
			t.Errorf("%s becomes %+v, %v", from, got, err)
		}
	}
}

// TestEnsureRefused: what cannot be made says why, and what to do.
func TestEnsureRefused(t *testing.T) {
	w := newWorld(t, aws.Options{MaxAccessPoints: 1})
	handle := w.accessPoint(t, "/data")
	source := w.describe(t, handle)
	gone := source
	gone.Handle = w.fileSystem + "::fsap-00000000000000000"
	odd := gone
	odd.Attributes = maps.Clone(gone.Attributes)
	odd.Attributes["posixUid"] = "-1"
	bare := gone
	bare.Attributes = nil
	for name, c := range map[string]struct {
		req  plugins.FolderRequest
		want error
		says []string
	}{
		"no file system":   {plugins.FolderRequest{Source: plugins.Volume{Handle: "fs-00000000000000000"}}, plugins.ErrVolumeGone, []string{"fs-00000000000000000", "--file-system-mappings"}},
		"nothing recorded": {plugins.FolderRequest{Source: bare}, plugins.ErrVolumeGone, []string{"fsap-00000000000000000", "resource modifier"}},
		"quota":            {plugins.FolderRequest{Source: gone}, plugins.ErrVolumeQuota, []string{"Service Quotas"}},
		"hostile":          {plugins.FolderRequest{Source: odd}, plugins.ErrConfig, []string{`posixUid is "-1"`}},
		"no handle":        {plugins.FolderRequest{Source: plugins.Volume{Handle: "x"}}, plugins.ErrConfig, []string{`"x" is no handle`}},
	} {
		_, err := w.Ensure(t.Context(), c.req)
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for _, text := range c.says {
			if !strings.Contains(err.Error(), text) {
				t.Errorf("%s: %q does not say %q", name, err, text)
			}
		}
	}
	if got := w.cloud.AccessPoints(); len(got) != 1 {
		t.Errorf("there are now %q", got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := w.Ensure(ctx, plugins.FolderRequest{Source: source}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestEnsureReuses: what an earlier restore has made serves the next one too, whatever its token.
func TestEnsureReuses(t *testing.T) {
	w := newWorld(t, aws.Options{})
	handle := w.accessPoint(t, "/data")
	source := w.describe(t, handle)
	w.accessPoint(t, "/other")
	w.delete(t, handle)
	first, err := w.Ensure(t.Context(), plugins.FolderRequest{Token: "one", Source: source})
	if err != nil {
		t.Fatal(err)
	}
	second, err := w.Ensure(t.Context(), plugins.FolderRequest{Token: "two", Source: source})
	if err != nil || second.Handle != first.Handle || len(w.cloud.AccessPoints()) != 2 {
		t.Errorf("%+v, %v, among %q", second, err, w.cloud.AccessPoints())
	}
}

// TestWithin: one folder has many handles.
func TestWithin(t *testing.T) {
	w := newWorld(t, aws.Options{})
	fs := w.fileSystem
	data, below, beside := w.accessPoint(t, "/data"), w.accessPoint(t, "/data/below"), w.accessPoint(t, "/database")
	gone := w.accessPoint(t, "/data/gone")
	w.delete(t, gone)
	all := []string{data, below, beside, gone, fs, fs + ":/data", fs + ":/data/x/", "efs:" + fs + ":/data", data + "", fs + ":/database", "fs-00000000000000000:/data", "vol-1"}
	for handle, want := range map[string][]string{
		data:                {data, below, fs + ":/data", fs + ":/data/x/", "efs:" + fs + ":/data", data},
		below:               {below},
		fs + ":/data":       {data, below, fs + ":/data", fs + ":/data/x/", "efs:" + fs + ":/data", data},
		gone:                {gone},
		"fs-0000000a":       nil,
		fs + ":/data/below": {below},
	} {
		got, err := w.Within(t.Context(), handle, all)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("within %s are %q, %v; want %q", handle, got, err, want)
		}
	}
	if got, err := w.Within(t.Context(), fs, all); err != nil || len(got) != 10 {
		t.Errorf("within all of it are %q, %v", got, err)
	}
}
