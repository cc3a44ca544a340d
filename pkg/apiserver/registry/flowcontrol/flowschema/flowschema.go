// Package flowschema serves flowcontrol.apiserver.k8s.io/v1 FlowSchema.
package flowschema

import (
	"cmp"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/leme-k8s/leme/pkg/api/flowcontrol"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/generic"
)

var specDoc = flowcontrolv1.FlowSchemaSpec{}.SwaggerDoc()

// Storage returns the storage of flowschemas and flowschemas/status.
var Storage = generic.StorageOf(generic.Resource[*flowcontrolv1.FlowSchema]{
	GroupVersion:  flowcontrolv1.SchemeGroupVersion,
	Name:          "flowschemas",
	ClusterScoped: true,

	Status: &generic.Update[*flowcontrolv1.FlowSchema]{
		KeepsMetadata: true,
		Validate:      generic.CheckUpdate(flowcontrol.ValidateFlowSchemaStatusUpdate),
	},

	Generation:     generic.SpecChanged[*flowcontrolv1.FlowSchema],
	Validate:       generic.Check(flowcontrol.ValidateFlowSchema),
	ValidateUpdate: generic.CheckUpdate(flowcontrol.ValidateFlowSchemaUpdate),

	Columns: []metav1.TableColumnDefinition{
		generic.NameColumn,
		generic.Column("PriorityLevel", "string", flowcontrolv1.PriorityLevelConfigurationReference{}.SwaggerDoc()["name"]),
		generic.Column("MatchingPrecedence", "string", specDoc["matchingPrecedence"]),
		generic.Column("DistinguisherMethod", "string", specDoc["distinguisherMethod"]),
		generic.AgeColumn,
		generic.Column("MissingPL", "string", "references a broken or non-existent PriorityLevelConfiguration"),
	},
	Cells: func(f *flowcontrolv1.FlowSchema) []any {
		method := "<none>"
		if d := f.Spec.DistinguisherMethod; d != nil {
			method = string(d.Type)
		}
		missing := "?"
		for _, c := range f.Status.Conditions {
			if c.Type == flowcontrolv1.FlowSchemaConditionDangling {
				missing = string(c.Status)
			}
		}
		return []any{
			f.Name, f.Spec.PriorityLevelConfiguration.Name, int64(f.Spec.MatchingPrecedence), method, generic.Age(f.CreationTimestamp), missing,
		}
	},
	// As requests are matched.
	CompareRows: func(a, b *flowcontrolv1.FlowSchema) int {
		return cmp.Or(cmp.Compare(a.Spec.MatchingPrecedence, b.Spec.MatchingPrecedence), cmp.Compare(a.Name, b.Name))
	},
})
