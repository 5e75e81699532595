//go:build unix

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"kedge.dev/kedge/restore"
	"kedge.dev/kedge/test/testbed"
)

// waitFor gives controllers a moment to bring what they make, and returns what is missing after that.
func waitFor(ctx context.Context, c *testbed.Cluster, objects []object) ([]object, error) {
	deadline := time.Now().Add(20 * time.Second)
	for {
		missing, err := absent(ctx, c, objects)
		if err != nil || len(missing) == 0 || time.Now().After(deadline) {
			return missing, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(500 * time.Millisecond):
		}
	}
}

// check looks at green without Kedge: each object of the applications is there, or the report names it.
func (d *demo) check(ctx context.Context) error {
	d.title("Looking at green without Kedge: what arrived, what was converted, what could not be")
	sent, err := census(ctx, d.blue, "")
	if err != nil {
		return err
	}
	missing, err := waitFor(ctx, d.green, sent)
	if err != nil {
		return err
	}
	report, err := d.report(ctx)
	if err != nil {
		return err
	}
	reasons := map[object]string{}
	converted := 0
	for _, e := range report.Entries {
		if e.Reason == restore.Converted {
			converted++
		}
		if e.Outcome != restore.Created {
			for _, o := range missing {
				if e.Ref.Namespace == o.namespace && e.Ref.Name == o.name && e.Ref.Group == o.Group {
					reasons[o] = fmt.Sprintf("%s: %s", e.Reason, e.Message)
				}
			}
		}
	}
	fmt.Printf("\nof %d objects on blue, %d arrived on green; %d objects of the whole cluster were converted to another version\n",
		len(sent), len(sent)-len(missing), converted)
	silent := 0
	for _, o := range missing {
		reason, named := reasons[o]
		if !named {
			silent++
			reason = "NOT NAMED in the report"
		}
		fmt.Printf("  not on green: %s: %s\n", o, reason)
	}
	if silent > 0 {
		return fmt.Errorf("%d objects are missing from green without a word in the report", silent)
	}
	return nil
}

// report reads the report of the migration's restore as a program would.
func (d *demo) report(ctx context.Context) (*restore.Report, error) {
	out, err := d.output(ctx, "restore", "describe", restoreName, "-o", "json")
	if err != nil {
		return nil, err
	}
	var details struct {
		Report *restore.Report `json:"report"`
	}
	if err := json.Unmarshal(out, &details); err != nil {
		return nil, fmt.Errorf("read the output of kedge restore describe: %w", err)
	}
	if details.Report == nil {
		return nil, fmt.Errorf("kedge restore describe %s has no report", restoreName)
	}
	return details.Report, nil
}
