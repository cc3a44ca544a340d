package aggregation

import (
	"slices"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/sets"
)

func TestVersionsOf(t *testing.T) {
	got := versionsOf([]string{
		"/", "/api", "/api/v1", "/apis", "/apis/", "/apis/apps", "/apis/apps/v1", "/apis/batch/v1", "/healthz", "/livez/poststarthook/x", "/openapi/v3/", "/apis/a/v1/b",
	})
	want := []schema.GroupVersion{{Version: "v1"}, {Group: "apps", Version: "v1"}, {Group: "batch", Version: "v1"}}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestLocalPriority(t *testing.T) {
	for gv, want := range map[schema.GroupVersion]priority{
		{Version: "v1"}:                                           {18000, 1},
		{Group: "apps", Version: "v1"}:                            {17800, 15},
		{Group: "autoscaling", Version: "v2"}:                     {17500, 30},
		{Group: "certificates.k8s.io", Version: "v1beta1"}:        {17300, 9},
		{Group: "resource.k8s.io", Version: "v1beta2"}:            {16200, 15},
		{Group: "unheard-of.example.com", Version: "v1"}:          {1000, 15},
		{Group: "coordination.k8s.io", Version: "v1alpha2"}:       {16500, 12},
		{Group: "storagemigration.k8s.io", Version: "v1beta1"}:    {15800, 9},
		{Group: "flowcontrol.apiserver.k8s.io", Version: "v1"}:    {16100, 21},
		{Group: "internal.apiserver.k8s.io", Version: "v1alpha1"}: {16000, 9},
	} {
		if got := local(gv); got != want {
			t.Errorf("%v: got %v, want %v", gv, got, want)
		}
	}
}

func TestDefined(t *testing.T) {
	crd := func(group string, versions ...apiextensionsv1.CustomResourceDefinitionVersion) *apiextensionsv1.CustomResourceDefinition {
		return &apiextensionsv1.CustomResourceDefinition{Spec: apiextensionsv1.CustomResourceDefinitionSpec{Group: group, Versions: versions}}
	}
	got := defined([]*apiextensionsv1.CustomResourceDefinition{
		crd("a.example.com", apiextensionsv1.CustomResourceDefinitionVersion{Name: "v1", Served: true}, apiextensionsv1.CustomResourceDefinitionVersion{Name: "v1beta1"}),
		crd("a.example.com", apiextensionsv1.CustomResourceDefinitionVersion{Name: "v1", Served: true}),
		crd("b.example.com", apiextensionsv1.CustomResourceDefinitionVersion{Name: "v2", Served: true}),
	})
	if want := sets.New(schema.GroupVersion{Group: "a.example.com", Version: "v1"}, schema.GroupVersion{Group: "b.example.com", Version: "v2"}); !got.Equal(want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
