// Package runtimeclass serves node.k8s.io/v1 RuntimeClass.
package runtimeclass

import (
	nodev1 "k8s.io/api/node/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/leme-k8s/leme/pkg/api/node"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/generic"
)

// Storage returns the storage of runtimeclasses.
var Storage = generic.StorageOf(generic.Resource[*nodev1.RuntimeClass]{
	GroupVersion:  nodev1.SchemeGroupVersion,
	Name:          "runtimeclasses",
	ClusterScoped: true,

	CreateOnUpdate:         true,
	RequireResourceVersion: true,
	Validate:               generic.Check(node.ValidateRuntimeClass),
	ValidateUpdate:         generic.CheckUpdate(node.ValidateRuntimeClassUpdate),
	Warnings:               generic.Warn(node.WarningsRuntimeClass),

	Columns: []metav1.TableColumnDefinition{
		generic.NameColumn,
		generic.Column("Handler", "string", ""),
		generic.AgeColumn,
	},
	Cells: func(c *nodev1.RuntimeClass) []any {
		return []any{c.Name, c.Handler, generic.Age(c.CreationTimestamp)}
	},
})
