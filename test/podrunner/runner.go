//go:build unix

// Package podrunner stands in for a scheduler and a kubelet where tests have a control plane without nodes: it runs the pods of one namespace as
// processes of this machine, and tells the API server how they end, so that the Job controller does the rest. test/README.md says what it does
// not prove.
package podrunner

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// Options say what a Runner runs. All are needed.
type Options struct {
	Clients   kubernetes.Interface
	Namespace string
	// Images are the programs on this machine that containers of an image run, as their entry points.
	Images map[string]string
	// Folder is what a CSI volume of a handle has in it; "" where it has nothing here. A hostPath volume is the folder of its path.
	Folder func(handle string) string
}

// Runner runs pods.
type Runner struct {
	Options
	tb  testing.TB
	dir string

	mu   sync.Mutex
	runs []Run
}

// Run is one container that has ended.
type Run struct {
	Pod, Message, Log string
	Args              []string
	ExitCode          int
}

// lookEvery is how often the API server is asked: pods of tests are few.
const lookEvery = 100 * time.Millisecond

// Start runs pods until the test ends.
func Start(t testing.TB, opts Options) *Runner {
	t.Helper()
	r := &Runner{Options: opts, tb: t, dir: t.TempDir()}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		r.loop(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	return r
}

// Runs are the containers that have ended, in the order in which they did.
func (r *Runner) Runs() []Run {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]Run(nil), r.runs...)
}

// loop starts a process for each pod that can run, and ends with all of them.
func (r *Runner) loop(ctx context.Context) {
	var all sync.WaitGroup
	defer all.Wait()
	known := map[string]bool{}
	for ctx.Err() == nil {
		pods, err := r.Clients.CoreV1().Pods(r.Namespace).List(ctx, metav1.ListOptions{})
		if err != nil && ctx.Err() == nil {
			r.tb.Errorf("pod runner: %v", err)
			return
		}
		for i := range pods.Items {
			pod := &pods.Items[i]
			if known[string(pod.UID)] || pod.Status.Phase != corev1.PodPending || pod.DeletionTimestamp != nil {
				continue
			}
			p, err := r.prepare(ctx, pod)
			if errors.Is(err, errNotYet) {
				continue
			}
			known[string(pod.UID)] = true
			if err != nil {
				r.tb.Errorf("pod runner: pod %s: %v", pod.Name, err)
				continue
			}
			all.Go(func() {
				if err := r.run(ctx, p); err != nil && ctx.Err() == nil {
					r.tb.Errorf("pod runner: pod %s: %v", pod.Name, err)
				}
			})
		}
		sleep(ctx, lookEvery)
	}
}

func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// run runs a pod's process and reports it. A pod that is deleted is told to end.
func (r *Runner) run(ctx context.Context, p *process) error {
	if err := r.status(ctx, p, corev1.PodRunning, corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.Now()}}); err != nil {
		return err
	}
	if err := p.cmd.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- p.cmd.Wait() }()
	for told := false; ; {
		select {
		case err := <-ended:
			return r.end(ctx, p, err)
		case <-time.After(lookEvery):
		}
		if ctx.Err() != nil {
			_ = p.cmd.Process.Kill()
			continue
		}
		pod, err := r.Clients.CoreV1().Pods(r.Namespace).Get(ctx, p.pod.Name, metav1.GetOptions{})
		if gone := apierrors.IsNotFound(err); !told && (gone || err == nil && (pod.DeletionTimestamp != nil || pod.UID != p.pod.UID)) {
			told = true
			_ = p.cmd.Process.Signal(terminate)
		}
	}
}

// end reports how a process ended.
func (r *Runner) end(ctx context.Context, p *process, _ error) error {
	message, err := os.ReadFile(p.message)
	if err != nil {
		return err
	}
	if len(message) > maxMessage {
		message = message[:maxMessage]
	}
	code := p.cmd.ProcessState.ExitCode()
	log := p.log.String()
	r.mu.Lock()
	r.runs = append(r.runs, Run{Pod: p.pod.Name, Message: string(message), Log: log, Args: p.pod.Spec.Containers[0].Args, ExitCode: code})
	r.mu.Unlock()
	if len(message) == 0 && code != 0 && p.pod.Spec.Containers[0].TerminationMessagePolicy == corev1.TerminationMessageFallbackToLogsOnError {
		message = []byte(log[max(0, len(log)-maxLog):])
	}
	phase, reason := corev1.PodSucceeded, "Completed"
	if code != 0 {
		phase, reason = corev1.PodFailed, "Error"
	}
	return r.status(ctx, p, phase, corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
		ExitCode: int32(code), Reason: reason, Message: string(message), FinishedAt: metav1.Now(),
	}})
}

// status writes a pod's status, unless the pod is gone.
func (r *Runner) status(ctx context.Context, p *process, phase corev1.PodPhase, state corev1.ContainerState) error {
	for {
		pod, err := r.Clients.CoreV1().Pods(r.Namespace).Get(ctx, p.pod.Name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) || err == nil && pod.UID != p.pod.UID {
			return nil
		}
		if err != nil {
			return err
		}
		now := metav1.Now()
		c := &pod.Spec.Containers[0]
		pod.Status.Phase, pod.Status.StartTime = phase, &now
		pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: c.Name, Image: c.Image, State: state, Ready: state.Running != nil}}
		_, err = r.Clients.CoreV1().Pods(r.Namespace).UpdateStatus(ctx, pod, metav1.UpdateOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		if !apierrors.IsConflict(err) {
			if err != nil {
				return fmt.Errorf("write the status: %w", err)
			}
			return nil
		}
	}
}
