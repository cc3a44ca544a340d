package testcluster

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/restmapper"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
)

var (
	crdKind     = apiextensionsv1.SchemeGroupVersion.WithKind("CustomResourceDefinition")
	crdResource = apiextensionsv1.SchemeGroupVersion.WithResource("customresourcedefinitions")
)

// create creates what the options ask for.
func (c *Cluster) create(ctx context.Context, o *options) error {
	if len(o.crdPaths) == 0 && len(o.objects) == 0 {
		return nil
	}
	var crds, others []*unstructured.Unstructured
	for _, path := range o.crdPaths {
		found, err := readCRDs(path)
		if err != nil {
			return fmt.Errorf("WithCRDs: %w", err)
		}
		crds = append(crds, found...)
	}
	for i, obj := range o.objects {
		u, err := toUnstructured(obj)
		if err != nil {
			return fmt.Errorf("WithObjects: object %d (%T): %w", i, obj, err)
		}
		if u.GroupVersionKind() == crdKind {
			crds = append(crds, u)
		} else {
			others = append(others, u)
		}
	}
	client, err := dynamic.NewForConfig(c.Config)
	if err != nil {
		return err
	}
	dc, err := discovery.NewDiscoveryClientForConfig(c.Config)
	if err != nil {
		return err
	}
	for _, crd := range crds {
		if _, err := client.Resource(crdResource).Create(ctx, crd, metav1.CreateOptions{}); err != nil {
			return fmt.Errorf("creating CustomResourceDefinition %s: %w", crd.GetName(), err)
		}
	}
	for _, crd := range crds {
		if err := awaitServed(ctx, client, dc, crd.GetName()); err != nil {
			return fmt.Errorf("CustomResourceDefinition %s: %w", crd.GetName(), err)
		}
	}
	return createOthers(ctx, client, dc, others)
}

// createOthers creates objects of kinds that are served.
func createOthers(ctx context.Context, client dynamic.Interface, dc discovery.DiscoveryInterface, objects []*unstructured.Unstructured) error {
	if len(objects) == 0 {
		return nil
	}
	resources, err := restmapper.GetAPIGroupResources(dc)
	if err != nil {
		return err
	}
	mapper := restmapper.NewDiscoveryRESTMapper(resources)
	for _, obj := range objects {
		kind := obj.GroupVersionKind()
		m, err := mapper.RESTMapping(kind.GroupKind(), kind.Version)
		if err != nil {
			return fmt.Errorf("creating %s %s: %w", kind.Kind, obj.GetName(), err)
		}
		var api dynamic.ResourceInterface = client.Resource(m.Resource)
		if m.Scope.Name() == meta.RESTScopeNameNamespace {
			if obj.GetNamespace() == "" {
				obj.SetNamespace(corev1.NamespaceDefault)
			}
			api = client.Resource(m.Resource).Namespace(obj.GetNamespace())
		}
		if _, err := api.Create(ctx, obj, metav1.CreateOptions{}); err != nil {
			return fmt.Errorf("creating %s %s: %w", kind.Kind, obj.GetName(), err)
		}
	}
	return nil
}

// awaitServed waits until clients find what a definition defines.
func awaitServed(ctx context.Context, client dynamic.Interface, dc discovery.DiscoveryInterface, name string) error {
	return poll(ctx, func() (bool, error, error) {
		u, err := client.Resource(crdResource).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return false, nil, err
		}
		var crd apiextensionsv1.CustomResourceDefinition
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, &crd); err != nil {
			return false, nil, err
		}
		established := false
		for _, cond := range crd.Status.Conditions {
			switch {
			case cond.Type == apiextensionsv1.NamesAccepted && cond.Status == apiextensionsv1.ConditionFalse:
				return false, nil, fmt.Errorf("%s: %s", cond.Reason, cond.Message)
			case cond.Type == apiextensionsv1.Established && cond.Status == apiextensionsv1.ConditionTrue:
				established = true
			}
		}
		if !established {
			return false, errors.New("it is not established"), nil
		}
		for _, v := range crd.Spec.Versions {
			if !v.Served {
				continue
			}
			gv := schema.GroupVersion{Group: crd.Spec.Group, Version: v.Name}
			list, err := dc.ServerResourcesForGroupVersion(gv.String())
			if err != nil && !apierrors.IsNotFound(err) {
				return false, nil, err
			}
			if err != nil || !slices.ContainsFunc(list.APIResources, func(r metav1.APIResource) bool { return r.Name == crd.Spec.Names.Plural }) {
				return false, fmt.Errorf("discovery does not list %s in %s", crd.Spec.Names.Plural, gv), nil
			}
		}
		return true, nil, nil
	})
}

// readCRDs returns the definitions in a file, or in the files of a directory.
func readCRDs(path string) ([]*unstructured.Unstructured, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	files := []string{path}
	if info.IsDir() {
		entries, err := os.ReadDir(path)
		if err != nil {
			return nil, err
		}
		files = nil
		for _, e := range entries {
			if ext := filepath.Ext(e.Name()); !e.IsDir() && (ext == ".yaml" || ext == ".yml" || ext == ".json") {
				files = append(files, filepath.Join(path, e.Name()))
			}
		}
	}
	var found []*unstructured.Unstructured
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			return nil, err
		}
		crds, err := decodeCRDs(data)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f, err)
		}
		found = append(found, crds...)
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("%s: there is no CustomResourceDefinition", path)
	}
	return found, nil
}

// decodeCRDs returns the definitions among the documents of a file.
func decodeCRDs(data []byte) ([]*unstructured.Unstructured, error) {
	var found []*unstructured.Unstructured
	documents := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(data)))
	for {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return found, nil
		}
		if err != nil {
			return nil, err
		}
		u := &unstructured.Unstructured{}
		if err := utilyaml.Unmarshal(document, &u.Object); err != nil {
			return nil, err
		}
		switch kind := u.GroupVersionKind(); {
		case kind == crdKind:
			found = append(found, u)
		case kind.GroupKind() == crdKind.GroupKind():
			return nil, fmt.Errorf("%s: version %s of CustomResourceDefinition is not served, only v1", u.GetName(), kind.Version)
		}
	}
}

// toUnstructured returns a copy of obj that says what kind it is of.
func toUnstructured(obj runtime.Object) (*unstructured.Unstructured, error) {
	if u, ok := obj.(*unstructured.Unstructured); ok {
		return u.DeepCopy(), nil
	}
	kind := obj.GetObjectKind().GroupVersionKind()
	if kind.Empty() {
		known := runtime.NewScheme()
		if err := errors.Join(scheme.AddToScheme(known), apiextensionsv1.AddToScheme(known), apiregistrationv1.AddToScheme(known)); err != nil {
			return nil, err
		}
		kinds, _, err := known.ObjectKinds(obj)
		if err != nil {
			return nil, fmt.Errorf("it is not of a built-in kind: set its apiVersion and kind: %w", err)
		}
		kind = kinds[0]
	}
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(obj)
	if err != nil {
		return nil, err
	}
	u := &unstructured.Unstructured{Object: content}
	u.SetGroupVersionKind(kind)
	return u, nil
}
