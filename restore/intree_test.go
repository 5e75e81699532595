package restore

import "testing"

func TestInTreeEBSIsTranslatedOnlyWhereItsCodeIsLost(t *testing.T) {
	for _, c := range []struct {
		source, target string
		want           bool
	}{
		{"v1.24.17", "v1.24.17", true},
		{"v1.24.17", "v1.26.9", true},
		{"v1.24.17", "v1.27.0", false},
		{"v1.24.17-eks-5e0fdde", "v1.36.3-eks-abc", false},
		{"v1.27.0", "v1.36.3", true},
		{"v1.36.3", "v1.24.17", false},
		{"", "v1.36.3", false},
		{"v1.24.17", "?", false},
	} {
		if got := sameEBS(c.source, c.target); got != c.want {
			t.Errorf("sameEBS(%q, %q) = %v", c.source, c.target, got)
		}
	}
}
