// Package prioritylevelconfiguration serves flowcontrol.apiserver.k8s.io/v1 PriorityLevelConfiguration.
package prioritylevelconfiguration

import (
	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/leme-k8s/leme/pkg/api/flowcontrol"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/generic"
)

var queuingDoc = flowcontrolv1.QueuingConfiguration{}.SwaggerDoc()

// Storage returns the storage of prioritylevelconfigurations and prioritylevelconfigurations/status.
var Storage = generic.StorageOf(generic.Resource[*flowcontrolv1.PriorityLevelConfiguration]{
	GroupVersion:  flowcontrolv1.SchemeGroupVersion,
	Name:          "prioritylevelconfigurations",
	ClusterScoped: true,

	Status: &generic.Update[*flowcontrolv1.PriorityLevelConfiguration]{
		KeepsMetadata: true,
		Validate:      generic.CheckUpdate(flowcontrol.ValidatePriorityLevelConfigurationStatusUpdate),
	},

	Generation:     generic.SpecChanged[*flowcontrolv1.PriorityLevelConfiguration],
	Validate:       generic.Check(flowcontrol.ValidatePriorityLevelConfiguration),
	ValidateUpdate: generic.CheckUpdate(flowcontrol.ValidatePriorityLevelConfigurationUpdate),

	Columns: []metav1.TableColumnDefinition{
		generic.NameColumn,
		generic.Column("Type", "string", flowcontrolv1.PriorityLevelConfigurationSpec{}.SwaggerDoc()["type"]),
		generic.Column("NominalConcurrencyShares", "string", flowcontrolv1.LimitedPriorityLevelConfiguration{}.SwaggerDoc()["nominalConcurrencyShares"]),
		generic.Column("Queues", "string", queuingDoc["queues"]),
		generic.Column("HandSize", "string", queuingDoc["handSize"]),
		generic.Column("QueueLengthLimit", "string", queuingDoc["queueLengthLimit"]),
		generic.AgeColumn,
	},
	Cells: func(c *flowcontrolv1.PriorityLevelConfiguration) []any {
		const none = "<none>"
		var shares, queues, hand, length any = none, none, none, none
		if l := c.Spec.Limited; l != nil {
			shares = int64(*l.NominalConcurrencyShares)
			if q := l.LimitResponse.Queuing; q != nil {
				queues, hand, length = int64(q.Queues), int64(q.HandSize), int64(q.QueueLengthLimit)
			}
		}
		return []any{c.Name, string(c.Spec.Type), shares, queues, hand, length, generic.Age(c.CreationTimestamp)}
	},
})
