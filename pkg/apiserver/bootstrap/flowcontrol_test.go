package bootstrap

import (
	"testing"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/apis/flowcontrol/bootstrap"
)

// level is a suggested or mandatory level as somebody has left it.
func level(t *testing.T, name string, generation int64, auto string, shares int32) flowcontrolv1.PriorityLevelConfiguration {
	t.Helper()
	for _, l := range append(bootstrap.MandatoryPriorityLevelConfigurations, bootstrap.SuggestedPriorityLevelConfigurations...) {
		if l.Name != name {
			continue
		}
		c := *l.DeepCopy()
		c.Generation = generation
		c.Annotations = nil
		if auto != "" {
			metav1.SetMetaDataAnnotation(&c.ObjectMeta, flowcontrolv1.AutoUpdateAnnotationKey, auto)
		}
		if shares > 0 && c.Spec.Limited != nil {
			c.Spec.Limited.NominalConcurrencyShares = &shares
		} else if shares > 0 {
			c.Spec.Exempt.NominalConcurrencyShares = &shares
		}
		return c
	}
	t.Fatalf("no level %s", name)
	return flowcontrolv1.PriorityLevelConfiguration{}
}

func TestPlanFlowControl(t *testing.T) {
	for name, tc := range map[string]struct {
		level      string
		generation int64
		auto       string
		shares     int32
		// auto and shares after the update; none if wantAuto is empty.
		wantAuto   string
		wantShares int32
	}{
		"suggested, as it should be":            {level: "system", generation: 1, auto: "true"},
		"suggested, changed, ours":              {level: "system", generation: 2, auto: "true", shares: 7, wantAuto: "true", wantShares: 30},
		"suggested, changed, theirs":            {level: "system", generation: 2, auto: "false", shares: 7},
		"suggested, not said, never changed":    {level: "system", generation: 1, shares: 7, wantAuto: "true", wantShares: 30},
		"suggested, not said, changed":          {level: "system", generation: 2, shares: 7, wantAuto: "false", wantShares: 7},
		"suggested, nonsense said":              {level: "system", generation: 2, auto: "maybe", wantAuto: "false", wantShares: 30},
		"mandatory, as it should be":            {level: "catch-all", generation: 1, auto: "true"},
		"mandatory, changed, theirs":            {level: "catch-all", generation: 2, auto: "false", shares: 7, wantAuto: "true", wantShares: 5},
		"exempt lends what administrators want": {level: "exempt", generation: 2, auto: "true", shares: 7},
	} {
		t.Run(name, func(t *testing.T) {
			c := level(t, tc.level, tc.generation, tc.auto, tc.shares)
			plan := planLevels([]flowcontrolv1.PriorityLevelConfiguration{c})
			if len(plan.create) != 7 || len(plan.remove) != 0 {
				t.Errorf("%d to create, %d to remove", len(plan.create), len(plan.remove))
			}
			switch {
			case tc.wantAuto == "" && len(plan.update) > 0:
				t.Errorf("updated to %+v", plan.update[0])
			case tc.wantAuto != "" && len(plan.update) != 1:
				t.Errorf("not updated")
			case tc.wantAuto != "":
				got := plan.update[0]
				if auto := got.Annotations[flowcontrolv1.AutoUpdateAnnotationKey]; auto != tc.wantAuto {
					t.Errorf("says %q", auto)
				}
				if shares := *got.Spec.Limited.NominalConcurrencyShares; shares != tc.wantShares {
					t.Errorf("has %d shares", shares)
				}
			}
		})
	}
	for auto, want := range map[string]int{"true": 1, "false": 0, "": 0} {
		c := level(t, "system", 1, auto, 0)
		c.Name = "of-another-version"
		if plan := planLevels([]flowcontrolv1.PriorityLevelConfiguration{c}); len(plan.remove) != want {
			t.Errorf("an unknown level that says %q: %d removed", auto, len(plan.remove))
		}
	}
	for _, f := range planSchemas(nil).create {
		if f.Annotations[flowcontrolv1.AutoUpdateAnnotationKey] != "true" {
			t.Errorf("new FlowSchema %s: annotations %v", f.Name, f.Annotations)
		}
	}
}
