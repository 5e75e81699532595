package ebs_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	awsec2 "github.com/aws/aws-sdk-go-v2/service/ec2"

	"kedge.dev/kedge/internal/awsconf"
	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/plugins/ebs"
	"kedge.dev/kedge/plugins/volumetest"
)

// breakage is a provider that breaks one promise, and the test of the suite that must notice.
type breakage struct {
	noticedBy string
	provider  func(*ebs.Provider) plugins.BlockSnapshots
}

var breakages = map[string]breakage{
	"asks again after a lost reply":   {"Snapshotter/LostReplyOfOne", func(p *ebs.Provider) plugins.BlockSnapshots { return naive{p} }},
	"asks without looking":            {"Snapshotter/SameToken", func(p *ebs.Provider) plugins.BlockSnapshots { return naive{p} }},
	"takes a machine's one by one":    {"Snapshotter/OneMoment", func(p *ebs.Provider) plugins.BlockSnapshots { return naive{p} }},
	"drops tags":                      {"Snapshotter/Tags", func(p *ebs.Provider) plugins.BlockSnapshots { return untagged{p} }},
	"gives them in another order":     {"Snapshotter/OneMachine", func(p *ebs.Provider) plugins.BlockSnapshots { return disordered{p} }},
	"keeps what is deleted":           {"Snapshotter/DeleteSnapshot", func(p *ebs.Provider) plugins.BlockSnapshots { return keeping{p} }},
	"makes empty volumes":             {"Snapshotter/SnapshotAndRestore", func(p *ebs.Provider) plugins.BlockSnapshots { return emptying{p} }},
	"forgets the token of a volume":   {"Snapshotter/CreateVolume", func(p *ebs.Provider) plugins.BlockSnapshots { return emptying{p} }},
	"says nothing of its errors":      {"Snapshotter/VolumeGone", func(p *ebs.Provider) plugins.BlockSnapshots { return mute{p} }},
	"reads other bytes":               {"Blocks/ReadAll", func(p *ebs.Provider) plugins.BlockSnapshots { return garbling{p} }},
	"lists everything where it reads": {"Blocks/ReadChanges", func(p *ebs.Provider) plugins.BlockSnapshots { return baseless{p} }},
	"compares what cannot be":         {"Blocks/NoBase", func(p *ebs.Provider) plugins.BlockSnapshots { return baseless{p} }},
}

const breakageVariable = "KEDGE_TEST_BREAKAGE"

// TestSuiteCanFail runs single tests of the suite on providers that they must refuse, each in a process of its own, as they fail there.
func TestSuiteCanFail(t *testing.T) {
	for name, b := range breakages {
		t.Run(name, func(t *testing.T) {
			parts := append([]string{"TestBroken"}, strings.Split(b.noticedBy, "/")...)
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.v", "-test.run", "^"+strings.Join(parts, "$/^")+"$")
			cmd.Env = append(os.Environ(), breakageVariable+"="+name)
			out, err := cmd.CombinedOutput()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || !strings.Contains(string(out), "--- FAIL: TestBroken/"+b.noticedBy) {
				t.Errorf("%s does not notice a provider that %s: %v\n%s", b.noticedBy, name, err, out)
			}
			if strings.Contains(string(out), "panic:") {
				t.Errorf("%s does not fail, it falls over\n%s", b.noticedBy, out)
			}
		})
	}
}

// TestBroken is what TestSuiteCanFail starts.
func TestBroken(t *testing.T) {
	b, ok := breakages[os.Getenv(breakageVariable)]
	if !ok {
		t.Skip("for TestSuiteCanFail")
	}
	broken := func(t *testing.T) *volumetest.World {
		t.Helper()
		w := world(t)
		p, _ := w.Provider.(*ebs.Provider)
		w.Provider = b.provider(p)
		return w
	}
	t.Run("Snapshotter", func(t *testing.T) { volumetest.TestSnapshotter(t, broken) })
	t.Run("Blocks", func(t *testing.T) { volumetest.TestBlocks(t, broken) })
}

// naive calls CreateSnapshot as the SDK does by itself.
type naive struct{ *ebs.Provider }

func (naive) Snapshot(ctx context.Context, req plugins.SnapshotRequest) (all []plugins.Snapshot, err error) {
	cfg, err := awsconf.Load(ctx, awsconf.Options{})
	if err != nil {
		return nil, err
	}
	client := awsec2.NewFromConfig(cfg)
	for _, handle := range req.Handles {
		out, err := client.CreateSnapshot(ctx, &awsec2.CreateSnapshotInput{VolumeId: &handle})
		if err != nil {
			return nil, err
		}
		all = append(all, plugins.Snapshot{ID: *out.SnapshotId, Handle: handle})
	}
	return all, nil
}

type untagged struct{ *ebs.Provider }

func (u untagged) Snapshot(ctx context.Context, req plugins.SnapshotRequest) ([]plugins.Snapshot, error) {
	req.ByHandle = nil
	return u.Provider.Snapshot(ctx, req)
}

type disordered struct{ *ebs.Provider }

func (d disordered) Snapshot(ctx context.Context, req plugins.SnapshotRequest) ([]plugins.Snapshot, error) {
	all, err := d.Provider.Snapshot(ctx, req)
	slices.Reverse(all)
	return all, err
}

type keeping struct{ *ebs.Provider }

func (keeping) DeleteSnapshot(context.Context, string) error { return nil }

type emptying struct{ *ebs.Provider }

func (e emptying) CreateVolume(ctx context.Context, req plugins.VolumeRequest) (plugins.Volume, error) {
	req.SnapshotID, req.SizeBytes, req.Token = "", max(req.SizeBytes, 1<<30), req.Token+"-other"
	return e.Provider.CreateVolume(ctx, req)
}

type mute struct{ *ebs.Provider }

func (m mute) Snapshot(ctx context.Context, req plugins.SnapshotRequest) ([]plugins.Snapshot, error) {
	all, err := m.Provider.Snapshot(ctx, req)
	if err != nil {
		err = errors.New("it failed")
	}
	return all, err
}

type garbling struct{ *ebs.Provider }

type garbledSource struct{ plugins.BlockSource }

func (g garbling) OpenBlocks(ctx context.Context, id, base string) (plugins.BlockSource, error) {
	src, err := g.Provider.OpenBlocks(ctx, id, base)
	return garbledSource{src}, err
}

func (g garbledSource) ReadBlock(ctx context.Context, b plugins.Block, buf []byte) (int, error) {
	n, err := g.BlockSource.ReadBlock(ctx, b, buf)
	if n > 0 {
		buf[0] ^= 1
	}
	return n, err
}

type baseless struct{ *ebs.Provider }

func (b baseless) OpenBlocks(ctx context.Context, id, _ string) (plugins.BlockSource, error) {
	return b.Provider.OpenBlocks(ctx, id, "")
}
