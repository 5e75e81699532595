package transform

import (
	"os"
	"regexp"
	"testing"
)

// TestDocsExamples loads and compiles every example of transforms that the documentation gives.
func TestDocsExamples(t *testing.T) {
	page, err := os.ReadFile("../../docs/transforms.md")
	if err != nil {
		t.Fatal(err)
	}
	examples := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(string(page), -1)
	tried := 0
	for _, e := range examples {
		if regexp.MustCompile(`(?m)^spec:`).MatchString(e[1]) {
			continue // a piece of a Restore
		}
		tried++
		if _, err := load(t, e[1]); err != nil {
			t.Errorf("%v in\n%s", err, e[1])
		}
	}
	if tried < 8 {
		t.Errorf("only %d examples found", tried)
	}
}
