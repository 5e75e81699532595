package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"kedge.dev/kedge/test/testbed"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"kedge": main, "kubectl-kedge": main})
}

// TestScripts runs the scripts that need no cluster.
func TestScripts(t *testing.T) {
	kms := startKMS(t)
	testscript.Run(t, testscript.Params{
		Dir: "testdata", Cmds: scriptCommands, RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("KMS", kms)
			return quietHome(env)
		},
	})
}

// TestClusterScripts runs the scripts that work on a real API server, each in an order of its own and with names of its own.
func TestClusterScripts(t *testing.T) {
	cluster := testbed.SharedCluster(t, "1.36.3")
	kubeconfig, err := cluster.Kubeconfig(cluster.Kedge(t))
	if err != nil {
		t.Fatal(err)
	}
	commands := map[string]func(*testscript.TestScript, bool, []string){
		// apply FILE creates what the file holds in the cluster.
		"apply": func(ts *testscript.TestScript, _ bool, args []string) {
			for _, file := range args {
				if err := cluster.ApplyYAML(t.Context(), ts.ReadFile(file)); err != nil {
					ts.Fatalf("apply %s: %v", file, err)
				}
			}
		},
		// bound NAMESPACE CLAIM waits until a claim is bound to its volume.
		"bound": func(ts *testscript.TestScript, _ bool, args []string) {
			clients, err := kubernetes.NewForConfig(cluster.Master())
			ts.Check(err)
			for deadline := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
				claim, err := clients.CoreV1().PersistentVolumeClaims(args[0]).Get(t.Context(), args[1], metav1.GetOptions{})
				ts.Check(err)
				if claim.Status.Phase == corev1.ClaimBound {
					return
				}
				if time.Now().After(deadline) {
					ts.Fatalf("claim %s/%s is %s", args[0], args[1], claim.Status.Phase)
				}
			}
		},
	}
	maps.Copy(commands, scriptCommands)
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "cluster"), Cmds: commands, RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("KUBECONFIG", kubeconfig)
			return quietHome(env)
		},
	})
}

// quietHome gives a script a home of its own, so that nothing of the machine's is read or changed.
func quietHome(env *testscript.Env) error {
	env.Setenv("HOME", env.WorkDir)
	env.Setenv("KEDGE_CONFIG", filepath.Join(env.WorkDir, "config.yaml"))
	env.Setenv("KEDGE_STATE_DIR", filepath.Join(env.WorkDir, "state"))
	env.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	env.Setenv("TMPDIR", filepath.Join(env.WorkDir, ".tmp"))
	return os.MkdirAll(filepath.Join(env.WorkDir, ".tmp"), 0o700)
}

// scriptCommands are what scripts can do beyond what testscript brings.
var scriptCommands = map[string]func(*testscript.TestScript, bool, []string){
	// exits CODE PROGRAM ARGS… runs a program and expects its exit code.
	"exits": func(ts *testscript.TestScript, neg bool, args []string) {
		if neg || len(args) < 2 {
			ts.Fatalf("usage: exits CODE PROGRAM [ARG…]")
		}
		want, err := strconv.Atoi(args[0])
		if err != nil {
			ts.Fatalf("exits: %v", err)
		}
		got := 0
		err = ts.Exec(args[1], args[2:]...)
		if failed, ok := errors.AsType[*exec.ExitError](err); ok {
			got = failed.ExitCode()
		} else if err != nil {
			ts.Fatalf("exits: %v", err)
		}
		if got != want {
			ts.Fatalf("exit code %d, want %d", got, want)
		}
	},
	// age DURATION FILE… dates files, and those in folders, so long back: what was just written is not taken for unchanged.
	"age": func(ts *testscript.TestScript, _ bool, args []string) {
		back, err := time.ParseDuration(args[0])
		ts.Check(err)
		for _, name := range args[1:] {
			ts.Check(filepath.WalkDir(ts.MkAbs(name), func(path string, _ fs.DirEntry, err error) error {
				if err != nil {
					return err
				}
				then := time.Now().Add(-back)
				return os.Chtimes(path, then, then)
			}))
		}
	},
	// jsonfield VARIABLE NAME FILE sets a variable to a field of the JSON object in a file.
	"jsonfield": func(ts *testscript.TestScript, _ bool, args []string) {
		var object map[string]any
		ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[2])), &object))
		ts.Setenv(args[0], fmt.Sprint(object[args[1]]))
	},
	// mode OCTAL FILE expects the permissions of a file.
	"mode": func(ts *testscript.TestScript, _ bool, args []string) {
		info, err := os.Stat(ts.MkAbs(args[1]))
		if err != nil {
			ts.Fatalf("mode: %v", err)
		}
		if got := strconv.FormatUint(uint64(info.Mode().Perm()), 8); got != args[0] {
			ts.Fatalf("%s has mode %s, want %s", args[1], got, args[0])
		}
	},
}
