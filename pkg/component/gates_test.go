package component

import (
	"strings"
	"testing"

	"k8s.io/component-base/metrics/legacyregistry"
)

func TestCheckFeatureGates(t *testing.T) {
	for name, c := range map[string]struct {
		given map[string]bool
		err   string
	}{
		"none":                      {},
		"on by default":             {given: map[string]bool{"UserNamespacesSupport": true, "AllAlpha": false}},
		"off by default":            {given: map[string]bool{"UserNamespacesSupport": true, "AllAlpha": true}, err: "cannot set feature gate AllAlpha to true"},
		"switched off":              {given: map[string]bool{"UserNamespacesSupport": false}, err: "cannot set feature gate UserNamespacesSupport to false"},
		"a gate that nobody knows":  {given: map[string]bool{"Sidecars": true}, err: "unrecognized feature gate: Sidecars"},
		"a gate that was forgotten": {given: map[string]bool{"DynamicKubeletConfig": false}, err: "unrecognized feature gate"},
	} {
		err := CheckFeatureGates(c.given)
		if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestFeatureGates(t *testing.T) {
	all, err := FeatureGates()
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]FeatureGate{
		"AllAlpha": {Stage: "ALPHA"}, "APIServerIdentity": {Default: true, Stage: "BETA"},
		"AggregatedDiscoveryRemoveBetaType": {Default: true, Locked: true, Stage: "DEPRECATED"}, "UserNamespacesSupport": {Default: true, Locked: true},
	} {
		if all[name] != want {
			t.Errorf("%s: %+v, want %+v", name, all[name], want)
		}
	}
}

func TestShowFeatureGates(t *testing.T) {
	if err := ShowFeatureGates(t.Context(), map[string]bool{"NativeHistograms": false}); err != nil {
		t.Fatal(err)
	}
	families, err := legacyregistry.DefaultGatherer.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		if f.GetName() != "kubernetes_feature_enabled" {
			continue
		}
		for _, m := range f.Metric { // by name and stage
			got[m.Label[0].GetValue()+" "+m.Label[1].GetValue()] = m.GetGauge().GetValue()
		}
	}
	for key, want := range map[string]float64{"NativeHistograms BETA": 0, "AllAlpha ALPHA": 0, "UserNamespacesSupport ": 1, "APIServerIdentity BETA": 1} {
		if value, ok := got[key]; !ok || value != want {
			t.Errorf("%s is %v (there: %t)", key, value, ok)
		}
	}
}
