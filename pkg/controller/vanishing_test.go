package controller_test

import (
	"context"
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/client/clientset/clientset"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
)

// A definition of a kind goes while objects of that kind are collected, and comes back. All other garbage is collected
// meanwhile, and the kind's own again afterwards.
func testVanishingDefinition(t *testing.T, shared *cluster) {
	c := shared.in(t)
	ctx := t.Context()
	definitions, err := clientset.NewForConfig(c.cfg)
	c.must(err)
	objects, err := dynamic.NewForConfig(c.cfg)
	c.must(err)
	preserve := true
	definition := &apiextensionsv1.CustomResourceDefinition{
		ObjectMeta: metav1.ObjectMeta{Name: "ghosts.vanishing.example.com"},
		Spec: apiextensionsv1.CustomResourceDefinitionSpec{
			Group: "vanishing.example.com", Scope: apiextensionsv1.NamespaceScoped,
			Names: apiextensionsv1.CustomResourceDefinitionNames{Plural: "ghosts", Singular: "ghost", Kind: "Ghost", ListKind: "GhostList"},
			Versions: []apiextensionsv1.CustomResourceDefinitionVersion{{
				Name: "v1", Served: true, Storage: true, Schema: &apiextensionsv1.CustomResourceValidation{
					OpenAPIV3Schema: &apiextensionsv1.JSONSchemaProps{Type: "object", XPreserveUnknownFields: &preserve},
				},
			}},
		},
	}
	ghosts := objects.Resource(schema.GroupVersionResource{Group: "vanishing.example.com", Version: "v1", Resource: "ghosts"}).Namespace(c.ns)
	configMaps := c.cs.CoreV1().ConfigMaps(c.ns)

	owner := func(apiVersion, kind, name string, uid types.UID) []metav1.OwnerReference {
		return []metav1.OwnerReference{{APIVersion: apiVersion, Kind: kind, Name: name, UID: uid}}
	}
	configMap := func(name string, owners ...metav1.OwnerReference) *corev1.ConfigMap {
		o, err := configMaps.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name, OwnerReferences: owners}}, metav1.CreateOptions{})
		c.must(err)
		return o
	}
	ghost := func(name string, owners []metav1.OwnerReference) (ghost *unstructured.Unstructured) {
		o := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "vanishing.example.com/v1", "kind": "Ghost"}}
		o.SetName(name)
		o.SetOwnerReferences(owners)
		c.eventually("a ghost", func(ctx context.Context) (bool, string) { // once the kind is served
			var err error
			ghost, err = ghosts.Create(ctx, o, metav1.CreateOptions{})
			return err == nil, fmt.Sprint(err)
		})
		return ghost
	}
	gone := func(what string, get func(ctx context.Context) error) {
		c.eventually(what+" to go", func(ctx context.Context) (bool, string) {
			err := get(ctx)
			return apierrors.IsNotFound(err), fmt.Sprint(err)
		})
	}
	configMapGone := func(name string) {
		gone(name, func(ctx context.Context) error {
			_, err := configMaps.Get(ctx, name, metav1.GetOptions{})
			return err
		})
	}

	for round := range 2 {
		_, err = definitions.ApiextensionsV1().CustomResourceDefinitions().Create(ctx, definition, metav1.CreateOptions{})
		c.must(err)

		// The collector knows the kind as soon as it collects something of it.
		root := configMap(fmt.Sprint("known-", round))
		first := ghost("first", owner("v1", "ConfigMap", root.Name, root.UID))
		configMap(fmt.Sprint("of-first-", round), owner("vanishing.example.com/v1", "Ghost", "first", first.GetUID())...)
		c.must(configMaps.Delete(ctx, root.Name, metav1.DeleteOptions{}))
		gone("the first ghost", func(ctx context.Context) error {
			_, err := ghosts.Get(ctx, "first", metav1.GetOptions{})
			return err
		})
		configMapGone(fmt.Sprint("of-first-", round))

		root = configMap(fmt.Sprint("root-", round))
		for i := range 20 {
			g := ghost(fmt.Sprint("g", i), owner("v1", "ConfigMap", root.Name, root.UID))
			configMap(fmt.Sprint("of-ghost-", round, "-", i), owner("vanishing.example.com/v1", "Ghost", g.GetName(), g.GetUID())...)
		}
		c.must(configMaps.Delete(ctx, root.Name, metav1.DeleteOptions{}))
		c.must(definitions.ApiextensionsV1().CustomResourceDefinitions().Delete(ctx, definition.Name, metav1.DeleteOptions{}))
		gone("the definition", func(ctx context.Context) error {
			_, err := definitions.ApiextensionsV1().CustomResourceDefinitions().Get(ctx, definition.Name, metav1.GetOptions{})
			return err
		})

		other := configMap(fmt.Sprint("other-", round))
		configMap(fmt.Sprint("of-other-", round), owner("v1", "ConfigMap", other.Name, other.UID)...)
		c.must(configMaps.Delete(ctx, other.Name, metav1.DeleteOptions{}))
		configMapGone(fmt.Sprint("of-other-", round))
	}
	c.must(c.cs.CoreV1().Namespaces().Delete(ctx, c.ns, metav1.DeleteOptions{}))
	gone("the namespace", func(ctx context.Context) error {
		_, err := c.cs.CoreV1().Namespaces().Get(ctx, c.ns, metav1.GetOptions{})
		return err
	})
}
