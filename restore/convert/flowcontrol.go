package convert

import "kedge.dev/kedge/internal/tree"

// zeroSharesAnnotation says in v1beta3 that zero shares are meant, and not the default.
const zeroSharesAnnotation = "flowcontrol.k8s.io/v1beta3-preserve-zero-concurrency-shares"

func levelUp(c *conversion) {
	limited := tree.Map(c.spec(), "limited")
	if zero(limited["assuredConcurrencyShares"]) {
		delete(limited, "assuredConcurrencyShares") // zero meant the default in the old versions, and means zero in v1
	}
	move(limited, "assuredConcurrencyShares", "nominalConcurrencyShares")
}

func levelDown(c *conversion) {
	limited := tree.Map(c.spec(), "limited")
	if shares, ok := limited["nominalConcurrencyShares"]; ok && zero(shares) {
		limited["nominalConcurrencyShares"] = int64(1)
		c.warn("spec.limited.nominalConcurrencyShares was 0 and is 1 now: %s cannot say 0", c.to)
	}
	move(limited, "nominalConcurrencyShares", "assuredConcurrencyShares")
}

func levelFromBeta3(c *conversion) {
	_, keepZero := tree.Annotation(c.obj, zeroSharesAnnotation)
	tree.DropAnnotations(c.obj, zeroSharesAnnotation)
	if !tree.Has(c.spec(), "limited") {
		return
	}
	limited := tree.Map(c.spec(), "limited")
	if zero(limited["nominalConcurrencyShares"]) {
		delete(limited, "nominalConcurrencyShares")
		if keepZero {
			limited["nominalConcurrencyShares"] = int64(0)
		}
	}
}

func levelToBeta3(c *conversion) {
	limited := tree.Map(c.spec(), "limited")
	if shares, ok := limited["nominalConcurrencyShares"]; ok && zero(shares) {
		tree.SetAnnotation(c.obj, zeroSharesAnnotation, "")
	}
}
