// Package mutatingwebhookconfiguration serves admissionregistration.k8s.io/v1 MutatingWebhookConfiguration.
package mutatingwebhookconfiguration

import (
	"context"
	"reflect"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/leme-k8s/leme/pkg/api/admissionregistration"
	"github.com/leme-k8s/leme/pkg/apiserver/internal/reviews"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/generic"
)

type configuration = admissionregistrationv1.MutatingWebhookConfiguration

// Storage returns the storage of mutatingwebhookconfigurations.
var Storage = generic.StorageOf(generic.Resource[*configuration]{
	GroupVersion:  admissionregistrationv1.SchemeGroupVersion,
	Name:          "mutatingwebhookconfigurations",
	Categories:    []string{"api-extensions"},
	ClusterScoped: true,

	Generation:             func(c, old *configuration) bool { return !reflect.DeepEqual(c.Webhooks, old.Webhooks) }, // an empty list is not none
	RequireResourceVersion: true,
	Validate:               generic.Check(admissionregistration.ValidateMutatingWebhookConfiguration),
	ValidateUpdate:         generic.CheckUpdate(admissionregistration.ValidateMutatingWebhookConfigurationUpdate),
	Warnings: func(_ context.Context, c, _ *configuration) []string {
		return admissionregistration.WarnMutatingWebhookConfiguration(c, reviews.Resources())
	},

	Columns: []metav1.TableColumnDefinition{
		generic.NameColumn,
		generic.Column("Webhooks", "integer", "Webhooks indicates the number of webhooks registered in this configuration"),
		generic.AgeColumn,
	},
	Cells: func(c *configuration) []any {
		return []any{c.Name, int64(len(c.Webhooks)), generic.Age(c.CreationTimestamp)}
	},
})
