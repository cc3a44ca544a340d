package component

import (
	"strings"
	"testing"
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
