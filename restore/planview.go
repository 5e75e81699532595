package restore

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/plugins"
)

// PlanView is a plan for people and programs: steps and counts, without the objects themselves.
type PlanView struct {
	Name   string               `json:"name"`
	Backup string               `json:"backup"`
	Source v1alpha1.ClusterInfo `json:"source"`
	Target v1alpha1.ClusterInfo `json:"target"`
	Steps  []StepView           `json:"steps"`
	// LeftOut counts the objects that are not restored, by reason.
	LeftOut map[Reason]int   `json:"leftOut,omitempty"`
	Remarks []plugins.Remark `json:"remarks,omitempty"`
}

// StepView is one step.
type StepView struct {
	Name  string   `json:"name"`
	Title string   `json:"title"`
	Needs []string `json:"needs,omitempty"`
	Items int      `json:"items"`
	// Resources counts the step's objects by archived resource: "deployments.apps".
	Resources map[string]int `json:"resources,omitempty"`
	// Convert says how objects of a resource are converted for the target.
	Convert map[string]string `json:"convert,omitempty"`
}

// View sums the plan up.
func (p *Plan) View() PlanView {
	v := PlanView{Name: p.Request.Name, Backup: p.Source.Name, Source: p.Source.Cluster, Target: p.Target, LeftOut: map[Reason]int{}, Remarks: p.Remarks}
	for n := range p.Steps {
		s := &p.Steps[n]
		sv := StepView{Name: s.Name(), Title: s.Title(), Items: s.Len(), Resources: map[string]int{}, Convert: map[string]string{}}
		for _, m := range s.Needs {
			sv.Needs = append(sv.Needs, p.Steps[m].Name())
		}
		for _, i := range s.items {
			r := &p.resources[p.items[i].res]
			sv.Resources[r.groupResource()]++
			if r.target.state == targetTable || r.target.state == targetOther {
				sv.Convert[r.groupResource()] = r.target.message
			}
		}
		v.Steps = append(v.Steps, sv)
	}
	for i := range p.items {
		if p.items[i].step < 0 {
			v.LeftOut[p.items[i].reason]++
		}
	}
	return v
}

// WriteTable prints the plan for people.
func (v PlanView) WriteTable(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintf(tw, "STEP\tOBJECTS\tAFTER\tWHAT\n")
	for _, s := range v.Steps {
		what := s.Title
		if len(s.Resources) > 0 {
			var parts []string
			for _, name := range slices.Sorted(maps.Keys(s.Resources)) {
				parts = append(parts, fmt.Sprintf("%s %d", name, s.Resources[name]))
			}
			what = strings.Join(parts, ", ")
		}
		fmt.Fprintf(tw, "%s\t%d\t%s\t%s\n", s.Name, s.Items, cmp.Or(strings.Join(s.Needs, ","), "-"), what)
	}
	for _, s := range v.Steps {
		for _, name := range slices.Sorted(maps.Keys(s.Convert)) {
			fmt.Fprintf(tw, "convert\t%d\t%s\t%s\n", s.Resources[name], name, s.Convert[name])
		}
	}
	for _, r := range slices.Sorted(maps.Keys(v.LeftOut)) {
		fmt.Fprintf(tw, "left out\t%d\t%s\t%s\n", v.LeftOut[r], r, reasonTexts[r])
	}
	for _, m := range v.Remarks {
		fmt.Fprintf(tw, "note\t\t%s\t%s\n", m.Reason, m.Message)
	}
	return tw.Flush()
}
