// Package terse writes objects and reads no more of the answers than it must. Of what has been created or updated the metadata is asked for, which
// holds the new version; controller-runtime's client decodes the whole object. Of what has been deleted nothing is read; that client decodes the
// object that comes back, encodes it and decodes it again, to learn the version that a deletion has made.
package terse

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
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"
)

// accept asks for metadata. Errors come without.
const accept = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/vnd.kubernetes.protobuf,application/json"

// NewClient returns c, but for creations, updates and deletions of objects that are Go types. Such an object, when it has been written, has the
// metadata that it has been given; whether the rest is what it was written with or what has become of it is not said.
func NewClient(c client.Client, cfg *rest.Config, hc *http.Client) (client.Client, error) {
	answers := runtime.NewScheme()
	if err := metav1.AddMetaToScheme(answers); err != nil {
		return nil, err
	}
	return &writer{Client: c, config: cfg, http: hc, kinds: map[schema.GroupVersionKind]*kind{}, answers: serializer.NewCodecFactory(answers).UniversalDeserializer()}, nil
}

type writer struct {
	client.Client
	config  *rest.Config
	http    *http.Client
	answers runtime.Decoder

	mu    sync.Mutex
	kinds map[schema.GroupVersionKind]*kind
}

// A kind is how its objects are reached.
type kind struct {
	rest.Interface
	resource   string
	namespaced bool
}

// Create implements client.Writer.
func (w *writer) Create(ctx context.Context, obj client.Object, opts ...client.CreateOption) error {
	if untyped(obj) {
		return w.Client.Create(ctx, obj, opts...)
	}
	k, err := w.kindOf(obj)
	if err != nil {
		return err
	}
	r := k.Post()
	if len(opts) > 0 {
		r.VersionedParams((&client.CreateOptions{}).ApplyOptions(opts).AsCreateOptions(), scheme.ParameterCodec)
	}
	return w.write(ctx, k, r, obj)
}

// Update implements client.Writer.
func (w *writer) Update(ctx context.Context, obj client.Object, opts ...client.UpdateOption) error {
	if untyped(obj) {
		return w.Client.Update(ctx, obj, opts...)
	}
	o := &client.UpdateOptions{}
	o.ApplyOptions(opts)
	return w.update(ctx, obj, o.AsUpdateOptions())
}

// update updates an object or, if they are named, subresources of it.
func (w *writer) update(ctx context.Context, obj client.Object, o *metav1.UpdateOptions, subresources ...string) error {
	k, err := w.kindOf(obj)
	if err != nil {
		return err
	}
	return w.write(ctx, k, k.Put().Name(obj.GetName()).SubResource(subresources...).VersionedParams(o, scheme.ParameterCodec), obj)
}

// write sends an object and gives it the metadata that comes back.
func (w *writer) write(ctx context.Context, k *kind, r *rest.Request, obj client.Object) error {
	result := r.NamespaceIfScoped(obj.GetNamespace(), k.namespaced).Resource(k.resource).SetHeader("Accept", accept).Body(obj).Do(ctx)
	if err := result.Error(); err != nil {
		return err
	}
	body, err := result.Raw()
	if err != nil {
		return err
	}
	var written metav1.PartialObjectMetadata
	_, _, err = w.answers.Decode(body, nil, &written)
	if runtime.IsNotRegisteredError(err) { // a server that does not know how to leave out the rest
		return result.Into(obj)
	}
	if err != nil {
		return fmt.Errorf("the metadata of what has been written: %w", err)
	}
	to, ok := obj.(metav1.ObjectMetaAccessor).GetObjectMeta().(*metav1.ObjectMeta)
	if !ok {
		return fmt.Errorf("%T has no plain metadata", obj)
	}
	*to = written.ObjectMeta
	return nil
}

// Delete implements client.Writer.
func (w *writer) Delete(ctx context.Context, obj client.Object, opts ...client.DeleteOption) error {
	if untyped(obj) {
		return w.Client.Delete(ctx, obj, opts...)
	}
	k, err := w.kindOf(obj)
	if err != nil {
		return err
	}
	options := (&client.DeleteOptions{}).ApplyOptions(opts).AsDeleteOptions()
	return k.Delete().NamespaceIfScoped(obj.GetNamespace(), k.namespaced).Resource(k.resource).Name(obj.GetName()).
		SetHeader("Accept", accept).Body(options).Do(ctx).Error()
}

// Status implements client.StatusClient.
func (w *writer) Status() client.SubResourceWriter { return w.SubResource("status") }

// SubResource implements client.SubResourceClientConstructor.
func (w *writer) SubResource(name string) client.SubResourceClient {
	return &subresource{SubResourceClient: w.Client.SubResource(name), writer: w, name: name}
}

type subresource struct {
	client.SubResourceClient
	writer *writer
	name   string
}

// Update implements client.SubResourceWriter.
func (s *subresource) Update(ctx context.Context, obj client.Object, opts ...client.SubResourceUpdateOption) error {
	o := &client.SubResourceUpdateOptions{}
	o.ApplyOptions(opts)
	if untyped(obj) || o.SubResourceBody != nil {
		return s.SubResourceClient.Update(ctx, obj, opts...)
	}
	return s.writer.update(ctx, obj, o.AsUpdateOptions(), s.name)
}

// untyped reports whether an object is none of a Go type of its own.
func untyped(obj client.Object) bool {
	switch obj.(type) {
	case *metav1.PartialObjectMetadata, runtime.Unstructured:
		return true
	}
	return false
}

func (w *writer) kindOf(obj client.Object) (*kind, error) {
	gvk, err := w.GroupVersionKindFor(obj)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if k := w.kinds[gvk]; k != nil {
		return k, nil
	}
	mapping, err := w.RESTMapper().RESTMapping(gvk.GroupKind(), gvk.Version)
	if err != nil {
		return nil, fmt.Errorf("writing %s: %w", gvk.Kind, err)
	}
	api, err := apiutil.RESTClientForGVK(gvk, false, false, w.config, serializer.NewCodecFactory(w.Scheme()), w.http)
	if err != nil {
		return nil, fmt.Errorf("writing %s: %w", gvk.Kind, err)
	}
	k := &kind{api, mapping.Resource.Resource, mapping.Scope.Name() == meta.RESTScopeNameNamespace}
	w.kinds[gvk] = k
	return k, nil
}
