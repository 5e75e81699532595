package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"kedge.dev/kedge/test/faults"
	"kedge.dev/kedge/test/testbed"
)

// TestPolicyIsEnough runs a location's whole life (made, checked, backed up to, verified, restored from, deleted from) through a proxy that
// judges every request by the policy that "kedge aws policy" prints for it, as IAM would.
func TestPolicyIsEnough(t *testing.T) {
	cluster := testbed.SharedCluster(t, "1.36.3")
	kubeconfig, err := cluster.Kubeconfig(cluster.Kedge(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := cluster.ApplyYAML(t.Context(), "apiVersion: v1\nkind: Namespace\nmetadata: {name: policy}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, namespace: policy}\n"); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		bucket []testbed.BucketOption
		policy []string
		create []string
		delete int // exit code
	}{
		{"plain", nil, []string{"--no-versions"}, nil, exitOK},
		{"versions", []testbed.BucketOption{testbed.Versioned()}, nil, nil, exitOK},
		{"lock", []testbed.BucketOption{testbed.Locked()}, []string{"--object-lock"}, []string{"--object-lock"}, exitRefused},
	} {
		t.Run(c.name, func(t *testing.T) {
			bucket := testbed.NewBucket(t, c.bucket...)
			j := &judge{bucket: bucket.Name, prefix: "some/where"}
			proxy := faults.NewProxy(t, bucket.Endpoint, nil, faults.Options{Observe: j.see})
			dir := t.TempDir()
			writeFile(t, filepath.Join(dir, "credentials"), fmt.Appendf(nil, "[default]\naws_access_key_id = %s\naws_secret_access_key = %s\n", bucket.AccessKey, bucket.SecretKey))
			identity := ""
			run := func(code int, args ...string) {
				t.Helper()
				cmd := exec.CommandContext(t.Context(), "kedge", args...)
				cmd.Dir = dir
				cmd.Env = []string{
					"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "TMPDIR=" + dir, "AWS_EC2_METADATA_DISABLED=true", "KUBECONFIG=" + kubeconfig, "KEDGE_LOCAL=true",
					"KEDGE_CONFIG=" + filepath.Join(dir, "config.yaml"), "KEDGE_STATE_DIR=" + filepath.Join(dir, "state"), "KEDGE_AGE_IDENTITY_FILE=" + identity,
				}
				if out, err := cmd.CombinedOutput(); cmd.ProcessState.ExitCode() != code {
					t.Fatalf("kedge %s: %v\n%s", strings.Join(args, " "), err, out)
				}
			}
			place := []string{"--s3-bucket", bucket.Name, "--prefix", j.prefix, "--endpoint", proxy.URL, "--path-style", "--region", bucket.Region, "--credentials-file", filepath.Join(dir, "credentials")}
			j.follow(t, c.policy...)
			run(exitOK, slices.Concat([]string{"location", "create", "main", "--generate-age-identity", "identity"}, place, c.create)...)
			identity = filepath.Join(dir, "identity")
			run(exitOK, "location", "check", "main")
			run(exitOK, "backup", "create", "one", "--include-namespaces", "policy", "--ttl", "1h")
			run(exitOK, "backup", "verify", "one", "--deep")
			run(exitOK, "restore", "create", "back-"+c.name, "--from-backup", "one", "--namespace-mappings", "policy:policy-"+c.name)
			run(c.delete, "backup", "delete", "one", "--yes")
			j.check(t, "")

			// What is only restored from needs less.
			run(exitOK, "backup", "create", "two", "--include-namespaces", "policy", "--ttl", "1h")
			run(exitOK, "location", "delete", "main")
			j.follow(t, append(c.policy, "--read-only")...)
			run(exitOK, slices.Concat([]string{"location", "add", "copy", "--read-only"}, place)...)
			run(exitOK, "backup", "get")
			run(exitOK, "backup", "verify", "two")
			run(exitOK, "restore", "create", "again-"+c.name, "--from-backup", "two", "--namespace-mappings", "policy:policy-again-"+c.name)
			j.check(t, "reading only: ")
		})
	}
}

// judge holds requests against a policy.
type judge struct {
	bucket, prefix string

	mu     sync.Mutex
	allows map[string]string // resource by action
	denied []string
	used   map[string]bool
}

// follow has the judge use the policy that is printed for some flags.
func (j *judge) follow(t *testing.T, flags ...string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "kedge", slices.Concat([]string{"aws", "policy", "--bucket", j.bucket, "--prefix", j.prefix}, flags)...).Output()
	if err != nil {
		t.Fatal(err)
	}
	var policy struct {
		Statement []struct {
			Action   []string
			Resource string
		}
	}
	if err := json.Unmarshal(out, &policy); err != nil {
		t.Fatal(err)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.allows, j.denied, j.used = map[string]string{}, nil, map[string]bool{}
	for _, s := range policy.Statement {
		for _, action := range s.Action {
			j.allows[action] = strings.TrimPrefix(s.Resource, "arn:aws:s3:::")
		}
	}
}

// see judges a request: the actions that IAM asks for, on the resource that it is about.
func (j *judge) see(r *http.Request) {
	resource := strings.Trim(r.URL.Path, "/")
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, action := range actionsOf(r) {
		j.used[action] = true
		pattern, ok := j.allows[action]
		below, wild := strings.CutSuffix(pattern, "*")
		if action == "s3:GetBucketObjectLockConfiguration" && !ok {
			continue // a check asks, and takes no for an answer where the location needs no lock
		}
		if !ok || (wild && !strings.HasPrefix(resource, below)) || (!wild && resource != pattern) {
			j.denied = append(j.denied, fmt.Sprintf("%s on %s (%s %s)", action, resource, r.Method, r.URL))
		}
	}
}

// check fails where a request was denied, and where so little was asked for that the test shows nothing.
func (j *judge) check(t *testing.T, when string) {
	t.Helper()
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, d := range j.denied {
		t.Errorf("%sthe policy denies %s", when, d)
	}
	if len(j.used) < 3 {
		t.Errorf("%sonly %v were asked for", when, j.used)
	}
	t.Logf("%s%d of %d actions were asked for", when, len(j.used), len(j.allows))
}

// actionsOf are the IAM actions that a request of S3 needs.
func actionsOf(r *http.Request) []string {
	q := r.URL.Query()
	onBucket := !strings.Contains(strings.Trim(r.URL.Path, "/"), "/")
	versioned := q.Has("versionId")
	switch {
	case onBucket && q.Has("versioning"):
		return []string{"s3:GetBucketVersioning"}
	case onBucket && q.Has("versions"):
		return []string{"s3:ListBucketVersions"}
	case onBucket && q.Has("object-lock"):
		return []string{"s3:GetBucketObjectLockConfiguration"}
	case onBucket && r.Method == http.MethodGet:
		return []string{"s3:ListBucket"}
	case r.Method == http.MethodDelete && q.Has("uploadId"):
		return []string{"s3:AbortMultipartUpload"}
	case r.Method == http.MethodDelete && versioned:
		return []string{"s3:DeleteObjectVersion"}
	case r.Method == http.MethodDelete:
		return []string{"s3:DeleteObject"}
	case (r.Method == http.MethodGet || r.Method == http.MethodHead) && versioned:
		return []string{"s3:GetObjectVersion"}
	case r.Method == http.MethodGet, r.Method == http.MethodHead:
		return []string{"s3:GetObject"}
	case r.Method == http.MethodPut || r.Method == http.MethodPost:
		if r.Header.Get("X-Amz-Object-Lock-Mode") != "" {
			return []string{"s3:PutObject", "s3:PutObjectRetention"}
		}
		return []string{"s3:PutObject"}
	}
	return []string{"unknown: " + r.Method}
}
