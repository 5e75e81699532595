package restore

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"

	"kedge.dev/kedge/internal/rawjson"
)

// revisionAnnotation is where a Deployment's controller counts its ReplicaSets.
const revisionAnnotation = "deployment.kubernetes.io/revision"

// leaveCurrent leaves out, of the ReplicaSets or ControllerRevisions of each owner, the current one: its controller makes that
// again, under another name where the target's version hashes templates otherwise, so that both would be there. The current one
// has the highest revision. Objects are read only where an owner has several.
func (b *builder) leaveCurrent(ctx context.Context, g *graph) error {
	siblings := map[int32][]int32{}
	for i := range g.items {
		if g.items[i].flags&flagHistory == 0 {
			continue
		}
		for _, l := range g.owners(int32(i)) {
			if l.controller {
				siblings[l.owner] = append(siblings[l.owner], int32(i))
			}
		}
	}
	var several []int32
	for _, group := range siblings {
		if len(group) > 1 {
			several = append(several, group...)
		}
	}
	revisions := make(map[int32]int64, len(several))
	err := b.plan.read(ctx, several, func(i int32, raw []byte) (err error) {
		revisions[i], err = revisionOf(raw)
		return err
	})
	if err != nil {
		return fmt.Errorf("read the history of rollouts: %w", err)
	}
	for _, group := range siblings {
		current := group[0]
		for _, i := range group {
			if revisions[i] > revisions[current] {
				current = i
			}
		}
		g.items[current].state, g.items[current].reason = Skipped, Remade
		g.items[current].flags &^= flagHistory
	}
	return nil
}

// revisionOf reads the revision of a ControllerRevision, or of a ReplicaSet; 0 where it has none.
func revisionOf(raw []byte) (int64, error) {
	var revision int64
	err := rawjson.Members(raw, func(key string, value []byte) error {
		switch key {
		case "revision":
			return json.Unmarshal(value, &revision)
		case "metadata":
			var meta struct {
				Annotations map[string]string `json:"annotations"`
			}
			if err := json.Unmarshal(value, &meta); err != nil {
				return err
			}
			if n, err := strconv.ParseInt(meta.Annotations[revisionAnnotation], 10, 64); err == nil {
				revision = n
			}
		}
		return nil
	})
	return revision, err
}
