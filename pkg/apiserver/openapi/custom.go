package openapi

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"

	"k8s.io/apiextensions-apiserver/pkg/apihelpers"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	crdlisters "k8s.io/apiextensions-apiserver/pkg/client/listers/apiextensions/v1"
	crdbuilder "k8s.io/apiextensions-apiserver/pkg/controller/openapi/builder"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apiserver/pkg/server/mux"
	"k8s.io/klog/v2"
	"k8s.io/kube-openapi/pkg/cached"
	"k8s.io/kube-openapi/pkg/handler"
	"k8s.io/kube-openapi/pkg/handler3"
	"k8s.io/kube-openapi/pkg/spec3"
	"k8s.io/kube-openapi/pkg/validation/spec"
)

// established returns the definitions of what is served, by name.
func established(lister crdlisters.CustomResourceDefinitionLister) ([]*apiextensionsv1.CustomResourceDefinition, error) {
	crds, err := lister.List(labels.Everything())
	if err != nil {
		return nil, fmt.Errorf("listing CustomResourceDefinitions: %w", err)
	}
	crds = slices.DeleteFunc(crds, func(crd *apiextensionsv1.CustomResourceDefinition) bool {
		return !apihelpers.IsCRDConditionTrue(crd, apiextensionsv1.Established)
	})
	slices.SortFunc(crds, func(a, b *apiextensionsv1.CustomResourceDefinition) int { return strings.Compare(a.Name, b.Name) })
	return crds, nil
}

// revision changes whenever the specification of crd does.
func revision(crd *apiextensionsv1.CustomResourceDefinition) string {
	return fmt.Sprintf("%s,%d", crd.UID, crd.Generation)
}

// undocumented is what becomes of a resource that cannot be described: others must not
// suffer.
func undocumented(crd *apiextensionsv1.CustomResourceDefinition, err error) {
	klog.Background().Error(err, "No OpenAPI document of a custom resource", "crd", crd.Name)
}

// customV2 is the document of built-in kinds and of what is defined at the moment.
type customV2 struct {
	builtin *spec.Swagger
	crds    crdlisters.CustomResourceDefinitionLister

	mu     sync.Mutex
	parts  map[string]*spec.Swagger // by revision
	merged *spec.Swagger
	etag   string
}

// Get implements cached.Value.
func (c *customV2) Get() (*spec.Swagger, string, error) {
	crds, err := established(c.crds)
	if err != nil {
		return nil, "", err
	}
	revisions := []string{"built-in"}
	for _, crd := range crds {
		revisions = append(revisions, revision(crd))
	}
	etag := strings.Join(revisions, ";")
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case etag == c.etag:
		return c.merged, c.etag, nil
	case len(crds) == 0:
		c.merged, c.etag, c.parts = c.builtin, etag, nil
		return c.merged, c.etag, nil
	}
	parts := make(map[string]*spec.Swagger, len(crds))
	var all []*spec.Swagger
	for _, crd := range crds {
		part := c.parts[revision(crd)]
		if part == nil {
			if part, err = customResourceV2(crd); err != nil {
				undocumented(crd, err)
				part = &spec.Swagger{}
			}
		}
		parts[revision(crd)] = part
		all = append(all, part)
	}
	merged, err := crdbuilder.MergeSpecs(c.builtin, all...)
	if err != nil {
		return nil, "", fmt.Errorf("merging what custom resources are: %w", err)
	}
	c.merged, c.etag, c.parts = merged, etag, parts
	return c.merged, c.etag, nil
}

// customResourceV2 is the document of all served versions.
func customResourceV2(crd *apiextensionsv1.CustomResourceDefinition) (*spec.Swagger, error) {
	all := &spec.Swagger{}
	for _, v := range crd.Spec.Versions {
		if !v.Served {
			continue
		}
		s, err := crdbuilder.BuildOpenAPIV2(crd, v.Name, crdbuilder.Options{V2: true, IncludeSelectableFields: true})
		if err != nil {
			return nil, err
		}
		s.Definitions = handler.PruneDefaults(s.Definitions) // as those of built-in kinds are
		if all, err = crdbuilder.MergeSpecs(all, s); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// customV3 serves a document of each version that is defined at the moment.
type customV3 struct {
	documents *handler3.OpenAPIService
	mux       *mux.PathRecorderMux
	builtin   *builtinV3
	crds      crdlisters.CustomResourceDefinitionLister

	mu        sync.Mutex
	revisions map[string]string // by path
}

func newCustomV3(builtin *builtinV3, crds crdlisters.CustomResourceDefinitionLister) (*customV3, error) {
	c := &customV3{
		documents: handler3.NewOpenAPIService(), mux: mux.NewPathRecorderMux("openapi"),
		builtin: builtin, crds: crds, revisions: map[string]string{},
	}
	if err := c.documents.RegisterOpenAPIV3VersionedService("/openapi/v3", c.mux); err != nil {
		return nil, err
	}
	return c, nil
}

// ServeHTTP implements http.Handler.
func (c *customV3) ServeHTTP(w http.ResponseWriter, r *http.Request) { c.mux.ServeHTTP(w, r) }

// update takes in what has been defined since, and reports whether something has.
func (c *customV3) update() (bool, error) {
	crds, err := established(c.crds)
	if err != nil {
		return false, err
	}
	type version struct {
		name, revision string
		crds           []*apiextensionsv1.CustomResourceDefinition
	}
	versions := map[string]*version{}
	for _, crd := range crds {
		for _, v := range crd.Spec.Versions {
			path := "apis/" + crd.Spec.Group + "/" + v.Name
			if !v.Served || c.builtin.documents[path] != nil {
				continue
			}
			if versions[path] == nil {
				versions[path] = &version{name: v.Name}
			}
			versions[path].crds = append(versions[path].crds, crd)
			versions[path].revision += revision(crd) + ";"
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	changed := false
	for path, v := range versions {
		if c.revisions[path] == v.revision {
			continue
		}
		c.documents.UpdateGroupVersionLazy(path, cached.Once(cached.Func(func() (*spec3.OpenAPI, string, error) {
			s, err := customVersionV3(v.crds, v.name)
			return s, v.revision, err
		})))
		c.revisions[path], changed = v.revision, true
	}
	for path := range c.revisions {
		if versions[path] == nil {
			c.documents.DeleteGroupVersion(path)
			delete(c.revisions, path)
			changed = true
		}
	}
	return changed, nil
}

// customVersionV3 is the document of one version of a group.
func customVersionV3(crds []*apiextensionsv1.CustomResourceDefinition, version string) (*spec3.OpenAPI, error) {
	var all []*spec3.OpenAPI
	for _, crd := range crds {
		s, err := crdbuilder.BuildOpenAPIV3(crd, version, crdbuilder.Options{IncludeSelectableFields: true})
		if err != nil {
			undocumented(crd, err)
			continue
		}
		all = append(all, s)
	}
	return crdbuilder.MergeSpecsV3(all...)
}
