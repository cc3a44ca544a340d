// Package configmap serves v1 ConfigMap.
package configmap

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/leme-k8s/leme/pkg/api/core"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/generic"
)

// Storage returns the storage of configmaps.
var Storage = generic.StorageOf(generic.Resource[*corev1.ConfigMap]{
	GroupVersion: corev1.SchemeGroupVersion,
	Name:         "configmaps",
	ShortNames:   []string{"cm"},

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
})
