package kubelet

import (
	"context"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// services are those of the cluster, as far as containers see them in their environment.
type services struct {
	index      cache.Indexer
	controller cache.Controller
	synced     chan struct{}
}

func newServices(client kubernetes.Interface) *services {
	s := &services{synced: make(chan struct{})}
	if client == nil {
		s.index = cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc})
		close(s.synced)
		return s
	}
	lw := cache.NewListWatchFromClient(client.CoreV1().RESTClient(), "services", metav1.NamespaceAll, fields.Everything())
	store, controller := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: cache.ToListWatcherWithWatchListSemantics(lw, client),
		ObjectType:    &v1.Service{},
		Transform:     trimService,
		Handler:       cache.ResourceEventHandlerFuncs{},
		Indexers:      cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc},
	})
	s.index, s.controller = store.(cache.Indexer), controller
	return s
}

// trimService keeps what the environment is made of.
func trimService(obj any) (any, error) {
	s, ok := obj.(*v1.Service)
	if !ok {
		return obj, nil
	}
	return &v1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: s.Namespace, Name: s.Name, UID: s.UID, ResourceVersion: s.ResourceVersion},
		Spec:       v1.ServiceSpec{ClusterIP: s.Spec.ClusterIP, Ports: s.Spec.Ports},
	}, nil
}

// run follows the services until ctx is cancelled.
func (s *services) run(ctx context.Context) {
	if s.controller == nil {
		return
	}
	go func() {
		if cache.WaitForCacheSync(ctx.Done(), s.controller.HasSynced) {
			close(s.synced)
		}
	}()
	s.controller.RunWithContext(ctx)
}

// of returns the services of a namespace and default/kubernetes.
func (s *services) of(namespace string) []*v1.Service {
	var out []*v1.Service
	found, err := s.index.ByIndex(cache.NamespaceIndex, namespace)
	if err != nil {
		return nil // the index is there: it was made above
	}
	for _, obj := range found {
		out = append(out, obj.(*v1.Service))
	}
	if namespace != metav1.NamespaceDefault {
		if obj, ok, err := s.index.GetByKey(metav1.NamespaceDefault + "/kubernetes"); ok && err == nil {
			out = append(out, obj.(*v1.Service))
		}
	}
	return out
}
