package restore

import (
	"encoding/json"
	"testing"
)

// TestArrivePaused: a restored Schedule runs neither by the clock nor by an old request.
func TestArrivePaused(t *testing.T) {
	for before, want := range map[string]string{
		`{}`: `{"metadata":{"annotations":{"kedge.dev/restored":"true"}},"spec":{"paused":true}}`,
		`{"metadata":{"name":"a","annotations":{"kedge.dev/run-requested-at":"1","team":"blue"}},"spec":{"schedule":"@daily","paused":false}}`: `{"metadata":{"annotations":{"kedge.dev/restored":"true","team":"blue"},"name":"a"},"spec":{"paused":true,"schedule":"@daily"}}`,
		`{"metadata":{"annotations":null},"spec":null}`: `{"metadata":{"annotations":{"kedge.dev/restored":"true"}},"spec":{"paused":true}}`,
	} {
		var obj map[string]any
		if err := json.Unmarshal([]byte(before), &obj); err != nil {
			t.Fatal(err)
		}
		arrivePaused(obj)
		got, err := json.Marshal(obj)
		if err != nil || string(got) != want {
			t.Errorf("%s becomes %s, want %s (%v)", before, got, want, err)
		}
	}
}
