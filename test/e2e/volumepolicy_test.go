//go:build unix

package e2e_test

import (
	"encoding/json"
	"maps"
	mathrand "math/rand/v2"
	"strings"
	"testing"

	"kedge.dev/kedge/test/aws"
)

// allowed are the actions of EC2, EBS, EFS and KMS in the policy that is printed for some flags.
func (w *volumeWorld) allowed(t *testing.T, flags ...string) map[string]bool {
	t.Helper()
	var policy struct {
		Statement []struct{ Action []string }
	}
	if err := json.Unmarshal([]byte(w.must(t, append([]string{"aws", "policy", "--bucket", w.bucket.Name}, flags...)...)), &policy); err != nil {
		t.Fatal(err)
	}
	actions := map[string]bool{}
	for _, s := range policy.Statement {
		for _, action := range s.Action {
			if !strings.HasPrefix(action, "s3:") {
				actions[action] = true
			}
		}
	}
	return actions
}

// follows fails where a call was made that the policy does not allow, and gives what was not called.
func (w *volumeWorld) follows(t *testing.T, what string, allowed map[string]bool) (unused map[string]bool) {
	t.Helper()
	unused = map[string]bool{}
	for action := range allowed {
		unused[action] = true
	}
	for op := range w.cloud.Usage().Calls {
		service := "ec2:"
		if strings.HasSuffix(op, "SnapshotBlock") || strings.HasSuffix(op, "Blocks") || op == "StartSnapshot" || op == "CompleteSnapshot" {
			service = "ebs:"
		}
		if op == "AssumeRole" {
			service = "sts:"
		}
		if strings.Contains(op, "AccessPoint") {
			service = "elasticfilesystem:"
		}
		if !allowed[service+op] {
			t.Errorf("%s: the policy does not allow %s", what, service+op)
		}
		delete(unused, service+op)
	}
	w.cloud.ResetUsage()
	return unused
}

// TestVolumePolicyIsEnough takes volumes by snapshots and by copies, restores and deletes them, and holds every call against the policy that is
// printed for it.
func TestVolumePolicyIsEnough(t *testing.T) {
	w := newVolumeWorld(t)
	r := mathrand.New(mathrand.NewPCG(4, 5))
	machine, _ := w.cloud.CreateInstance("eu-west-1a")
	for claim, handle := range map[string]string{
		"data": w.cloud.CreateVolume(aws.VolumeSpec{Instance: machine}), "logs": w.cloud.CreateVolume(aws.VolumeSpec{Instance: machine}), "spare": w.cloud.CreateVolume(aws.VolumeSpec{}),
	} {
		w.scribble(t, r, handle, 10)
		w.claim(t, "shop", claim, handle)
		w.handleOf(t, "shop", claim)
	}
	w.cloud.ResetUsage()
	w.must(t, "backup", "create", "snapshots", "--volumes", "snapshot", "--kubeconfig", w.kubeconfig)
	w.must(t, "restore", "create", "--from-backup", "snapshots", "--include-namespaces", "shop", "--namespace-mappings", "shop:one", "--kubeconfig", w.kubeconfig)
	w.must(t, "backup", "delete", "snapshots", "--yes")
	unused := w.follows(t, "snapshots", w.allowed(t, "--volumes", "snapshot"))
	if delete(unused, "ec2:DeleteVolume"); len(unused) > 0 {
		t.Errorf("nothing calls %v", unused)
	}

	w.must(t, "backup", "create", "first", "--volumes", "copy", "--kubeconfig", w.kubeconfig)
	w.must(t, "backup", "create", "second", "--volumes", "copy", "--kubeconfig", w.kubeconfig)
	w.must(t, "restore", "create", "--from-backup", "second", "--include-namespaces", "shop", "--namespace-mappings", "shop:two", "--kubeconfig", w.kubeconfig)
	w.must(t, "backup", "delete", "first", "--yes")
	unused = w.follows(t, "copies", w.allowed(t, "--volumes", "copy"))
	maps.DeleteFunc(unused, func(action string, _ bool) bool { return strings.HasPrefix(action, "elasticfilesystem:") }) // TestVolumeFilesOfEFS has those
	if delete(unused, "ec2:DeleteVolume"); len(unused) > 0 {
		t.Errorf("nothing calls %v", unused)
	}

	w.must(t, "restore", "create", "--from-backup", "second", "--include-namespaces", "shop", "--namespace-mappings", "shop:three", "--kubeconfig", w.kubeconfig)
	w.follows(t, "restoring only", w.allowed(t, "--volumes", "copy", "--read-only"))
}
