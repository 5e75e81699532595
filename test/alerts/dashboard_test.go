package alerts

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/promql/parser"
)

// panel is what is looked at of a Grafana panel.
type panel struct {
	ID      int    `json:"id"`
	Title   string `json:"title"`
	Type    string `json:"type"`
	Targets []struct {
		Expr  string `json:"expr"`
		RefID string `json:"refId"`
	} `json:"targets"`
	GridPos struct{ H, W, X, Y int } `json:"gridPos"`
}

// TestDashboard: the dashboard is JSON that Grafana reads, no panel covers another, and every expression can be read and names what the server has.
func TestDashboard(t *testing.T) {
	data, err := os.ReadFile("../../deploy/chart/kedge/files/dashboards/kedge.json")
	if err != nil {
		t.Fatal(err)
	}
	var d struct {
		UID           string  `json:"uid"`
		Title         string  `json:"title"`
		SchemaVersion int     `json:"schemaVersion"`
		Panels        []panel `json:"panels"`
	}
	if err := json.Unmarshal(data, &d); err != nil {
		t.Fatal(err)
	}
	if d.UID == "" || d.Title == "" || d.SchemaVersion < 36 {
		t.Errorf("uid %q, title %q, schema version %d", d.UID, d.Title, d.SchemaVersion)
	}
	known, p := catalogue(t), parser.NewParser(parser.Options{})
	ids, cells, queries := map[int]bool{}, map[[2]int]string{}, 0
	for _, one := range d.Panels {
		if ids[one.ID] || one.ID == 0 {
			t.Errorf("%s: the id %d is not its own", one.Title, one.ID)
		}
		ids[one.ID] = true
		for x := one.GridPos.X; x < one.GridPos.X+one.GridPos.W; x++ {
			for y := one.GridPos.Y; y < one.GridPos.Y+one.GridPos.H; y++ {
				if other := cells[[2]int{x, y}]; other != "" || x >= 24 {
					t.Fatalf("%s lies over %q or over the edge", one.Title, other)
				}
				cells[[2]int{x, y}] = one.Title
			}
		}
		if one.Type == "row" {
			continue
		}
		if len(one.Targets) == 0 {
			t.Errorf("%s shows nothing", one.Title)
		}
		for _, q := range one.Targets {
			queries++
			expr := strings.NewReplacer("$__rate_interval", "5m", "$__range", "1h").Replace(q.Expr)
			checkNames(t, one.Title, expr, p, known)
		}
	}
	if queries < 15 {
		t.Errorf("only %d queries", queries)
	}
}
