// Package deletion deletes objects without looking at the answer. controller-runtime's client decodes the object that comes back,
// encodes it and decodes it again, to learn the version that a deletion has made.
package deletion

import (
	"context"
	"fmt"
	"net/http"
	"sync"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"
)

// NewClient returns c, but for deletions of objects that are Go types.
func NewClient(c client.Client, cfg *rest.Config, hc *http.Client) client.Client {
	return &deleting{Client: c, config: cfg, http: hc, kinds: map[schema.GroupVersionKind]*kind{}}
}

type deleting struct {
	client.Client
	config *rest.Config
	http   *http.Client

	mu    sync.Mutex
	kinds map[schema.GroupVersionKind]*kind
}

// A kind is how its objects are reached.
type kind struct {
	rest.Interface
	resource   string
	namespaced bool
}

// Delete implements client.Writer.
func (d *deleting) Delete(ctx context.Context, obj client.Object, opts ...client.DeleteOption) error {
	switch obj.(type) {
	case *metav1.PartialObjectMetadata, runtime.Unstructured:
		return d.Client.Delete(ctx, obj, opts...)
	}
	k, err := d.kindOf(obj)
	if err != nil {
		return err
	}
	options := (&client.DeleteOptions{}).ApplyOptions(opts).AsDeleteOptions()
	return k.Delete().NamespaceIfScoped(obj.GetNamespace(), k.namespaced).Resource(k.resource).Name(obj.GetName()).Body(options).Do(ctx).Error()
}

func (d *deleting) kindOf(obj client.Object) (*kind, error) {
	gvk, err := d.GroupVersionKindFor(obj)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if k := d.kinds[gvk]; k != nil {
		return k, nil
	}
	mapping, err := d.RESTMapper().RESTMapping(gvk.GroupKind(), gvk.Version)
	if err != nil {
		return nil, fmt.Errorf("deleting %s: %w", gvk.Kind, err)
	}
	api, err := apiutil.RESTClientForGVK(gvk, false, false, d.config, serializer.NewCodecFactory(d.Scheme()), d.http)
	if err != nil {
		return nil, fmt.Errorf("deleting %s: %w", gvk.Kind, err)
	}
	k := &kind{api, mapping.Resource.Resource, mapping.Scope.Name() == meta.RESTScopeNameNamespace}
	d.kinds[gvk] = k
	return k, nil
}
