//go:build linux

package node_test

import (
	"errors"
	"os/exec"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kedge.dev/kedge/test/testbed"
)

// TestInstallSaysWhyNothingRuns: where the server's pods do not come to run, "kedge install --wait" ends with what the kubelet, or the server itself,
// says of it.
func TestInstallSaysWhyNothingRuns(t *testing.T) {
	w := &installed{world: newWorld(t), dir: t.TempDir()}
	image := testbed.Image{Name: kedgeImage, User: "65532:65532", Entrypoint: []string{"/usr/local/bin/kedge"}, Files: map[string]string{"/usr/local/bin/kedge": kedgeBinary}}
	if err := w.cluster.Node().Import(t.Context(), image); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		set, want string
	}{
		"no Secret": {"extraVolumes[0].name=ca,extraVolumes[0].secret.secretName=absent,extraVolumeMounts[0].name=ca,extraVolumeMounts[0].mountPath=/ca", `secret "absent" not found`},
		"a crash":   {"server.extraArgs={--no-such-flag}", "unknown flag: --no-such-flag"},
	} {
		t.Run(name, func(t *testing.T) {
			args := []string{"install", "--image", kedgeImage, "--set", "replicas=1", "--wait", "--wait-timeout", "20s"}
			for set := range strings.SplitSeq(c.set, ",") {
				args = append(args, "--set", set)
			}
			out, err := w.command(t.Context(), args...).CombinedOutput()
			if _, exited := errors.AsType[*exec.ExitError](err); !exited || !strings.Contains(string(out), c.want) {
				t.Errorf("install: %v\n%s", err, out)
			}
			w.kedge(t, "uninstall", "--yes", "--delete-crds")
			if err := w.clients.CoreV1().Pods(kedgeNamespace).DeleteCollection(t.Context(), metav1.DeleteOptions{}, metav1.ListOptions{}); err != nil {
				t.Fatal(err)
			}
		})
	}
}
