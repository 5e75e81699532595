package restore

import (
	"context"
	"time"

	"kedge.dev/kedge/internal/kube"
	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/plugins/hooks"
	"kedge.dev/kedge/volume/mover"
	"kedge.dev/kedge/volume/repository"
)

// Engine restores from one source into one cluster. Its fields do not change while it works.
type Engine struct {
	// Kube is the cluster that is restored into.
	Kube *kube.Client
	// Look is who reads the target's identity, APIs and namespaces for the plan; nil is Kube. It is another where Kube is an account that
	// may do no more than it must.
	Look *kube.Client
	// OwnNamespace is where Kedge itself runs in the target; "" where it does not. What is there is not changed, nor are its workloads
	// and rights doubled.
	OwnNamespace string
	// Source is what is restored.
	Source Source
	// Journal makes a killed run resumable; nil keeps none.
	Journal Journal
	// Providers make volumes with the data that the source has of them.
	Providers []plugins.VolumeProvider
	// Unconfigured is why there are fewer providers than there could be; nil where there are all. It is told of volumes that none can make.
	Unconfigured error
	// Repository opens where copies of volumes are; nil means that there are none.
	Repository func(context.Context) (*repository.Repository, error)
	// Mover has copies of files restored into volumes; nil means that there is no way to.
	Mover *mover.Mover
	// Exec runs hooks in pods, as the account of Kube; nil means that nobody can.
	Exec hooks.Executor
	// Reports keeps the report; nil keeps it nowhere.
	Reports ReportSink
	// TargetName is what people call the target.
	TargetName string
	// Version is Kedge's own, for the journal.
	Version string
	// Now is the clock.
	Now func() time.Time
	// Concurrency bounds the objects in work at once; 0 means 64. How many requests are in flight is up to Kube's own limiter.
	Concurrency int
	// Events hears what happens.
	Events Events
}

// Events are called from several goroutines at once; each may be nil.
type Events struct {
	// Progress is called after every object.
	Progress func(Progress)
	// Remark is called for what a person should see at once: refusals, and what the restore waits for.
	Remark func(Entry)
}

// Progress says how far a run is.
type Progress struct {
	// Step is the name of the step whose object was just finished.
	Step string
	// Done, Failed and Waiting are objects; Failed are part of Done.
	Done, Total, Failed, Waiting int
}

func (e *Engine) now() time.Time { return e.Now() }

func (e *Engine) look() *kube.Client {
	if e.Look != nil {
		return e.Look
	}
	return e.Kube
}

func (e *Engine) concurrency() int {
	if e.Concurrency > 0 {
		return e.Concurrency
	}
	return 64
}
