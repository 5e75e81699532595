package volumetest

import (
	"context"
	"maps"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"

	"kedge.dev/kedge/plugins"
)

func testHandle(t *testing.T, w *World) {
	first, second := w.NewVolume(t, ""), w.NewVolume(t, "")
	described, err := w.Provider.Describe(t.Context(), []string{second})
	if err != nil {
		t.Fatal(err)
	}
	forms := w.PersistentVolumes(first)
	if len(forms) == 0 || w.Provider.Name() == "" {
		t.Error("no persistent volume, or no name of the provider")
	}
	for _, pv := range forms {
		before := pv.DeepCopy()
		if got, ok := w.Provider.Handle(pv); !ok || got != first {
			t.Errorf("Handle gives %q, %v of %+v", got, ok, pv.Spec.PersistentVolumeSource)
		}
		if err := w.Provider.Rebind(pv, described[second]); err != nil {
			t.Errorf("Rebind: %v", err)
			continue
		}
		if got, ok := w.Provider.Handle(pv); !ok || got != second {
			t.Errorf("after Rebind, Handle gives %q, %v", got, ok)
		}
		if size := pv.Spec.Capacity[corev1.ResourceStorage]; size.Value() != described[second].SizeBytes {
			t.Errorf("after Rebind, the capacity is %s", size.String())
		}
		if zone := described[second].Zone; zone != "" && !strings.Contains(pv.Spec.NodeAffinity.String(), zone) {
			t.Errorf("after Rebind, the node affinity is %v", pv.Spec.NodeAffinity)
		}
		if pv.Name != before.Name || pv.Spec.ClaimRef.String() != before.Spec.ClaimRef.String() {
			t.Error("Rebind changed the name or the claim")
		}
	}
	foreign := &corev1.PersistentVolume{Spec: corev1.PersistentVolumeSpec{PersistentVolumeSource: corev1.PersistentVolumeSource{
		CSI: &corev1.CSIPersistentVolumeSource{Driver: "storage.example.com", VolumeHandle: first},
	}}}
	if got, ok := w.Provider.Handle(foreign); ok {
		t.Errorf("Handle takes another driver's volume for %q", got)
	}
	want(t, "Rebind of another driver's volume", w.Provider.Rebind(foreign, described[second]), plugins.ErrConfig)
}

func testDescribe(t *testing.T, w *World) {
	alone, attached := w.NewVolume(t, ""), w.NewVolume(t, "m")
	found, err := w.Provider.Describe(t.Context(), []string{alone, w.UnknownVolume, attached})
	if err != nil {
		t.Fatal(err)
	}
	if len(found) != 2 || found[alone].Handle != alone || found[attached].Handle != attached {
		t.Errorf("described %v", found)
	}
	if found[alone].SizeBytes < 1<<30 || found[alone].AttachedTo != "" || found[attached].AttachedTo == "" {
		t.Errorf("described %+v and %+v", found[alone], found[attached])
	}
}

func testSnapshotAndRestore(t *testing.T, w *World) {
	volume := w.NewVolume(t, "")
	data := noise(1, 3<<20)
	w.Write(t, volume, 5<<20, data)
	s := completed(t, w, snap(t, w, "token", volume)[0].ID)
	if s.Handle != volume || s.SizeBytes < 1<<30 {
		t.Errorf("the snapshot is %+v", s)
	}
	made, err := w.Provider.CreateVolume(t.Context(), plugins.VolumeRequest{Token: "restore", SnapshotID: s.ID, Zone: w.Zone, Attributes: w.Attributes})
	if err != nil {
		t.Fatal(err)
	}
	if made.SizeBytes != s.SizeBytes || made.Handle == volume {
		t.Errorf("the volume is %+v", made)
	}
	sameBytes(t, w, made.Handle, 5<<20, data)
	sameBytes(t, w, made.Handle, 0, make([]byte, 1<<20))
}

func testMoment(t *testing.T, w *World) {
	volume := w.NewVolume(t, "")
	before := noise(2, 1<<20)
	w.Write(t, volume, 0, before)
	id := snap(t, w, "token", volume)[0].ID
	w.Write(t, volume, 0, noise(3, 1<<20)) // before the snapshot is completed
	completed(t, w, id)
	made, err := w.Provider.CreateVolume(t.Context(), plugins.VolumeRequest{Token: "restore", SnapshotID: id, Zone: w.Zone, Attributes: w.Attributes})
	if err != nil {
		t.Fatal(err)
	}
	sameBytes(t, w, made.Handle, 0, before)
}

func ids(taken []plugins.Snapshot) (found []string) {
	for _, s := range taken {
		found = append(found, s.ID)
	}
	return found
}

func testSameToken(t *testing.T, w *World) {
	volumes := []string{w.NewVolume(t, "m"), w.NewVolume(t, ""), w.NewVolume(t, "m")}
	first := ids(snap(t, w, "one", volumes...))
	completed(t, w, first[0])
	w.Pause()
	if again := ids(snap(t, w, "one", volumes...)); !slices.Equal(again, first) {
		t.Errorf("the same token gives %v, then %v", first, again)
	}
	count(t, "snapshots", w.Snapshots(), 3)
	for _, id := range ids(snap(t, w, "two", volumes...)) {
		if slices.Contains(first, id) {
			t.Errorf("another token gives the same snapshot %s", id)
		}
	}
	count(t, "snapshots", w.Snapshots(), 6)
}

func testSameTokenAtOnce(t *testing.T, w *World) {
	volumes := []string{w.NewVolume(t, "m"), w.NewVolume(t, "m"), w.NewVolume(t, "")}
	var group errgroup.Group
	all := make([][]string, 4)
	for i := range all {
		group.Go(func() error {
			taken, err := w.Provider.Snapshot(t.Context(), plugins.SnapshotRequest{Token: "token", Handles: volumes})
			all[i] = ids(taken)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	for _, taken := range all[1:] {
		if !slices.Equal(taken, all[0]) {
			t.Errorf("the same token gives %v and %v", all[0], taken)
		}
	}
	count(t, "snapshots", w.Snapshots(), 3)
}

// testTokenOfOthers is about a token that is used for two sets of volumes by mistake: nobody's snapshot may suffer.
func testTokenOfOthers(t *testing.T, w *World) {
	first, second := w.NewVolume(t, "m"), w.NewVolume(t, "m")
	id := completed(t, w, snap(t, w, "token", first)[0].ID).ID
	for _, handles := range [][]string{{second}, {first, second}} {
		_, err := w.Provider.Snapshot(t.Context(), plugins.SnapshotRequest{Token: "token", Handles: handles})
		want(t, "Snapshot with the token of other volumes", err, plugins.ErrConfig)
	}
	if found := w.Snapshots(); !slices.Equal(found, []string{id}) {
		t.Errorf("the snapshots are %v, want %s alone", found, id)
	}
}

func testTags(t *testing.T, w *World) {
	volumes := []string{w.NewVolume(t, "m"), w.NewVolume(t, "m"), w.NewVolume(t, "")}
	taken, err := w.Provider.Snapshot(t.Context(), plugins.SnapshotRequest{
		Token: "token", Handles: volumes, Tags: map[string]string{"backup": "b*?1", "empty": ""}, ByHandle: map[string]map[string]string{volumes[0]: {"claim": "x/y"}, volumes[2]: {"claim": "z"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	checkOrder(t, taken, volumes)
	for i, claim := range []string{"x/y", "", "z"} {
		s := completed(t, w, taken[i].ID)
		for name, value := range map[string]string{"backup": "b*?1", "empty": "", "claim": claim} {
			if got, ok := s.Tags[name]; got != value || !ok && value != "" {
				t.Errorf("snapshot %d has %s=%q, want %q", i, name, got, value)
			}
		}
	}
}

func testFindByAllTags(t *testing.T, w *World) {
	volume := w.NewVolume(t, "")
	made := map[string]string{}
	for token, tags := range map[string]map[string]string{"1": {"a": "x", "b": "y"}, "2": {"a": "x", "b": "z"}, "3": {"a": "*"}} {
		taken, err := w.Provider.Snapshot(t.Context(), plugins.SnapshotRequest{Token: token, Handles: []string{volume}, Tags: tags})
		if err != nil {
			t.Fatal(err)
		}
		made[token] = taken[0].ID
		completed(t, w, taken[0].ID)
	}
	for _, c := range []struct {
		tags map[string]string
		want string
	}{
		{map[string]string{"a": "x"}, "12"},
		{map[string]string{"a": "x", "b": "z"}, "2"},
		{map[string]string{"a": "*"}, "3"},
		{map[string]string{"a": "y"}, ""},
	} {
		found, err := w.Provider.FindSnapshots(t.Context(), c.tags)
		if err != nil {
			t.Fatal(err)
		}
		var tokens []string
		for _, token := range []string{"1", "2", "3"} {
			if slices.Contains(ids(found), made[token]) {
				tokens = append(tokens, token)
			}
		}
		if strings.Join(tokens, "") != c.want || len(found) != len(c.want) {
			t.Errorf("FindSnapshots(%v) gives those of tokens %v (%d in all), want %s", c.tags, tokens, len(found), c.want)
		}
	}
	_, err := w.Provider.FindSnapshots(t.Context(), nil)
	want(t, "FindSnapshots without a tag", err, plugins.ErrConfig)
}

func testOneMachine(t *testing.T, w *World) {
	var volumes []string
	for range 4 {
		volumes = append(volumes, w.NewVolume(t, "m"))
	}
	alone := w.NewVolume(t, "")
	snap(t, w, "some", volumes[3], alone, volumes[0], volumes[2])
	count(t, "snapshots", w.Snapshots(), 4) // none of the machine's other volumes
}

// testOneMoment writes to a machine's volumes between any two calls.
func testOneMoment(t *testing.T, w *World) {
	if w.BeforeEachSnapshot == nil {
		t.Skip("the service's calls cannot be seen")
	}
	volumes := []string{w.NewVolume(t, "m"), w.NewVolume(t, "m"), w.NewVolume(t, "m")}
	calls := byte(0)
	w.BeforeEachSnapshot(func() {
		calls++
		for _, volume := range volumes {
			w.Write(t, volume, 0, []byte{calls})
		}
	})
	var moments []byte
	for _, s := range snap(t, w, "token", volumes...) {
		completed(t, w, s.ID)
		made, err := w.Provider.CreateVolume(t.Context(), plugins.VolumeRequest{Token: s.ID, SnapshotID: s.ID, Zone: w.Zone, Attributes: w.Attributes})
		if err != nil {
			t.Fatal(err)
		}
		moments = append(moments, w.Read(t, made.Handle, 0, 1)[0])
	}
	if moments[0] == 0 || moments[0] != moments[1] || moments[1] != moments[2] {
		t.Errorf("the volumes of one machine were taken by calls %v", moments)
	}
}

func testLostReplyOfOne(t *testing.T, w *World) {
	volume := w.NewVolume(t, "")
	w.LoseReplies()
	first := snap(t, w, "token", volume)
	count(t, "snapshots", w.Snapshots(), 1)
	if again := snap(t, w, "token", volume); again[0].ID != first[0].ID {
		t.Errorf("the same token gives %v, then %v", first, again)
	}
}

func testLostReplyOfMachine(t *testing.T, w *World) {
	volumes := []string{w.NewVolume(t, "m"), w.NewVolume(t, "m"), w.NewVolume(t, "m")}
	w.LoseReplies()
	taken, err := w.Provider.Snapshot(t.Context(), plugins.SnapshotRequest{
		Token: "token", Handles: volumes[:2], ByHandle: map[string]map[string]string{volumes[0]: {"claim": "x"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	checkOrder(t, taken, volumes[:2])
	count(t, "snapshots", w.Snapshots(), 2)
	if s := completed(t, w, taken[0].ID); s.Tags["claim"] != "x" {
		t.Errorf("tags %v", s.Tags)
	}
}

// testNewProcess is about a process that dies between the call and its answer, and one that goes on.
func testNewProcess(t *testing.T, w *World) {
	volumes := []string{w.NewVolume(t, "m"), w.NewVolume(t, "m"), w.NewVolume(t, "")}
	first := ids(snap(t, w, "token", volumes...))
	taken, err := w.Another(t).Snapshot(t.Context(), plugins.SnapshotRequest{Token: "token", Handles: volumes, Retry: true})
	if err != nil {
		t.Fatal(err)
	}
	if got := ids(taken); !slices.Equal(got, first) {
		t.Errorf("the next process gets %v, want %v", got, first)
	}
	count(t, "snapshots", w.Snapshots(), 3)
}

func testVolumeGone(t *testing.T, w *World) {
	volume := w.NewVolume(t, "")
	_, err := w.Provider.Snapshot(t.Context(), plugins.SnapshotRequest{Token: "token", Handles: []string{volume, w.UnknownVolume}})
	want(t, "Snapshot of a volume that is not there", err, plugins.ErrVolumeGone)
	if err != nil && !strings.Contains(err.Error(), w.UnknownVolume) {
		t.Errorf("the error %q does not name %s", err, w.UnknownVolume)
	}
}

func testBadRequests(t *testing.T, w *World) {
	volume := w.NewVolume(t, "")
	many := map[string]string{}
	for i := range 60 {
		many[strings.Repeat("t", i+1)] = ""
	}
	for name, req := range map[string]plugins.SnapshotRequest{
		"without a token": {Handles: []string{volume}},
		"named twice":     {Token: "t", Handles: []string{volume, volume}},
		"without an id":   {Token: "t", Handles: []string{""}},
		"of many tags":    {Token: "t", Handles: []string{volume}, Tags: many},
	} {
		_, err := w.Provider.Snapshot(t.Context(), req)
		want(t, "Snapshot "+name, err, plugins.ErrConfig)
	}
	count(t, "snapshots", w.Snapshots(), 0)
}

func testDeleteSnapshot(t *testing.T, w *World) {
	volume := w.NewVolume(t, "")
	id := completed(t, w, snap(t, w, "token", volume)[0].ID).ID
	for range 2 {
		if err := w.Provider.DeleteSnapshot(t.Context(), id); err != nil {
			t.Errorf("DeleteSnapshot: %v", err)
		}
	}
	if err := w.Provider.DeleteSnapshot(t.Context(), w.UnknownSnapshot); err != nil {
		t.Errorf("DeleteSnapshot of what never was: %v", err)
	}
	count(t, "snapshots", w.Snapshots(), 0)
	found, err := w.Provider.DescribeSnapshots(t.Context(), []string{id, w.UnknownSnapshot})
	if err != nil || len(found) != 0 {
		t.Errorf("DescribeSnapshots gives %v, %v", found, err)
	}
}

func testCreateVolume(t *testing.T, w *World) {
	id := completed(t, w, snap(t, w, "token", w.NewVolume(t, ""))[0].ID).ID
	before := len(w.Volumes())
	req := plugins.VolumeRequest{Token: "restore", SnapshotID: id, SizeBytes: 3 << 30, Zone: w.Zone, Attributes: w.Attributes, Tags: map[string]string{"cluster": "green"}}
	made, err := w.Provider.CreateVolume(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	if made.SizeBytes != 3<<30 || made.Zone != w.Zone || made.Tags["cluster"] != "green" {
		t.Errorf("the volume is %+v", made)
	}
	for name, value := range w.Attributes {
		if made.Attributes[name] != value {
			t.Errorf("attribute %s is %q, want %q", name, made.Attributes[name], value)
		}
	}
	again, err := w.Another(t).CreateVolume(t.Context(), req)
	if err != nil || again.Handle != made.Handle {
		t.Errorf("the same token gives %s, %v; want %s", again.Handle, err, made.Handle)
	}
	count(t, "volumes", w.Volumes(), before+1)
	req.SizeBytes = 4 << 30
	_, err = w.Provider.CreateVolume(t.Context(), req)
	want(t, "CreateVolume of another request with the same token", err, plugins.ErrConfig)
	req.Token, req.Attributes = "other", map[string]string{"colour": "red"}
	_, err = w.Provider.CreateVolume(t.Context(), req)
	want(t, "CreateVolume with an unknown attribute", err, plugins.ErrConfig)
	// What Describe says is what CreateVolume takes.
	req.Attributes = maps.Clone(made.Attributes)
	if _, err = w.Provider.CreateVolume(t.Context(), req); err != nil {
		t.Errorf("CreateVolume with attributes as described: %v", err)
	}
}

func testEmptyVolume(t *testing.T, w *World) {
	made, err := w.Provider.CreateVolume(t.Context(), plugins.VolumeRequest{Token: "empty", SizeBytes: 1<<30 + 1, Zone: w.Zone, Attributes: w.Attributes})
	if err != nil {
		t.Fatal(err)
	}
	if made.SizeBytes < 1<<30+1 {
		t.Errorf("the volume has %d bytes", made.SizeBytes)
	}
	_, err = w.Provider.CreateVolume(t.Context(), plugins.VolumeRequest{Token: "none", Zone: w.Zone})
	want(t, "CreateVolume without a size", err, plugins.ErrConfig)
}

func testLostReplyOfVolume(t *testing.T, w *World) {
	w.LoseReplies()
	if _, err := w.Provider.CreateVolume(t.Context(), plugins.VolumeRequest{Token: "empty", SizeBytes: 1 << 30, Zone: w.Zone, Attributes: w.Attributes}); err != nil {
		t.Fatal(err)
	}
	count(t, "volumes", w.Volumes(), 1)
}

func testCreateVolumeOfNothing(t *testing.T, w *World) {
	_, err := w.Provider.CreateVolume(t.Context(), plugins.VolumeRequest{Token: "t", SnapshotID: w.UnknownSnapshot, Zone: w.Zone})
	want(t, "CreateVolume of no snapshot", err, plugins.ErrVolumeGone)
	_, err = w.Provider.CreateVolume(t.Context(), plugins.VolumeRequest{Token: "u", SizeBytes: 1 << 30, Zone: "nowhere"})
	want(t, "CreateVolume in no zone", err, plugins.ErrConfig)
	count(t, "volumes", w.Volumes(), 0)
}

func testFindVolumes(t *testing.T, w *World) {
	w.NewVolume(t, "") // which has none of the tags
	made := map[string]string{}
	for token, tags := range map[string]map[string]string{"1": {"a": "x", "b": "y"}, "2": {"a": "x", "b": "z"}, "3": {"a": "*"}} {
		v, err := w.Provider.CreateVolume(t.Context(), plugins.VolumeRequest{Token: token, SizeBytes: 1 << 30, Zone: w.Zone, Attributes: w.Attributes, Tags: tags})
		if err != nil {
			t.Fatal(err)
		}
		made[v.Handle] = token
	}
	for _, c := range []struct {
		tags map[string]string
		want string
	}{
		{map[string]string{"a": "x"}, "12"},
		{map[string]string{"a": "x", "b": "z"}, "2"},
		{map[string]string{"a": "*"}, "3"},
		{map[string]string{"a": "y"}, ""},
	} {
		found, err := w.Provider.FindVolumes(t.Context(), c.tags)
		if err != nil {
			t.Fatal(err)
		}
		var tokens []string
		for _, v := range found {
			tokens = append(tokens, made[v.Handle])
			if v.Created.IsZero() || v.SizeBytes != 1<<30 {
				t.Errorf("FindVolumes gives %+v", v)
			}
		}
		if slices.Sort(tokens); strings.Join(tokens, "") != c.want {
			t.Errorf("FindVolumes(%v) gives those of tokens %v, want %s", c.tags, tokens, c.want)
		}
	}
	_, err := w.Provider.FindVolumes(t.Context(), nil)
	want(t, "FindVolumes without a tag", err, plugins.ErrConfig)
}

func testDeleteVolume(t *testing.T, w *World) {
	made, err := w.Provider.CreateVolume(t.Context(), plugins.VolumeRequest{Token: "empty", SizeBytes: 1 << 30, Zone: w.Zone, Attributes: w.Attributes})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := w.Provider.DeleteVolume(t.Context(), made.Handle); err != nil {
			t.Errorf("DeleteVolume: %v", err)
		}
	}
	if err := w.Provider.DeleteVolume(t.Context(), w.UnknownVolume); err != nil {
		t.Errorf("DeleteVolume of what never was: %v", err)
	}
	count(t, "volumes", w.Volumes(), 0)
	users := w.NewVolume(t, "")
	want(t, "DeleteVolume of a volume that is not ours", w.Provider.DeleteVolume(t.Context(), users), plugins.ErrConfig)
	count(t, "volumes", w.Volumes(), 1)
}

func testCancel(t *testing.T, w *World) {
	volume := w.NewVolume(t, "")
	ctx := cancelled(t)
	_, err := w.Provider.Snapshot(ctx, plugins.SnapshotRequest{Token: "token", Handles: []string{volume}})
	want(t, "Snapshot that is cancelled", err, context.Canceled)
	_, err = w.Provider.CreateVolume(ctx, plugins.VolumeRequest{Token: "t", SizeBytes: 1 << 30, Zone: w.Zone})
	want(t, "CreateVolume that is cancelled", err, context.Canceled)
	_, err = w.Provider.Describe(ctx, []string{volume})
	want(t, "Describe that is cancelled", err, context.Canceled)
	count(t, "snapshots", w.Snapshots(), 0)
}
