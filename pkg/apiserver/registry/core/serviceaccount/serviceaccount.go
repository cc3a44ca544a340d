// Package serviceaccount serves v1 ServiceAccount.
package serviceaccount

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/leme-k8s/leme/pkg/api/core"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/generic"
)

// New returns the store of serviceaccounts. Who assembles the server adds the token
// subresource, which needs the store of pods, secrets and nodes too.
func New(o generic.Options) (*generic.Store[*corev1.ServiceAccount], error) {
	return generic.NewStore(generic.Resource[*corev1.ServiceAccount]{
		GroupVersion: corev1.SchemeGroupVersion,
		Name:         "serviceaccounts",
		ShortNames:   []string{"sa"},

		PrepareForCreate: func(_ context.Context, obj *corev1.ServiceAccount) { keepSecretNames(obj) },
		Validate:         generic.Check(core.ValidateServiceAccount),
		PrepareForUpdate: func(_ context.Context, obj, _ *corev1.ServiceAccount) { keepSecretNames(obj) },
		ValidateUpdate:   generic.CheckUpdate(core.ValidateServiceAccountUpdate),
		Warnings:         generic.Warn(core.WarningsServiceAccount),

		ReturnDeleted: true,

		Columns: []metav1.TableColumnDefinition{generic.NameColumn, generic.AgeColumn},
		Cells: func(sa *corev1.ServiceAccount) []any {
			return []any{sa.Name, generic.Age(sa.CreationTimestamp)}
		},
	}, o)
}

// keepSecretNames drops all but the names of referenced secrets: the rest says nothing.
func keepSecretNames(sa *corev1.ServiceAccount) {
	for i, ref := range sa.Secrets {
		sa.Secrets[i] = corev1.ObjectReference{Name: ref.Name}
	}
}
