package scheduler

import (
	"fmt"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/leme-k8s/leme/pkg/scheduler/framework"
)

func TestGates(t *testing.T) {
	for _, tc := range []struct {
		given map[string]bool
		want  framework.Gates
		err   string
	}{
		{given: nil},
		{given: map[string]bool{"GenericWorkload": false}},
		{given: map[string]bool{"NativeHistograms": false}},
		{given: map[string]bool{"GenericWorkload": true}, want: framework.Gates{GenericWorkload: true}},
		{given: map[string]bool{"GenericWorkload": true, "TopologyAwareWorkloadScheduling": true, "PodGroupPreemptionPolicy": true},
			want: framework.Gates{GenericWorkload: true, TopologyAwareWorkloadScheduling: true, PodGroupPreemptionPolicy: true}},
		{given: map[string]bool{"GenericWorkload": true, "DRAWorkloadResourceClaims": true}, want: framework.Gates{GenericWorkload: true, DRAWorkloadResourceClaims: true}},
		{given: map[string]bool{"DRAWorkloadResourceClaims": true}, err: "DRAWorkloadResourceClaims is enabled, but depends on features that are disabled: [GenericWorkload]"},
		{given: map[string]bool{"TopologyAwareWorkloadScheduling": true}, err: "TopologyAwareWorkloadScheduling is enabled, but depends on features that are disabled: [GenericWorkload]"},
		{given: map[string]bool{"GenericWorkload": true, "TopologyAwareWorkloadScheduling": true, "CompositePodGroup": true},
			want: framework.Gates{GenericWorkload: true, TopologyAwareWorkloadScheduling: true, CompositePodGroup: true}},
		{given: map[string]bool{"CompositePodGroup": true}, err: "CompositePodGroup is enabled, but depends on features that are disabled: [GenericWorkload TopologyAwareWorkloadScheduling]"},
		{given: map[string]bool{"TopologyAwareWorkloadScheduling": true, "CompositePodGroup": true},
			err: "[TopologyAwareWorkloadScheduling is enabled, but depends on features that are disabled: [GenericWorkload], CompositePodGroup is enabled, but depends on features that are disabled: [GenericWorkload]]"},
		{given: map[string]bool{"GangScheduling": true}, err: "unrecognized feature gate: GangScheduling"},
	} {
		got, err := gatesOf(tc.given)
		if got != tc.want || tc.err != "" && fmt.Sprint(err) != tc.err || tc.err == "" && err != nil {
			t.Errorf("%v: %v (%v), want %v (%s)", tc.given, got, err, tc.want, tc.err)
		}
	}
}

// TestGateNames wants gates under both of their names to reach what they switch.
func TestGateNames(t *testing.T) {
	for flag, want := range map[string]bool{
		"--feature-gates=GenericWorkload=false":       true,
		"--feature-gates=NativeHistograms=false":      false,
		"--feature-gates=kube:NativeHistograms=false": false,
	} {
		o := NewOptions()
		fs := pflag.NewFlagSet("", pflag.ContinueOnError)
		o.AddFlags(fs)
		if err := fs.Parse([]string{flag}); err != nil {
			t.Fatal(err)
		}
		if _, err := o.New(t.Context()); err == nil || strings.Contains(err.Error(), "feature-gates") { // there is no kubeconfig
			t.Errorf("%s: %v", flag, err)
		}
		if got := o.serving.NativeHistograms; got != want {
			t.Errorf("%s: native histograms %t", flag, got)
		}
	}
}
