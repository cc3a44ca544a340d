// Package limitrange serves v1 LimitRange.
package limitrange

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/uuid"

	"github.com/leme-k8s/leme/pkg/api/core"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/generic"
)

// Storage returns the storage of limitranges.
func Storage(o generic.Options) (generic.Storage, error) {
	return generic.NewStorage(generic.Resource[*corev1.LimitRange]{
		GroupVersion: corev1.SchemeGroupVersion,
		Name:         "limitranges",
		Singular:     "limitrange",
		ShortNames:   []string{"limits"},
		New:          func() *corev1.LimitRange { return &corev1.LimitRange{} },
		NewList:      func() runtime.Object { return &corev1.LimitRangeList{} },

		// A PUT that creates may come without a name.
		CreateOnUpdate: true,
		PrepareForCreate: func(_ context.Context, obj *corev1.LimitRange) {
			if obj.Name == "" {
				obj.Name = string(uuid.NewUUID())
			}
		},
		Validate:       generic.Check(core.ValidateLimitRange),
		ValidateUpdate: generic.CheckUpdate(core.ValidateLimitRangeUpdate),
	}, o)
}
