package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/go-logr/logr"
	"github.com/klauspost/compress/zstd"
	"github.com/rogpeppe/go-internal/testscript"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/deploy"
	"kedge.dev/kedge/server"
	"kedge.dev/kedge/test/testbed"
)

// scriptServer is what scripts of the command line against a server have: an API server with Kedge's kinds, and a namespace for each script.
// Where a script does not start a server, it plays the server's part itself.
type scriptServer struct {
	config     *rest.Config
	client     client.Client
	kubeconfig string
	few        string // a kubeconfig of an account that may read backups and nothing else
}

// TestServerScripts runs the scripts of commands without --local on a real API server.
func TestServerScripts(t *testing.T) {
	s := newScriptServer(t)
	commands := map[string]func(*testscript.TestScript, bool, []string){
		"play": s.play, "answer": s.answer, "serve": s.serve, "field": s.field, "await": s.await, "runs": s.runs,
	}
	maps.Copy(commands, scriptCommands)
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "server"), Cmds: commands, RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			namespace := strings.ToLower("kedge-" + filepath.Base(filepath.Dir(env.WorkDir)) + "-" + filepath.Base(env.WorkDir))
			namespace = strings.Map(func(r rune) rune {
				if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
					return r
				}
				return '-'
			}, namespace)
			env.Setenv("KEDGE_NAMESPACE", namespace)
			env.Setenv("KUBECONFIG", s.kubeconfig)
			env.Setenv("FEW", s.few)
			env.Setenv("GOOD", s.kubeconfig)
			if err := s.client.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}); err != nil {
				return err
			}
			return quietHome(env)
		},
	})
}

func newScriptServer(t *testing.T) *scriptServer {
	t.Helper()
	cluster := testbed.NewCluster(t, "1.36.3", testbed.NoControllers())
	err := fs.WalkDir(deploy.CRDs, "crds", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := fs.ReadFile(deploy.CRDs, path)
		if err != nil {
			return err
		}
		return cluster.ApplyYAML(t.Context(), string(data))
	})
	if err != nil {
		t.Fatal(err)
	}
	s := &scriptServer{config: cluster.Kedge(t)}
	if s.kubeconfig, err = cluster.Kubeconfig(s.config); err != nil {
		t.Fatal(err)
	}
	few, err := cluster.ServiceAccountConfigWithRules(t.Context(), "few", []rbacv1.PolicyRule{{APIGroups: []string{"kedge.dev"}, Resources: []string{"backups"}, Verbs: []string{"get", "list"}}})
	if err != nil {
		t.Fatal(err)
	}
	if s.few, err = cluster.Kubeconfig(few); err != nil {
		t.Fatal(err)
	}
	scheme := runtime.NewScheme()
	if err := errors.Join(corev1.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	if s.client, err = client.New(s.config, client.Options{Scheme: scheme}); err != nil {
		t.Fatal(err)
	}
	return s
}

// work runs a function beside a script until the script ends, and gives the script's context.
func work(ts *testscript.TestScript, fn func(ctx context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- fn(ctx) }()
	ts.Defer(func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			ts.Fatalf("beside the script: %v", err)
		}
	})
}

// patience is how long a script waits for something that must come.
const patience = 60 * time.Second

// poll calls fn until it says that it is done.
func poll(ctx context.Context, what string, fn func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		if done, err := fn(); done || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", what, ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func object(kind string) *unstructured.Unstructured {
	o := &unstructured.Unstructured{}
	o.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind(kind))
	return o
}

// play KIND NAME FILE… plays the server for an object: when it is there, its status becomes what the files hold, one after the other. NAME may
// be "any": the first object of the kind.
func (s *scriptServer) play(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) < 3 {
		ts.Fatalf("usage: play KIND NAME FILE…")
	}
	kind, name, namespace := args[0], args[1], ts.Getenv("KEDGE_NAMESPACE")
	var states []string
	for _, file := range args[2:] {
		states = append(states, ts.ReadFile(file))
	}
	work(ts, func(ctx context.Context) error {
		var o *unstructured.Unstructured
		err := poll(ctx, kind+" "+name, func() (done bool, err error) {
			o, err = s.find(ctx, kind, namespace, name)
			return o != nil, err
		})
		if err != nil {
			return err
		}
		for _, state := range states {
			var status map[string]any
			if err := json.Unmarshal([]byte(state), &status); err != nil {
				return fmt.Errorf("%s: %w", state, err)
			}
			patch, err := json.Marshal(map[string]any{"status": status})
			if err != nil {
				return err
			}
			if err := s.client.Status().Patch(ctx, o, client.RawPatch(types.MergePatchType, patch)); err != nil {
				return err
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(300 * time.Millisecond): // so that each state is seen
			}
		}
		return nil
	})
}

// runs SCHEDULE BACKUP FILE plays the server for the next run of a schedule that is asked for: it makes the backup, whose status the file holds.
func (s *scriptServer) runs(ts *testscript.TestScript, _ bool, args []string) {
	namespace, state := ts.Getenv("KEDGE_NAMESPACE"), ts.ReadFile(args[2])
	key := client.ObjectKey{Namespace: namespace, Name: args[0]}
	var before v1alpha1.Schedule
	ts.Check(s.client.Get(context.Background(), key, &before))
	work(ts, func(ctx context.Context) error {
		var now v1alpha1.Schedule
		err := poll(ctx, "a request for a run", func() (bool, error) {
			err := s.client.Get(ctx, key, &now)
			return now.Annotations[v1alpha1.RunRequestedAnnotation] != before.Annotations[v1alpha1.RunRequestedAnnotation], err
		})
		if err != nil {
			return err
		}
		b := &v1alpha1.Backup{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: args[1], Labels: map[string]string{v1alpha1.ScheduleLabel: args[0]}}}
		if err := s.client.Create(ctx, b); err != nil {
			return err
		}
		now.Status.LastBackup, now.Status.Active, now.Status.LastRunRequest = b.Name, b.Name, now.Annotations[v1alpha1.RunRequestedAnnotation]
		if err := s.client.Status().Update(ctx, &now); err != nil {
			return err
		}
		return s.client.Status().Patch(ctx, b, client.RawPatch(types.MergePatchType, []byte(`{"status":`+state+`}`)))
	})
}

// find gives an object of a kind; nil where there is none.
func (s *scriptServer) find(ctx context.Context, kind, namespace, name string) (*unstructured.Unstructured, error) {
	if name == "any" {
		list := &unstructured.UnstructuredList{}
		list.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind(kind + "List"))
		if err := s.client.List(ctx, list, client.InNamespace(namespace)); err != nil || len(list.Items) == 0 {
			return nil, err
		}
		return &list.Items[0], nil
	}
	o := object(kind)
	err := s.client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, o)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	return o, err
}

// answer FOLDER plays the server for downloads: each request is answered with the file FOLDER/TARGET-NAME, in parts of 40 bytes; where there is
// none, the request fails.
func (s *scriptServer) answer(ts *testscript.TestScript, _ bool, args []string) {
	folder, namespace := ts.MkAbs(args[0]), ts.Getenv("KEDGE_NAMESPACE")
	work(ts, func(ctx context.Context) error {
		for ctx.Err() == nil {
			var list v1alpha1.DownloadRequestList
			if err := s.client.List(ctx, &list, client.InNamespace(namespace)); err != nil {
				return err
			}
			for i := range list.Items {
				if list.Items[i].Status.Phase != "" {
					continue
				}
				if err := s.answerOne(ctx, folder, &list.Items[i]); err != nil {
					return err
				}
			}
			select {
			case <-ctx.Done():
			case <-time.After(50 * time.Millisecond):
			}
		}
		return nil
	})
}

func (s *scriptServer) answerOne(ctx context.Context, folder string, request *v1alpha1.DownloadRequest) error {
	const part = 40
	name := string(request.Spec.Target) + "-" + request.Spec.Name
	if request.Spec.Item != nil {
		name += "-" + request.Spec.Item.Name
	}
	data, err := os.ReadFile(filepath.Join(folder, name))
	request.Status.Phase = v1alpha1.RequestDone
	if err != nil {
		request.Status.Phase, request.Status.Message = v1alpha1.RequestFailed, "there is no "+name
		return s.client.Status().Update(ctx, request)
	}
	rest := data[request.Spec.Offset:]
	if len(rest) > part {
		next := request.Spec.Offset + part
		rest, request.Status.NextOffset = rest[:part], &next
	}
	recipient, err := age.ParseX25519Recipient(request.Spec.Recipient)
	if err != nil {
		return err
	}
	var sealed bytes.Buffer
	w, err := age.Encrypt(&sealed, recipient)
	if err != nil {
		return err
	}
	z, err := zstd.NewWriter(w)
	if err != nil {
		return err
	}
	if _, err := z.Write(rest); err != nil {
		return err
	}
	if err := errors.Join(z.Close(), w.Close()); err != nil {
		return err
	}
	request.Status.Data = sealed.Bytes()
	return s.client.Status().Update(ctx, request)
}

// serve starts Kedge's server for the script's namespace; it ends with the script.
func (s *scriptServer) serve(ts *testscript.TestScript, _ bool, _ []string) {
	spool := ts.MkAbs(".spool")
	ts.Check(os.MkdirAll(spool, 0o700))
	opts := server.Options{
		Namespace: ts.Getenv("KEDGE_NAMESPACE"), ClusterName: "blue", Version: version, MetricsAddress: "0", HealthAddress: "0",
		SpoolDir: spool, Log: logr.Discard(), Now: time.Now,
	}
	work(ts, func(ctx context.Context) error { return server.Run(ctx, s.config, opts) })
}

// field KIND NAME PATH VALUE expects a field of an object; with ! that it has another value or none. PATH is spec.cancel, metadata.annotations.x.
func (s *scriptServer) field(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 4 {
		ts.Fatalf("usage: field KIND NAME PATH VALUE")
	}
	o, err := s.find(context.Background(), args[0], ts.Getenv("KEDGE_NAMESPACE"), args[1])
	ts.Check(err)
	if o == nil {
		ts.Fatalf("there is no %s %s", args[0], args[1])
	}
	got, _, err := unstructured.NestedFieldNoCopy(o.Object, strings.Split(args[2], ".")...)
	ts.Check(err)
	data, err := json.Marshal(got)
	ts.Check(err)
	if (string(data) == args[3]) == neg {
		ts.Fatalf("%s is %s, want %s", args[2], data, args[3])
	}
}

// await KIND NAME waits until an object is there; with ! until it is gone.
func (s *scriptServer) await(ts *testscript.TestScript, neg bool, args []string) {
	err := poll(context.Background(), strings.Join(args, " "), func() (bool, error) {
		o, err := s.find(context.Background(), args[0], ts.Getenv("KEDGE_NAMESPACE"), args[1])
		return (o != nil) != neg, err
	})
	ts.Check(err)
}

// TestModeIsChosen holds what is said about --local against where commands then work.
func TestModeIsChosen(t *testing.T) {
	yes, no := true, false
	location := []v1alpha1.BackupStorageLocation{{ObjectMeta: metav1.ObjectMeta{Name: "x"}}}
	for _, c := range []struct {
		name string
		flag string
		env  string
		file config
		want mode
	}{
		{"nothing is said", "", "", config{}, modeUnsaid},
		{"a location of this machine", "", "", config{Locations: location}, modeLocal},
		{"the file says so", "", "", config{Local: &yes}, modeLocal},
		{"the file says no", "", "", config{Local: &no, Locations: location}, modeServer},
		{"the environment goes before the file", "", "0", config{Local: &yes}, modeServer},
		{"the flag goes before the environment", "true", "0", config{Local: &no}, modeLocal},
		{"the flag says no", "false", "1", config{Local: &yes}, modeServer},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := testApp()
			a.env.Getenv = func(name string) string { return map[string]string{"KEDGE_LOCAL": c.env}[name] }
			if c.flag != "" {
				if err := a.flags.local.Set(c.flag); err != nil {
					t.Fatal(err)
				}
			}
			if got, err := a.mode(&c.file); err != nil || got != c.want {
				t.Errorf("the mode is %d (%v), want %d", got, err, c.want)
			}
		})
	}
}

// TestCommandsAreNamedAsCalled checks that texts name commands as kubectl's users call them, and leave everything else alone.
func TestCommandsAreNamedAsCalled(t *testing.T) {
	a := testApp()
	a.env.Plugin = true
	for text, want := range map[string]string{
		`"kedge backup get" lists them`:        `"kubectl kedge backup get" lists them`,
		"  kedge restore create --from-backup": "  kubectl kedge restore create --from-backup",
		"go on with: kedge restore resume x":   "go on with: kubectl kedge restore resume x",
		"a kedge server":                       "a kedge server",
		"kedge/config.yaml":                    "kedge/config.yaml",
	} {
		if got := a.called(text); got != want {
			t.Errorf("%q becomes %q, want %q", text, got, want)
		}
	}
	root := a.rootCommand()
	for _, cmd := range root.Commands() {
		if strings.Contains(cmd.Example, "  kedge ") {
			t.Errorf("%s: an example calls kedge and not kubectl kedge", cmd.Name())
		}
	}
	if cmd, _, err := root.Find([]string{"backup", "get"}); err != nil || cmd.CommandPath() != "kubectl kedge backup get" {
		t.Errorf("the command is called %q (%v)", cmd.CommandPath(), err)
	}
}
