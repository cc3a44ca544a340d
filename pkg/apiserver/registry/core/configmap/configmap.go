// Package configmap serves v1 ConfigMap.
package configmap

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/leme-k8s/leme/pkg/api/core"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/generic"
)

// Storage returns the storage of configmaps.
func Storage(o generic.Options) (generic.Storage, error) {
	return generic.NewStorage(generic.Resource[*corev1.ConfigMap]{
		GroupVersion: corev1.SchemeGroupVersion,
		Name:         "configmaps",
		Singular:     "configmap",
		ShortNames:   []string{"cm"},
		New:          func() *corev1.ConfigMap { return &corev1.ConfigMap{} },
		NewList:      func() runtime.Object { return &corev1.ConfigMapList{} },

		Validate:       generic.Check(core.ValidateConfigMap),
		ValidateUpdate: generic.CheckUpdate(core.ValidateConfigMapUpdate),

		Columns: []metav1.TableColumnDefinition{
			generic.NameColumn,
			generic.Column("Data", "string", corev1.ConfigMap{}.SwaggerDoc()["data"]),
			generic.AgeColumn,
		},
		Cells: func(cm *corev1.ConfigMap) []any {
			return []any{cm.Name, int64(len(cm.Data) + len(cm.BinaryData)), generic.Age(cm.CreationTimestamp)}
		},
	}, o)
}
