package restore

import (
	"fmt"
	"strings"
	"testing"
)

// TestEnds has a log that comes in pieces, with lines that are none of ours, and one that is too long.
func TestEnds(t *testing.T) {
	log := `{"msg":"object","error":"attempt ends"}` + "\n" +
		`{"msg":"attempt ends","attempt":1,"error":"no quota"}` + "\n" +
		`{"msg":"attempt ends","attempt":2,"error":"` + strings.Repeat("x", maxLine) + `"}` + "\n" +
		"no JSON: attempt ends\n" + `{"msg":"attempt ends","attempt":3,"error":"no room"}` + "\n"
	for _, size := range []int{1, 7, 1000, len(log)} {
		var e ends
		for rest := log; rest != ""; {
			piece := rest[:min(size, len(rest))]
			rest = rest[len(piece):]
			if n, err := e.Write([]byte(piece)); n != len(piece) || err != nil {
				t.Fatal(n, err)
			}
		}
		var got []string
		for _, r := range e.remarks {
			got = append(got, r.Message)
		}
		if want := "attempt 1: no quota|attempt 3: no room"; strings.Join(got, "|") != want || e.seen != 2 || cap(e.line) > 2*maxLine {
			t.Errorf("in pieces of %d: %q, %d seen", size, got, e.seen)
		}
	}
	var many ends
	for n := range 2 * maxEnds {
		fmt.Fprintf(&many, `{"msg":"attempt ends","attempt":%d,"error":"no"}`+"\n", n)
	}
	if len(many.remarks) != maxEnds || many.seen != 2*maxEnds {
		t.Errorf("%d remarks of %d", len(many.remarks), many.seen)
	}
}
