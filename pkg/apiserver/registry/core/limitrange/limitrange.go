// Package limitrange serves v1 LimitRange.
package limitrange

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/uuid"

	"github.com/leme-k8s/leme/pkg/api/core"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/generic"
)

// Storage returns the storage of limitranges.
var Storage = generic.StorageOf(generic.Resource[*corev1.LimitRange]{
	GroupVersion: corev1.SchemeGroupVersion,
	Name:         "limitranges",
	ShortNames:   []string{"limits"},

	// A PUT that creates may come without a name.
	CreateOnUpdate: true,
	PrepareForCreate: func(_ context.Context, obj *corev1.LimitRange) {
		if obj.Name == "" {
			obj.Name = string(uuid.NewUUID())
		}
	},
	Validate:       generic.Check(core.ValidateLimitRange),
	ValidateUpdate: generic.CheckUpdate(core.ValidateLimitRangeUpdate),
})
