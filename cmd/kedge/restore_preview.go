package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"kedge.dev/kedge/internal/term"
	"kedge.dev/kedge/restore"
)

// restorePreview is what "restore create --dry-run -o json" prints.
type restorePreview struct {
	Backup  string                       `json:"backup"`
	Target  string                       `json:"target"`
	Plan    restore.PlanView             `json:"plan"`
	Changes []restore.Change             `json:"changes"`
	Counts  map[restore.ChangeAction]int `json:"counts"`
}

// previewRestore asks the target about every object of the plan and prints what it says.
func (a *app) previewRestore(ctx context.Context, run *restoreRun, plan *restore.Plan, f *restoreFlags) error {
	result := restorePreview{Backup: plan.Source.Name, Target: run.cluster, Plan: plan.View(), Changes: []restore.Change{}}
	if f.out.format == formatTable || f.out.format == formatWide {
		if err := a.printText(result.Plan.WriteTable); err != nil {
			return err
		}
		a.printf("\n")
	}
	skipped := map[string]int{}
	bar := a.ui.Progress("preview", "objects")
	done := int64(0)
	summary, err := run.engine.Preview(ctx, plan, func(c restore.Change) error {
		done++
		bar.Set(term.State{Done: done, Total: int64(plan.Len()), Doing: c.Ref.String()})
		switch f.out.format {
		case formatTable, formatWide:
			switch {
			case f.out.format == formatWide || worthALine(&c):
				a.printChange(&c)
			case c.Action == restore.ActionSkip && c.Step != "": // what has no step is in the plan's table
				skipped[fmt.Sprintf("%s: %s", c.Reason, c.Message)]++
			}
		case formatName:
			a.printf("%s %s\n", c.Action, c.Ref)
		default:
			result.Changes = append(result.Changes, c)
		}
		return nil
	})
	bar.Done()
	if err != nil {
		return fmt.Errorf("preview restore of %s: %w", plan.Source.Name, err)
	}
	for _, why := range slices.Sorted(maps.Keys(skipped)) {
		a.printf("%-16s %s: %s\n", restore.ActionSkip, plural(skipped[why], "object"), why)
	}
	if f.out.structured() {
		result.Counts = summary.Counts
		if err := a.printStructured(f.out.format, result); err != nil {
			return err
		}
	}
	a.ui.Note("%s. Nothing was written (--dry-run).", changeCounts(summary))
	if f.out.format == formatTable {
		a.ui.Note("-o wide names every object.")
	}
	if f.exitCode && (summary.Changes() || summary.Refused() > 0) {
		return silent(exitPartial)
	}
	return nil
}

// worthALine tells the objects about which the plan has not said everything: not those that are simply created or are the same
// already, and not those that it leaves out by a rule.
func worthALine(c *restore.Change) bool {
	switch {
	case len(c.Remarks) > 0 || len(c.Diff) > 0:
		return true
	case c.Action == restore.ActionSkip: // those that differ have a diff; the others are summed up by reason
		return false
	case c.Action == restore.ActionCreateUnchecked:
		return c.Reason != restore.NamespaceNotYet && c.Reason != restore.APINotYet
	case c.Action == restore.ActionCreate || c.Action == restore.ActionUnchanged:
		return c.Message != "" || c.Target != nil && c.Target.APIVersion() != c.Ref.APIVersion()
	}
	return true
}

// printChange prints what would happen to one object.
func (a *app) printChange(c *restore.Change) {
	text := fmt.Sprintf("%-16s %s", c.Action, c.Ref)
	if c.Target != nil {
		text += " -> " + c.Target.String()
	}
	if c.Reason != "" {
		text += ": " + string(c.Reason)
	}
	if c.By != "" {
		text += " by " + c.By
	}
	if c.Message != "" {
		text += ": " + c.Message
	}
	fmt.Fprintln(a.ui.Out, a.ui.Style(a.ui.ColorOut && actionColor(c.Action) != "", actionColor(c.Action), term.Clean(text)))
	for _, remark := range c.Remarks {
		a.printf("    %s: %s\n", remark.Reason, remark.Message)
	}
	for _, d := range c.Diff {
		a.printf("    %s: %s -> %s\n", d.Path, valueText(d.Before), valueText(d.After))
	}
}

func actionColor(action restore.ChangeAction) term.Color {
	switch action {
	case restore.ActionCreate, restore.ActionCreateUnchecked:
		return term.Green
	case restore.ActionUpdate, restore.ActionRecreate:
		return term.Yellow
	case restore.ActionRefused:
		return term.Red
	default:
		return ""
	}
}

// maxValue is how much of a value is printed in a line.
const maxValue = 200

// valueText is a value of a difference in one line.
func valueText(value any) string {
	if value == nil {
		return "(none)"
	}
	data, err := json.Marshal(value)
	if err != nil {
		return "(?)"
	}
	text := string(data)
	if runes := []rune(text); len(runes) > maxValue {
		text = string(runes[:maxValue]) + "…"
	}
	return text
}

// changeCounts sums a preview up: "12 Create, 3 Refused".
func changeCounts(s *restore.PreviewSummary) string {
	var parts []string
	for _, action := range slices.Sorted(maps.Keys(s.Counts)) {
		parts = append(parts, fmt.Sprintf("%s %s", term.Count(int64(s.Counts[action])), action))
	}
	if len(parts) == 0 {
		return "Nothing is selected"
	}
	return strings.Join(parts, ", ")
}
