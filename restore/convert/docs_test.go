package convert

import (
	"os"
	"strings"
	"testing"
)

// TestDocs finds every kind of the table, with its versions, in docs/conversion.md.
func TestDocs(t *testing.T) {
	page, err := os.ReadFile("../../docs/conversion.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := strings.Split(string(page), "\n")
	for _, f := range table() {
		row := ""
		for _, r := range rows {
			kinds, _, _ := strings.Cut(strings.TrimPrefix(r, "| "), " |")
			for kind := range strings.SplitSeq(kinds, ", ") {
				if strings.HasPrefix(r, "| ") && kind == f.kind && row == "" {
					row = r
				}
			}
		}
		for _, v := range f.versions {
			if !strings.Contains(row, v.gv.Version) || !strings.Contains(row, v.gv.Group) {
				t.Errorf("%s %s is not in docs/conversion.md", v.gv, f.kind)
			}
		}
	}
	for gk, reason := range removedKinds {
		if reason != notStored && !strings.Contains(string(page), gk.Kind) {
			t.Errorf("%s is not in docs/conversion.md", gk)
		}
	}
}
