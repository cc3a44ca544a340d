// Package secret serves v1 Secret.
package secret

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"

	"github.com/leme-k8s/leme/pkg/api/core"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/generic"
)

var doc = corev1.Secret{}.SwaggerDoc()

// New returns the store of secrets.
func New(o generic.Options) (*generic.Store[*corev1.Secret], error) {
	return generic.NewStore(generic.Resource[*corev1.Secret]{
		GroupVersion: corev1.SchemeGroupVersion,
		Name:         "secrets",

		Validate: generic.Check(core.ValidateSecret),
		PrepareForUpdate: func(_ context.Context, obj, old *corev1.Secret) {
			if obj.Type == "" {
				obj.Type = old.Type
			}
		},
		ValidateUpdate: generic.CheckUpdate(core.ValidateSecretUpdate),
		Warnings:       generic.Warn(core.WarningsSecret),

		Fields: func(s *corev1.Secret) fields.Set { return fields.Set{"type": string(s.Type)} },
		Columns: []metav1.TableColumnDefinition{
			generic.NameColumn,
			generic.Column("Type", "string", doc["type"]),
			generic.Column("Data", "string", doc["data"]),
			generic.AgeColumn,
		},
		Cells: func(s *corev1.Secret) []any {
			return []any{s.Name, string(s.Type), int64(len(s.Data)), generic.Age(s.CreationTimestamp)}
		},
	}, o)
}
