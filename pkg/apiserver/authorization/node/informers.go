package node

import (
	"fmt"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"
)

// feed keeps the index up to date from the informers of what the server serves,
// and returns whether all of them have been heard.
func feed(x *index, f informers.SharedInformerFactory, serves func(schema.GroupVersionResource) bool) (synced func() bool, err error) {
	var registrations []cache.ResourceEventHandlerRegistration
	listen := func(informer cache.SharedIndexInformer, set func(any), remove func(types.NamespacedName)) error {
		r, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc:    set,
			UpdateFunc: func(_, obj any) { set(obj) },
			DeleteFunc: func(obj any) {
				if name, err := cache.DeletionHandlingObjectToName(obj); err == nil {
					remove(types.NamespacedName{Namespace: name.Namespace, Name: name.Name})
				}
			},
		})
		if err != nil {
			return fmt.Errorf("watching what nodes need: %w", err)
		}
		registrations = append(registrations, r)
		return nil
	}

	if err := listen(f.Core().V1().Pods().Informer(), func(obj any) { x.setPod(obj.(*corev1.Pod)) }, x.deletePod); err != nil {
		return nil, err
	}
	if err := listen(f.Core().V1().PersistentVolumes().Informer(), func(obj any) { x.setVolume(obj.(*corev1.PersistentVolume)) },
		func(name types.NamespacedName) { x.deleteVolume(name.Name) }); err != nil {
		return nil, err
	}
	for _, o := range []struct {
		resource schema.GroupVersionResource
		kind     ownedKind
		informer func() cache.SharedIndexInformer
		node     func(any) string
	}{
		{storagev1.SchemeGroupVersion.WithResource("volumeattachments"), volumeAttachments,
			func() cache.SharedIndexInformer { return f.Storage().V1().VolumeAttachments().Informer() },
			func(obj any) string { return obj.(*storagev1.VolumeAttachment).Spec.NodeName }},
		{resourcev1.SchemeGroupVersion.WithResource("resourceslices"), resourceSlices,
			func() cache.SharedIndexInformer { return f.Resource().V1().ResourceSlices().Informer() },
			func(obj any) string {
				if name := obj.(*resourcev1.ResourceSlice).Spec.NodeName; name != nil {
					return *name
				}
				return ""
			}},
		{certificatesv1.SchemeGroupVersion.WithResource("podcertificaterequests"), podCertificateRequests,
			func() cache.SharedIndexInformer { return f.Certificates().V1().PodCertificateRequests().Informer() },
			func(obj any) string { return string(obj.(*certificatesv1.PodCertificateRequest).Spec.NodeName) }},
	} {
		if serves != nil && !serves(o.resource) {
			continue
		}
		err := listen(o.informer(), func(obj any) {
			m := obj.(metav1.Object)
			x.setOwner(owned{o.kind, types.NamespacedName{Namespace: m.GetNamespace(), Name: m.GetName()}}, o.node(obj))
		}, func(name types.NamespacedName) { x.setOwner(owned{o.kind, name}, "") })
		if err != nil {
			return nil, err
		}
	}
	return func() bool {
		for _, r := range registrations {
			if !r.HasSynced() {
				return false
			}
		}
		return true
	}, nil
}
