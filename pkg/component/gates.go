package component

import (
	_ "embed"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// gates are Kubernetes' feature gates, a name=default each line.
//
//go:embed gates.txt
var gates string

// CheckFeatureGates says which of the given gates is none of Kubernetes', or is not
// at its default. What a gate switches on or off is here as it is by default, so the
// default may be said aloud, and nothing else.
func CheckFeatureGates(given map[string]bool) error {
	if len(given) == 0 {
		return nil
	}
	defaults := map[string]bool{}
	for line := range strings.Lines(gates) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		on, err := strconv.ParseBool(value)
		if err != nil {
			return fmt.Errorf("the list of feature gates: %s: %w", name, err)
		}
		defaults[name] = on
	}
	for _, name := range slices.Sorted(maps.Keys(given)) {
		on, known := defaults[name]
		if !known {
			return fmt.Errorf("unrecognized feature gate: %s", name)
		}
		if on != given[name] {
			return fmt.Errorf("cannot set feature gate %s to %t: this component supports only its default, %t", name, given[name], on)
		}
	}
	return nil
}
