// Package devicetaintrule serves resource.k8s.io/v1 DeviceTaintRule.
package devicetaintrule

import (
	"context"
	"time"

	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/leme-k8s/leme/pkg/api/resource"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/generic"
)

// Storage returns the storage of devicetaintrules and devicetaintrules/status.
var Storage = generic.StorageOf(rules)

// BetaStorage is Storage as v1beta2 and v1alpha3 have it: an update need not say what it replaces, and
// a deletion is answered with the rule.
func BetaStorage(o generic.Options) (generic.Storage, error) {
	beta := rules
	beta.RequireResourceVersion, beta.ReturnDeleted = false, true
	return generic.NewStorage(beta, o)
}

var taintDoc = resourcev1.DeviceTaint{}.SwaggerDoc()

var rules = generic.Resource[*resourcev1.DeviceTaintRule]{
	GroupVersion:  resourcev1.SchemeGroupVersion,
	Name:          "devicetaintrules",
	ClusterScoped: true,

	Status: &generic.Update[*resourcev1.DeviceTaintRule]{
		KeepsMetadata: true,
		NoTable:       true,
		Validate:      generic.CheckUpdate(resource.ValidateDeviceTaintRuleStatusUpdate),
	},

	Generation:             generic.SpecChanged[*resourcev1.DeviceTaintRule],
	RequireResourceVersion: true,
	PrepareForUpdate: func(_ context.Context, r, old *resourcev1.DeviceTaintRule) {
		stampEffect(&r.Spec.Taint, &old.Spec.Taint, time.Now())
	},
	Validate:       generic.Check(resource.ValidateDeviceTaintRule),
	ValidateUpdate: generic.CheckUpdate(resource.ValidateDeviceTaintRuleUpdate),

	Columns: []metav1.TableColumnDefinition{
		generic.NameColumn,
		generic.Column("Key", "string", taintDoc["key"]),
		generic.Column("Value", "string", taintDoc["value"]),
		generic.Column("Effect", "string", taintDoc["effect"]),
		generic.Column("TimeAdded", "string", taintDoc["timeAdded"]),
		generic.AgeColumn,
	},
	Cells: func(r *resourcev1.DeviceTaintRule) []any {
		t, added := &r.Spec.Taint, ""
		if t.TimeAdded != nil {
			added = generic.Age(*t.TimeAdded)
		}
		return []any{r.Name, t.Key, t.Value, string(t.Effect), added, generic.Age(r.CreationTimestamp)}
	},
}

// stampEffect starts the time of a taint anew when what it does changes, since
// tolerations run from there. Who sets the time as well is left alone.
func stampEffect(t, old *resourcev1.DeviceTaint, now time.Time) {
	if t.Effect != old.Effect && t.TimeAdded.Equal(old.TimeAdded) {
		t.TimeAdded = &metav1.Time{Time: now.Truncate(time.Second)}
	}
}
