// Package metawatch follows the metadata of all objects of a resource. What is kept
// of it is up to the store that it fills.
package metawatch

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/tools/cache"
)

// Run fills store until ctx ends. The name of who asks is for logs.
func Run(ctx context.Context, name string, md metadata.Interface, r schema.GroupVersionResource, store cache.ReflectorStore) {
	api := md.Resource(r)
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) { return api.List(ctx, o) },
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			return api.Watch(ctx, o)
		},
	}
	cache.NewReflectorWithOptions(cache.ToListWatcherWithWatchListSemantics(lw, md), &metav1.PartialObjectMetadata{}, store,
		cache.ReflectorOptions{Name: name + " " + r.String()}).RunWithContext(ctx)
}
