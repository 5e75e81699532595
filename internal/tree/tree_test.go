package tree

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestReading(t *testing.T) {
	o := map[string]any{"m": map[string]any{"n": map[string]any{"k": "v"}}, "s": "text", "l": []any{map[string]any{"a": 1}, "x", nil}}
	if got := Text(In(o, "m", "n"), "k"); got != "v" {
		t.Errorf("got %q", got)
	}
	for _, path := range [][]string{{"s"}, {"l"}, {"none"}, {"m", "none", "n"}} {
		if got := In(o, path...); len(got) != 0 {
			t.Errorf("%v: %v", path, got)
		}
	}
	if Has(o, "s") || !Has(o, "m") || Text(o, "m") != "" || Text(nil, "m") != "" {
		t.Error("wrong types count as absent")
	}
	calls := 0
	Each(o, "l", func(map[string]any) { calls++ })
	Each(o, "s", func(map[string]any) { calls++ })
	if calls != 1 {
		t.Errorf("%d calls", calls)
	}
}

func TestChanging(t *testing.T) {
	o := map[string]any{"text": "x"}
	Ensure(Ensure(o, "a"), "b")["c"] = 1
	Ensure(o, "text")["lost"] = 1 // not a map: nothing to write to
	SetAnnotation(o, "k", "v")
	want := map[string]any{"text": "x", "a": map[string]any{"b": map[string]any{"c": 1}}, "metadata": map[string]any{"annotations": map[string]any{"k": "v"}}}
	if diff := cmp.Diff(want, o); diff != "" {
		t.Error(diff)
	}
	if v, ok := Annotation(o, "k"); !ok || v != "v" {
		t.Errorf("%q %v", v, ok)
	}
	if DropAnnotations(o, "other") || !DropAnnotations(o, "k", "other") || DropLabels(o, "k") {
		t.Error("drops say what they did")
	}
	if _, left := Map(o, "metadata")["annotations"]; left {
		t.Error("an empty map of annotations is left")
	}
}

func TestKeep(t *testing.T) {
	even := func(m map[string]any) bool { return m["n"].(int)%2 == 0 }
	o := map[string]any{"l": []any{map[string]any{"n": 1}, "other", map[string]any{"n": 2}}, "odd": []any{map[string]any{"n": 1}}, "s": "text"}
	if got := Keep(o, "l", even); got != 1 {
		t.Errorf("dropped %d", got)
	}
	if got := Keep(o, "odd", even) + Keep(o, "s", even) + Keep(o, "none", even); got != 1 {
		t.Errorf("dropped %d", got)
	}
	want := map[string]any{"l": []any{"other", map[string]any{"n": 2}}, "s": "text"}
	if diff := cmp.Diff(want, o); diff != "" {
		t.Error(diff)
	}
}

func TestCopy(t *testing.T) {
	o := map[string]any{"a": []any{map[string]any{"b": int64(1)}}, "n": nil}
	c := Copy(o).(map[string]any)
	if diff := cmp.Diff(o, c); diff != "" {
		t.Error(diff)
	}
	c["a"].([]any)[0].(map[string]any)["b"] = int64(2)
	if o["a"].([]any)[0].(map[string]any)["b"] != int64(1) {
		t.Error("the copy shares with the original")
	}
	if !Empty(nil) || !Empty([]any{}) || !Empty(map[string]any{}) || Empty("") || Empty(o) {
		t.Error("Empty is about absence, maps and lists")
	}
}
