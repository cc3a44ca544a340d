package controller

import (
	"slices"
	"strings"
	"testing"

	"github.com/leme-k8s/leme/pkg/component"
)

func TestResolveGates(t *testing.T) {
	for name, c := range map[string]struct {
		given map[string]bool
		on    string // gates that are then on, and off
		off   string
		err   string
	}{
		"defaults":                      {on: gatePodDeletionCost, off: gateWorkloadWithJob},
		"heeded, off":                   {given: map[string]bool{gatePodDeletionCost: false}, off: gatePodDeletionCost, on: gateMaxUnavailable},
		"with the component's name":     {given: map[string]bool{"kube:" + gateMaxUnavailable: false}, off: gateMaxUnavailable},
		"a kubelet's":                   {given: map[string]bool{"KubeletCrashLoopBackOffMax": false}, off: "KubeletCrashLoopBackOffMax"},
		"what makes no difference here": {given: map[string]bool{"StaleControllerConsistencyJob": false}},
		"a default that is fixed":       {given: map[string]bool{"HPAScaleToZero": true}, on: "HPAScaleToZero"},
		"what is not there":             {given: map[string]bool{"HPAScaleToZero": false}, err: "cannot set feature gate HPAScaleToZero to false"},
		"what needs another":            {given: map[string]bool{gateGenericWorkload: true, gateWorkloadWithJob: true}, on: gateWorkloadWithJob, off: gateWorkloadClaims},
		"without what it needs":         {given: map[string]bool{gateWorkloadClaims: true}, err: "DRAWorkloadResourceClaims is enabled, but depends on features that are disabled: [GenericWorkload]"},
		"locked":                        {given: map[string]bool{"JobManagedBy": false}, err: "feature is locked to true"},
		"unknown":                       {given: map[string]bool{"Foo": true}, err: "unrecognized feature gate: Foo"},
	} {
		got, err := resolveGates(c.given)
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if err != nil || c.on != "" && !got[c.on] || got[c.off] {
			t.Errorf("%s: %t and %t, %v", name, got[c.on], got[c.off], err)
		}
	}
}

// A name that is misspelt here would be free, or off, for ever.
func TestGatesAreKubernetes(t *testing.T) {
	all, err := component.FeatureGates()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range slices.Concat(heededGates, fixed) {
		if _, found := all[name]; !found {
			t.Errorf("%s is no feature gate", name)
		}
	}
}
