package alerts

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"go.yaml.in/yaml/v3"
)

// rule is an alert of the file.
type rule struct {
	Alert       string            `yaml:"alert"`
	Expr        string            `yaml:"expr"`
	For         string            `yaml:"for"`
	Labels      map[string]string `yaml:"labels"`
	Annotations map[string]string `yaml:"annotations"`

	wait time.Duration
}

func rules(t *testing.T) []rule {
	t.Helper()
	f, err := os.Open("../../deploy/chart/kedge/files/alerts/kedge.rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var file struct {
		Groups []struct {
			Name  string `yaml:"name"`
			Rules []rule `yaml:"rules"`
		} `yaml:"groups"`
	}
	d := yaml.NewDecoder(f)
	d.KnownFields(true)
	if err := d.Decode(&file); err != nil {
		t.Fatal(err)
	}
	var out []rule
	for _, g := range file.Groups {
		for _, r := range g.Rules {
			r.wait = wait(t, r.For)
			out = append(out, r)
		}
	}
	if len(out) < 10 {
		t.Fatalf("only %d rules", len(out))
	}
	return out
}

func wait(t *testing.T, text string) time.Duration {
	t.Helper()
	if text == "" {
		return 0
	}
	if days, ok := strings.CutSuffix(text, "d"); ok {
		n, err := strconv.Atoi(days)
		if err != nil {
			t.Fatal(err)
		}
		return time.Duration(n) * 24 * time.Hour
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// scenario is what a server exposed under a fault.
type scenario struct {
	name   string
	fires  []string
	at     time.Time
	series []series
}

type series struct {
	labels      labels.Labels
	first, last float64
}

func read(t *testing.T, path string, p parser.Parser) scenario {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	s := scenario{name: strings.TrimSuffix(filepath.Base(path), ".txt")}
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		line := lines.Text()
		if names, ok := strings.CutPrefix(line, "# fires:"); ok {
			s.fires = strings.Fields(names)
			continue
		}
		if at, ok := strings.CutPrefix(line, "# at: "); ok {
			n, err := strconv.ParseInt(at, 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			s.at = time.Unix(n, 0)
			continue
		}
		if strings.HasPrefix(line, "#") {
			continue
		}
		parts := strings.Split(line, "\t")
		if len(parts) != 3 {
			t.Fatalf("%s: %q", path, line)
		}
		var one series
		if one.labels, err = p.ParseMetric(parts[0]); err != nil {
			t.Fatal(err)
		}
		for i, v := range []*float64{&one.first, &one.last} {
			if *v, err = strconv.ParseFloat(parts[i+1], 64); err != nil {
				t.Fatal(err)
			}
		}
		s.series = append(s.series, one)
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return s
}

// firing says whether an alert fires: its expression gives something all the time that it waits. It gives how many alerts there are then.
func firing(ctx context.Context, engine *promql.Engine, db storage.Queryable, r rule, from time.Time) (int, error) {
	const steps = 10
	n := 0
	for i := range steps + 1 {
		at := from.Add(r.wait * time.Duration(i) / steps)
		q, err := engine.NewInstantQuery(ctx, db, nil, r.Expr, at)
		if err != nil {
			return 0, err
		}
		result := q.Exec(ctx)
		if result.Err != nil {
			return 0, result.Err
		}
		v, err := result.Vector()
		if err != nil {
			return 0, err
		}
		n = len(v)
		q.Close()
		if n == 0 {
			return 0, nil
		}
	}
	return n, nil
}

// TestAlerts: under each fault exactly the alerts fire that are for it, once for both replicas, and under none none; and each alert has its fault.
func TestAlerts(t *testing.T) {
	all := rules(t)
	p := parser.NewParser(parser.Options{})
	engine := promql.NewEngine(promql.EngineOpts{MaxSamples: 10_000_000, Timeout: time.Minute, LookbackDelta: 5 * time.Minute, EnableAtModifier: true, Parser: p})
	paths, err := filepath.Glob("testdata/*.txt")
	if err != nil {
		t.Fatal(err)
	}
	tried := map[string]bool{}
	scenarios := []scenario{{name: "KedgeAbsent", fires: []string{"KedgeAbsent"}, at: time.Unix(1_800_000_000, 0)}} // no server exposes anything
	for _, path := range paths {
		scenarios = append(scenarios, read(t, path, p))
	}
	for _, s := range scenarios {
		t.Run(s.name, func(t *testing.T) {
			db := s.store()
			var fired []string
			for _, r := range all {
				n, err := firing(t.Context(), engine, db, r, s.at)
				if err != nil {
					t.Fatalf("%s: %v", r.Alert, err)
				}
				if n > 0 {
					fired = append(fired, r.Alert)
				}
				if n > 1 {
					t.Errorf("%s fires %d times for one fault", r.Alert, n)
				}
			}
			slices.Sort(fired)
			slices.Sort(s.fires)
			if !slices.Equal(fired, s.fires) {
				t.Errorf("fired %v, want %v", fired, s.fires)
			}
		})
		for _, name := range s.fires {
			tried[name] = true
		}
	}
	for _, r := range all {
		if !tried[r.Alert] {
			t.Errorf("%s was not tried", r.Alert)
		}
	}
}

// catalogue is the metrics of docs/metrics.md, which server/metrics checks against what is registered, with their labels.
func catalogue(t *testing.T) map[string][]string {
	t.Helper()
	page, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| `(kedge_[a-z_]+)` \\| [a-z]+ \\| ([^|]*) \\|").FindAllStringSubmatch(string(page), -1) {
		var names []string
		for _, l := range strings.Split(row[2], ",") {
			if l = strings.Trim(l, " `"); l != "" {
				names = append(names, l)
			}
		}
		out[row[1]] = names
	}
	if len(out) < 30 {
		t.Fatalf("only %d metrics in docs/metrics.md", len(out))
	}
	return out
}

// checkNames reports metrics and labels of an expression that the server does not have.
func checkNames(t *testing.T, where, expr string, p parser.Parser, known map[string][]string) {
	t.Helper()
	parsed, err := p.ParseExpr(expr)
	if err != nil {
		t.Errorf("%s: %v", where, err)
		return
	}
	parser.Inspect(parsed, func(node parser.Node, _ []parser.Node) error {
		v, ok := node.(*parser.VectorSelector)
		if !ok {
			return nil
		}
		name := v.Name
		own, ok := known[name]
		for _, suffix := range []string{"_bucket", "_sum", "_count"} {
			if base, cut := strings.CutSuffix(name, suffix); cut && !ok {
				own, ok = known[base]
				own = append(slices.Clone(own), "le")
			}
		}
		if !ok {
			t.Errorf("%s: there is no metric %q", where, name)
		}
		for _, m := range v.LabelMatchers {
			if m.Name != "__name__" && !slices.Contains(own, m.Name) && !slices.Contains([]string{"job", "namespace", "cluster"}, m.Name) {
				t.Errorf("%s: %s has no label %q", where, name, m.Name)
			}
		}
		return nil
	})
}

// TestRules: what every alert must have, and that its names are the server's.
func TestRules(t *testing.T) {
	known, p := catalogue(t), parser.NewParser(parser.Options{})
	page, err := os.ReadFile("../../docs/troubleshooting.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rules(t) {
		checkNames(t, r.Alert, r.Expr, p, known)
		if !slices.Contains([]string{"critical", "warning", "info"}, r.Labels["severity"]) {
			t.Errorf("%s has the severity %q", r.Alert, r.Labels["severity"])
		}
		for _, name := range []string{"summary", "description", "runbook_url"} {
			if r.Annotations[name] == "" {
				t.Errorf("%s has no annotation %s", r.Alert, name)
			}
		}
		if want := "troubleshooting#" + strings.ToLower(r.Alert); !strings.HasSuffix(r.Annotations["runbook_url"], want) {
			t.Errorf("%s: its runbook_url does not end in %s", r.Alert, want)
		}
		if !strings.Contains(string(page), fmt.Sprintf("\n### %s\n", r.Alert)) {
			t.Errorf("docs/troubleshooting.md has no section for %s", r.Alert)
		}
	}
}
