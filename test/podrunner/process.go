//go:build unix

package podrunner

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	terminate = syscall.SIGTERM
	// What a kubelet keeps of a termination message, and of a log in its place.
	maxMessage = 4096
	maxLog     = 2048
)

// errNotYet means that a pod waits for something: its claim is not bound.
var errNotYet = errors.New("not yet")

// process is a pod that is run.
type process struct {
	pod     *corev1.Pod
	cmd     *exec.Cmd
	log     *bytes.Buffer
	message string // the file of its termination message
}

// prepare makes what a pod's container finds, and its command. The container's paths are replaced by those of this machine, in its arguments and
// environment, and in the files of the Secrets that it mounts.
func (r *Runner) prepare(ctx context.Context, pod *corev1.Pod) (*process, error) {
	if n := len(pod.Spec.Containers) + len(pod.Spec.InitContainers); n != 1 {
		return nil, fmt.Errorf("it has %d containers; one can be run", n)
	}
	c := &pod.Spec.Containers[0]
	program, ok := r.Images[c.Image]
	if !ok {
		return nil, fmt.Errorf("no program stands for image %q", c.Image)
	}
	dir, err := os.MkdirTemp(r.dir, "pod-")
	if err != nil {
		return nil, err
	}
	p := &process{pod: pod, log: &bytes.Buffer{}, message: filepath.Join(dir, "termination-log")}
	if err := os.WriteFile(p.message, nil, 0o600); err != nil {
		return nil, err
	}
	paths := map[string]string{c.TerminationMessagePath: p.message}
	for _, m := range c.VolumeMounts {
		for i := range pod.Spec.Volumes {
			if v := &pod.Spec.Volumes[i]; v.Name == m.Name {
				if paths[m.MountPath], err = r.mount(ctx, pod.Namespace, v, m.MountPath, filepath.Join(dir, v.Name)); err != nil {
					return nil, fmt.Errorf("volume %s: %w", v.Name, err)
				}
			}
		}
	}
	p.cmd = exec.Command(program, c.Command...)
	for _, arg := range c.Args {
		p.cmd.Args = append(p.cmd.Args, here(paths, arg))
	}
	p.cmd.Env = []string{"PATH=/usr/bin:/bin", "HOME=" + dir}
	if tmp := paths["/tmp"]; tmp != "" {
		p.cmd.Env = append(p.cmd.Env, "TMPDIR="+tmp)
	}
	for _, e := range c.Env {
		p.cmd.Env = append(p.cmd.Env, e.Name+"="+here(paths, e.Value))
	}
	p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = dir, p.log, p.log
	return p, nil
}

// here replaces a path of the container that a text, or a flag's value in it, is or begins with.
func here(paths map[string]string, text string) string {
	name, value, flag := strings.Cut(text, "=")
	if !flag || !strings.HasPrefix(name, "-") {
		name, value, flag = "", text, false
	}
	for path, on := range paths {
		if rest, ok := strings.CutPrefix(value, path); ok && (rest == "" || rest[0] == '/') {
			value = on + rest
			break
		}
	}
	if !flag {
		return value
	}
	return name + "=" + value
}

// mount gives the folder of a volume.
func (r *Runner) mount(ctx context.Context, namespace string, v *corev1.Volume, path, dir string) (string, error) {
	switch {
	case v.PersistentVolumeClaim != nil:
		return r.claimed(ctx, namespace, v.PersistentVolumeClaim.ClaimName)
	case v.EmptyDir != nil:
		return dir, os.Mkdir(dir, 0o700)
	case v.Secret != nil:
		secret, err := r.Clients.CoreV1().Secrets(namespace).Get(ctx, v.Secret.SecretName, metav1.GetOptions{})
		if err != nil {
			return "", err
		}
		if err := os.Mkdir(dir, 0o700); err != nil {
			return "", err
		}
		for name, data := range secret.Data {
			text := strings.ReplaceAll(string(data), path+"/", dir+"/")
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o400); err != nil {
				return "", err
			}
		}
		return dir, nil
	}
	return "", errors.New("it is of a kind that cannot be mounted here")
}

// claimed gives the folder of the volume that a claim is bound to.
func (r *Runner) claimed(ctx context.Context, namespace, name string) (string, error) {
	claim, err := r.Clients.CoreV1().PersistentVolumeClaims(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return "", err
	}
	if claim.Status.Phase != corev1.ClaimBound {
		return "", errNotYet
	}
	pv, err := r.Clients.CoreV1().PersistentVolumes().Get(ctx, claim.Spec.VolumeName, metav1.GetOptions{})
	if err != nil {
		return "", err
	}
	switch s := &pv.Spec; {
	case s.HostPath != nil:
		return s.HostPath.Path, nil
	case s.CSI != nil && r.Folder != nil:
		if folder := r.Folder(s.CSI.VolumeHandle); folder != "" {
			return folder, nil
		}
	}
	return "", fmt.Errorf("nothing on this machine stands for PersistentVolume %s", pv.Name)
}
