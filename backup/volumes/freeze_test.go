package volumes

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/internal/podexec"
	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/plugins/hooks"
)

// hooked is a pod that runs, with a pre and a post hook, and mounts claims.
func hooked(namespace, name, group string, claims ...string) hooks.Pod {
	p := hooks.Pod{
		Namespace: namespace, Name: name, UID: namespace + "-" + name, Phase: corev1.PodRunning, Containers: []string{"main"}, Claims: claims, Labels: map[string]string{},
		Annotations: map[string]string{"pre.hook.backup.kedge.dev/command": "pre", "post.hook.backup.kedge.dev/command": "post"},
	}
	if group != "" {
		p.Labels[v1alpha1.FreezeGroupLabel] = group
	}
	return p
}

// bare is a pod without hooks.
func bare(namespace, name, group string, claims ...string) hooks.Pod {
	p := hooked(namespace, name, group, claims...)
	p.Annotations = nil
	return p
}

func TestTie(t *testing.T) {
	pending := hooked("shop", "pending", "", "a")
	pending.Phase = corev1.PodPending
	// Claims "namespace/name" with the storage behind each; c and also-c have one.
	storages := map[string]string{"shop/a": "s-a", "shop/b": "s-b", "shop/c": "s-c", "shop/also-c": "s-c", "other/a": "s-other"}
	for _, c := range []struct {
		name   string
		pods   []hooks.Pod
		groups []string // "pods: claims"
		free   string
	}{
		{"no pods", nil, nil, "other/a shop/a shop/also-c shop/b shop/c"},
		{"a pod with two volumes", []hooks.Pod{hooked("shop", "x", "", "a", "b")}, []string{"shop/x: shop/a shop/b"}, "other/a shop/also-c shop/c"},
		{"a pod without volumes", []hooks.Pod{hooked("shop", "x", "")}, []string{"shop/x: "}, "other/a shop/a shop/also-c shop/b shop/c"},
		{"a claim that is not taken", []hooks.Pod{hooked("shop", "x", "", "away")}, []string{"shop/x: "}, "other/a shop/a shop/also-c shop/b shop/c"},
		{"the name in another namespace", []hooks.Pod{hooked("other", "x", "", "a")}, []string{"other/x: other/a"}, "shop/a shop/also-c shop/b shop/c"},
		{
			"two pods with one claim, in one group", []hooks.Pod{hooked("shop", "x", "", "a", "b"), hooked("shop", "y", "", "b"), hooked("other", "z", "")},
			[]string{"other/z: ", "shop/x shop/y: shop/a shop/b"}, "other/a shop/also-c shop/c",
		},
		{"two claims of one storage", []hooks.Pod{hooked("shop", "x", "", "c")}, []string{"shop/x: shop/also-c shop/c"}, "other/a shop/a shop/b"},
		{
			"tied by a label, also a pod without hooks", []hooks.Pod{hooked("shop", "x", "g", "a"), bare("shop", "y", "g", "b"), hooked("shop", "z", "h", "c")},
			[]string{"shop/x: shop/a shop/b", "shop/z: shop/also-c shop/c"}, "other/a",
		},
		{"a label ties within a namespace", []hooks.Pod{hooked("shop", "x", "g", "a"), hooked("other", "x", "g", "a")}, []string{"other/x: other/a", "shop/x: shop/a"}, "shop/also-c shop/b shop/c"},
		{"no hooks, no group", []hooks.Pod{bare("shop", "x", "g", "a"), bare("shop", "y", "g", "b")}, nil, "other/a shop/a shop/also-c shop/b shop/c"},
		{"a pod that does not run holds nothing", []hooks.Pod{pending}, nil, "other/a shop/a shop/also-c shop/b shop/c"},
	} {
		var todo []*taking
		for id, storage := range storages {
			namespace, name, _ := strings.Cut(id, "/")
			todo = append(todo, &taking{claim: &Claim{Namespace: namespace, Name: name}, storage: storage})
		}
		r := &Result{}
		groups, free := (&Taker{}).tie(todo, c.pods, r)
		var got []string
		for _, g := range groups {
			var pods []string
			for _, p := range g.pods {
				pods = append(pods, p.String())
			}
			got = append(got, strings.Join(pods, " ")+": "+claimsOf(g.volumes))
		}
		if diff := cmp.Diff(c.groups, got); diff != "" || claimsOf(free) != c.free {
			t.Errorf("%s: free are %s (-want +got):\n%s", c.name, claimsOf(free), diff)
		}
		if skipped := len(r.Skipped) == 1 && r.Skipped[0].Reason == ReasonHookSkipped; skipped != strings.HasPrefix(c.name, "a pod that does not run") {
			t.Errorf("%s: skipped are %v", c.name, r.Skipped)
		}
	}
}

func claimsOf(list []*taking) string {
	var names []string
	for _, v := range list {
		names = append(names, v.claim.String())
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

// cluster is an Executor that writes down what was run, and answers as it is told.
type cluster struct {
	mu     sync.Mutex
	diary  []string
	answer func(req podexec.Request) error
}

func (c *cluster) note(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.diary = append(c.diary, fmt.Sprintf(format, args...))
}

func (c *cluster) Exec(ctx context.Context, req podexec.Request) error {
	c.note("%s %s", req.Command[0], req.Pod)
	if ctx.Err() != nil {
		c.note("with a context that is over")
	}
	if c.answer == nil {
		return nil
	}
	return c.answer(req)
}

// TestGroupOrder takes a group of two pods without volumes through what can go wrong between them and the note of their freeze.
func TestGroupOrder(t *testing.T) {
	failing := &podexec.ExitError{Code: 1}
	for _, c := range []struct {
		name     string
		answer   func(req podexec.Request) error
		refuse   error // of the note
		want     []string
		errors   int
		ends     bool // with an error
		onlyPost bool
	}{
		{"good", nil, nil, []string{"note", "pre x", "pre y", "post x", "post y", "forget"}, 0, false, false},
		{"a pre hook fails", func(r podexec.Request) error {
			if r.Command[0] == "pre" && r.Pod == "x" {
				return failing
			}
			return nil
		}, nil, []string{"note", "pre x", "pre y", "post x", "post y", "forget"}, 1, false, false},
		{"nothing can be noted", nil, errors.New("the bucket is away"), nil, 2, false, false},
		{"a post hook that did not arrive is run again", lostOnce("post", "x"), nil, []string{"note", "pre x", "pre y", "post x", "post x", "post y", "forget"}, 0, false, false},
		{"a pre hook is not", lostOnce("pre", "x"), nil, []string{"note", "pre x", "pre y", "post x", "post y", "forget"}, 1, false, false},
		{"a post hook that never arrives", func(r podexec.Request) error {
			if r.Command[0] == "post" && r.Pod == "y" {
				return errors.New("reset")
			}
			return nil
		}, nil, append([]string{"note", "pre x", "pre y", "post x"}, slices.Repeat([]string{"post y"}, 15)...), 1, true, false},
		{"a post hook that does not arrive for minutes", lostTimes(12, "post", "y"), nil, append(append([]string{"note", "pre x", "pre y", "post x"}, slices.Repeat([]string{"post y"}, 13)...), "forget"), 0, false, false},
		{"a post hook that arrives before the backup is sealed", lostTimes(14, "post", "y"), nil, append(append([]string{"note", "pre x", "pre y", "post x"}, slices.Repeat([]string{"post y"}, 15)...), "forget"), 0, false, false},
		{"a post hook that fails", func(r podexec.Request) error {
			if r.Command[0] == "post" && r.Pod == "y" {
				return failing
			}
			return nil
		}, nil, []string{"note", "pre x", "pre y", "post x", "post y"}, 1, false, false},
		{"a pod that nothing reaches", func(r podexec.Request) error {
			if r.Pod == "y" {
				return errors.New("no route")
			}
			return nil
		}, nil, []string{"note", "pre x", "pre y", "post x", "post y", "post y", "post y", "post y"}, 2, false, false},
		{"nothing to undo, nothing to note", nil, nil, []string{"post x", "post y"}, 0, false, true},
	} {
		ex := &cluster{answer: c.answer}
		pods := []hooks.Pod{hooked("shop", "x", "g"), hooked("shop", "y", "g")}
		if c.onlyPost {
			for _, p := range pods {
				delete(p.Annotations, "pre.hook.backup.kedge.dev/command")
			}
		}
		taker := &Taker{Exec: ex, Sleep: func(context.Context, time.Duration) error { return nil }, Freeze: func(_ context.Context, uids []string) (Note, error) {
			if !slices.Equal(uids, []string{"shop-x", "shop-y"}) {
				t.Errorf("%s: noted %v", c.name, uids)
			}
			if c.refuse == nil {
				ex.note("note")
			}
			return &noted{forget: func(context.Context) error { ex.note("forget"); return nil }}, c.refuse
		}}
		r := &Result{}
		_, err := taker.freeze(t.Context(), Request{Pods: pods}, nil, taker.fileCopies(Request{}, nil, r))
		err = taker.settle(t.Context(), r, err)
		if (err != nil) != c.ends || len(r.Errors) != c.errors {
			t.Errorf("%s: %v, %v", c.name, err, r.Errors)
		}
		// The pods are worked on at once: within a step their order is chance.
		if got := sortedSteps(ex.diary); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

func lostOnce(command, pod string) func(podexec.Request) error { return lostTimes(1, command, pod) }

func lostTimes(n int64, command, pod string) func(podexec.Request) error {
	var lost atomic.Int64
	return func(r podexec.Request) error {
		if r.Command[0] == command && r.Pod == pod && lost.Add(1) <= n {
			return errors.New("reset")
		}
		return nil
	}
}

func sortedSteps(diary []string) []string {
	for i := 0; i < len(diary); {
		j := i + 1
		step, _, _ := strings.Cut(diary[i], " ")
		for j < len(diary) && strings.HasPrefix(diary[j], step+" ") {
			j++
		}
		slices.Sort(diary[i:j])
		i = j
	}
	return diary
}

// TestGroupCancelled ends the backup's context in a pre hook. The hook may end by itself, or is given up after a while; the post hooks run with a context that
// lives, and one that does not arrive leaves the note for the next attempt.
func TestGroupCancelled(t *testing.T) {
	for _, c := range []struct {
		name    string
		patient bool
		post    error
		want    []string
	}{
		{"the pre hook ends", true, nil, []string{"pre x", "post x"}},
		{"the pre hook hangs", false, nil, []string{"pre x", "given up", "post x"}},
		{"the post hook does not arrive", true, errors.New("reset"), []string{"pre x", "post x", "post x", "post x", "post x"}},
		{"the post hook fails", true, &podexec.ExitError{Code: 7, Output: "s3cret"}, []string{"pre x", "post x"}},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		ex := &cluster{}
		run := func(own context.Context, r podexec.Request) error {
			if r.Command[0] == "pre" {
				cancel()
				if !c.patient {
					<-own.Done()
					ex.note("given up")
					return own.Err()
				}
				return nil
			}
			return c.post
		}
		forgotten := false
		taker := &Taker{
			Exec: executorFunc(func(own context.Context, r podexec.Request) error {
				ex.note("%s %s", r.Command[0], r.Pod)
				if own.Err() != nil {
					ex.note("with a context that is over")
				}
				return run(own, r)
			}),
			Sleep: func(own context.Context, d time.Duration) error {
				if d == preGrace && c.patient {
					<-own.Done()
				}
				return own.Err()
			},
			Freeze: func(context.Context, []string) (Note, error) {
				return &noted{forget: func(ctx context.Context) error {
					forgotten = ctx.Err() == nil
					return nil
				}}, nil
			},
		}
		r := &Result{}
		_, err := taker.freeze(ctx, Request{Pods: []hooks.Pod{hooked("shop", "x", "")}}, nil, taker.fileCopies(Request{}, nil, r))
		err = taker.settle(ctx, r, err)
		cancel()
		if !errors.Is(err, context.Canceled) || forgotten != (c.post == nil) || !slices.Equal(ex.diary, c.want) {
			t.Errorf("%s: %v, forgotten %v, %v", c.name, err, forgotten, ex.diary)
		}
		frozen, ok := errors.AsType[*FrozenError](err)
		if ok != (c.post != nil) || ok && (!strings.Contains(frozen.Error(), "pod shop/x, container main") || strings.Contains(err.Error(), "s3cret")) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// executorFunc is an Executor that is one function.
type executorFunc func(context.Context, podexec.Request) error

func (f executorFunc) Exec(ctx context.Context, req podexec.Request) error { return f(ctx, req) }

// noted is a Note.
type noted struct {
	held   func() (bool, error)
	forget func(context.Context) error
}

func (n *noted) Held(context.Context) (bool, error) { return n.held() }

func (n *noted) Forget(ctx context.Context) error { return n.forget(ctx) }

// camera is a provider that takes snapshots, and writes them into a diary.
type camera struct {
	plugins.VolumeSnapshotter
	diary *cluster
}

func (c *camera) Name() string { return "camera" }

func (c *camera) Snapshot(context.Context, plugins.SnapshotRequest) ([]plugins.Snapshot, error) {
	c.diary.note("snapshot")
	return []plugins.Snapshot{{Handle: "h"}}, nil
}

// TestThawedByAnother takes a volume whose pod somebody else lets go meanwhile. That is looked at when the snapshot is taken, and the pod holds still yet.
func TestThawedByAnother(t *testing.T) {
	away := errors.New("the bucket is away")
	for _, c := range []struct {
		name   string
		held   bool
		err    error
		failed bool
		notes  int
	}{{"nobody has", true, nil, false, 0}, {"another backup has", false, nil, true, 0}, {"nobody knows", false, away, false, 1}} {
		ex := &cluster{}
		note := &noted{held: func() (bool, error) { ex.note("look"); return c.held, c.err }, forget: func(context.Context) error { return nil }}
		taker := &Taker{Exec: ex, Now: time.Now, Freeze: func(context.Context, []string) (Note, error) { return note, nil }}
		v := &taking{claim: &Claim{Namespace: "shop", Name: "a"}, provider: &camera{diary: ex}, handle: "h"}
		r := &Result{}
		if _, err := taker.freeze(t.Context(), Request{Pods: []hooks.Pod{hooked("shop", "x", "", "a")}}, []*taking{v}, taker.fileCopies(Request{}, nil, r)); err != nil {
			t.Error(err)
		}
		if (v.err != nil) != c.failed || len(r.Notes) != c.notes || !slices.Equal(ex.diary, []string{"pre x", "snapshot", "look", "post x"}) {
			t.Errorf("%s: %v, %v, %v", c.name, v.err, r.Notes, ex.diary)
		}
	}
}
