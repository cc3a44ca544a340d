package component

import (
	"context"
	_ "embed"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"k8s.io/component-base/metrics/features"
	"k8s.io/component-base/metrics/prometheus/feature"
)

// gates are Kubernetes' feature gates, a name=default each line, then the stage of those that are not generally available, and "locked" after
// those that cannot be anything else.
//
//go:embed gates.txt
var gates string

// A FeatureGate is what Kubernetes says of one.
type FeatureGate struct {
	Default, Locked bool
	// Stage is ALPHA, BETA or DEPRECATED; empty for what is generally available.
	Stage string
}

// FeatureGates are all of Kubernetes', by name.
func FeatureGates() (map[string]FeatureGate, error) {
	all := map[string]FeatureGate{}
	for line := range strings.Lines(gates) {
		line, locked := strings.CutSuffix(strings.TrimSpace(line), " locked")
		line, stage, _ := strings.Cut(line, " ")
		name, value, _ := strings.Cut(line, "=")
		on, err := strconv.ParseBool(value)
		if err != nil {
			return nil, fmt.Errorf("the list of feature gates: %s: %w", name, err)
		}
		all[name] = FeatureGate{on, locked, stage}
	}
	return all, nil
}

// ShowFeatureGates has the metrics of the process tell of all gates: as a component was given them, else as they are by default.
// Where several components have one process, they are told of once, as who came last has them.
func ShowFeatureGates(ctx context.Context, given map[string]bool) error {
	all, err := FeatureGates()
	if err != nil {
		return err
	}
	for name, gate := range all {
		on, ok := given[name]
		feature.RecordFeatureInfo(ctx, name, gate.Stage, on || !ok && gate.Default)
	}
	return nil
}

// WithoutPrefix returns gates by their bare names: those of the control plane may be given as kube:Name.
func WithoutPrefix(given map[string]bool) map[string]bool {
	bare := make(map[string]bool, len(given))
	for name, on := range given {
		bare[strings.TrimPrefix(name, "kube:")] = on
	}
	return bare
}

// CheckFeatureGates says which of the given gates is none of Kubernetes', or is not
// at its default. What a gate switches on or off is here as it is by default, so the
// default may be said aloud, and nothing else, but for the gates that a component names as free and
// that which all components heed.
func CheckFeatureGates(given map[string]bool, free ...string) error {
	if len(given) == 0 {
		return nil
	}
	all, err := FeatureGates()
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(given)) {
		gate, known := all[name]
		switch {
		case !known:
			return fmt.Errorf("unrecognized feature gate: %s", name)
		case gate.Default == given[name]:
		case gate.Locked:
			return fmt.Errorf("cannot set feature gate %s to %t, feature is locked to %t", name, given[name], gate.Default)
		case !slices.Contains(free, name) && name != string(features.NativeHistograms):
			return fmt.Errorf("cannot set feature gate %s to %t: this component supports only its default, %t", name, given[name], gate.Default)
		}
	}
	return nil
}
