//go:build unix

package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
)

// diffLines bounds a diff: the first differences explain the rest.
const diffLines = 12

// diff shows where two objects differ, a path a line: "-" is the source's, "+" the target's.
func diff(want, got map[string]any) string {
	var lines []string
	differences("", want, got, func(sign, path string, v any) {
		text, _ := json.Marshal(v)
		if len(text) > 200 {
			text = append(text[:200], "…"...)
		}
		lines = append(lines, fmt.Sprintf("%s %s: %s", sign, path, text))
	})
	if len(lines) > diffLines {
		lines = append(lines[:diffLines], fmt.Sprintf("… and %d more", len(lines)-diffLines))
	}
	return strings.Join(lines, "\n")
}

func differences(path string, want, got any, say func(sign, path string, v any)) {
	if reflect.DeepEqual(want, got) {
		return
	}
	wantMap, isMap := want.(map[string]any)
	gotMap, bothMaps := got.(map[string]any)
	if isMap && bothMaps {
		all := maps.Clone(wantMap)
		maps.Copy(all, gotMap)
		for _, k := range slices.Sorted(maps.Keys(all)) {
			differences(path+"."+k, wantMap[k], gotMap[k], say)
		}
		return
	}
	wantList, isList := want.([]any)
	gotList, bothLists := got.([]any)
	if isList && bothLists && len(wantList) == len(gotList) {
		for i := range wantList {
			differences(fmt.Sprintf("%s[%d]", path, i), wantList[i], gotList[i], say)
		}
		return
	}
	if want != nil {
		say("-", path, want)
	}
	if got != nil {
		say("+", path, got)
	}
}
