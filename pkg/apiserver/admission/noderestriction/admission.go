// Package noderestriction keeps a kubelet to its own node: to its Node object
// without the labels and taints that others rely on, to the pods that are bound to
// it, its lease, its CSINode, its ResourceSlices and certificates, and to tokens
// for its own pods. What a node may read is decided by the Node authorizer.
package noderestriction

import (
	"context"
	"errors"
	"fmt"

	certificatesv1 "k8s.io/api/certificates/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/admission/initializer"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/client-go/informers"
	corelisters "k8s.io/client-go/listers/core/v1"
	storagelisters "k8s.io/client-go/listers/storage/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/leme-k8s/leme/pkg/apiserver/internal/listing"
	"github.com/leme-k8s/leme/pkg/apiserver/internal/nodeidentity"
	"github.com/leme-k8s/leme/pkg/apiserver/internal/served"
)

// PluginName is the plugin's name in flags.
const PluginName = "NodeRestriction"

// Plugin restricts the requests of nodes, and no others.
type Plugin struct {
	*admission.Handler
	informers  informers.SharedInformerFactory
	serves     served.Func
	authorizer authorizer.UnconditionalAuthorizer
	pods       corelisters.PodLister
	nodes      corelisters.NodeLister
	accounts   corelisters.ServiceAccountLister
	claims     corelisters.PersistentVolumeClaimLister
	volumes    corelisters.PersistentVolumeLister
	drivers    storagelisters.CSIDriverLister
}

var (
	_ admission.MutationInterface                  = &Plugin{}
	_ initializer.WantsExternalKubeInformerFactory = &Plugin{}
	_ initializer.WantsUnconditionalAuthorizer     = &Plugin{}
	_ served.Wants                                 = &Plugin{}
)

// New returns the plugin.
func New() *Plugin {
	return &Plugin{Handler: admission.NewHandler(admission.Create, admission.Update, admission.Delete)}
}

// SetExternalKubeInformerFactory implements initializer.WantsExternalKubeInformerFactory.
func (p *Plugin) SetExternalKubeInformerFactory(f informers.SharedInformerFactory) { p.informers = f }

// SetServed implements served.Wants.
func (p *Plugin) SetServed(serves served.Func) { p.serves = serves }

// listen asks for the caches that the plugin reads. It does not wait for those of
// resources that the server does not have: they stay empty.
func (p *Plugin) listen() {
	core, storage := p.informers.Core().V1(), p.informers.Storage().V1()
	var synced []cache.InformerSynced
	index := func(gvr schema.GroupVersionResource, informer func() cache.SharedIndexInformer) cache.Indexer {
		if !p.serves.Has(gvr) {
			return cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc})
		}
		i := informer()
		synced = append(synced, i.HasSynced)
		return i.GetIndexer()
	}
	v1 := corev1.SchemeGroupVersion
	p.pods = corelisters.NewPodLister(index(v1.WithResource("pods"), core.Pods().Informer))
	p.nodes = corelisters.NewNodeLister(index(v1.WithResource("nodes"), core.Nodes().Informer))
	p.accounts = corelisters.NewServiceAccountLister(index(v1.WithResource("serviceaccounts"), core.ServiceAccounts().Informer))
	p.claims = corelisters.NewPersistentVolumeClaimLister(index(v1.WithResource("persistentvolumeclaims"), core.PersistentVolumeClaims().Informer))
	p.volumes = corelisters.NewPersistentVolumeLister(index(v1.WithResource("persistentvolumes"), core.PersistentVolumes().Informer))
	p.drivers = storagelisters.NewCSIDriverLister(index(storagev1.SchemeGroupVersion.WithResource("csidrivers"), storage.CSIDrivers().Informer))
	p.SetReadyFunc(func() bool {
		for _, s := range synced {
			if !s() {
				return false
			}
		}
		return true
	})
}

// SetUnconditionalAuthorizer implements initializer.WantsUnconditionalAuthorizer.
func (p *Plugin) SetUnconditionalAuthorizer(a authorizer.UnconditionalAuthorizer) { p.authorizer = a }

// ValidateInitialization implements admission.InitializationValidator.
func (p *Plugin) ValidateInitialization() error {
	if p.informers == nil {
		return errors.New("missing informers")
	}
	if p.authorizer == nil {
		return errors.New("missing authorizer")
	}
	p.listen()
	return nil
}

// Admit refuses what a node may not do. It runs before other plugins and webhooks
// complete the object, so that it judges what the node itself has sent.
func (p *Plugin) Admit(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	node, isNode := nodeidentity.Of(a.GetUserInfo())
	if !isNode {
		return nil
	}
	if node == "" {
		return admission.NewForbidden(a, fmt.Errorf("could not determine node from user %q", a.GetUserInfo().GetName()))
	}
	// Only these need the caches. Everything else must work while they fill, nodes'
	// heartbeats above all.
	needsCaches := func() error { return listing.Ready(p.Handler, a) }
	switch a.GetResource().GroupResource() {
	case corev1.Resource("pods"):
		if err := needsCaches(); err != nil {
			return err
		}
		return p.admitPod(node, a)
	case corev1.Resource("nodes"):
		return p.admitNode(node, a)
	case corev1.Resource("persistentvolumeclaims"):
		return admitVolumeClaim(node, a)
	case corev1.Resource("serviceaccounts"):
		if a.GetOperation() != admission.Create || a.GetSubresource() != "token" {
			return nil
		}
		if err := needsCaches(); err != nil {
			return err
		}
		return p.admitToken(ctx, node, a)
	case coordinationv1.Resource("leases"):
		if a.GetNamespace() != corev1.NamespaceNodeLease {
			return admission.NewForbidden(a, fmt.Errorf("can only access leases in the %q system namespace", corev1.NamespaceNodeLease))
		}
		return sameName(node, a, "can only access node lease with the same name as the requesting node")
	case storagev1.Resource("csinodes"):
		if a.GetSubresource() != "" {
			return admission.NewForbidden(a, fmt.Errorf("unexpected CSINode subresource %q", a.GetSubresource()))
		}
		return sameName(node, a, "can only access CSINode with the same name as the requesting node")
	case resourcev1.Resource("resourceslices"):
		return admitResourceSlice(node, a)
	case certificatesv1.Resource("certificatesigningrequests"):
		return admitCertificateSigningRequest(node, a)
	case certificatesv1.Resource("podcertificaterequests"):
		if err := needsCaches(); err != nil {
			return err
		}
		return p.admitPodCertificateRequest(ctx, node, a)
	}
	return nil
}

func unexpected(a admission.Attributes) error {
	return admission.NewForbidden(a, fmt.Errorf("unexpected operation %q", a.GetOperation()))
}

// object returns the request's object as the type that its resource has.
func object[T any](o any) (T, error) {
	t, ok := o.(T)
	if !ok {
		var none T
		return none, apierrors.NewBadRequest(fmt.Sprintf("expected %T but got %T", none, o))
	}
	return t, nil
}

// requestedName is the name in the path, or, of what is created, in the object.
func requestedName(a admission.Attributes) string {
	if name := a.GetName(); name != "" || a.GetOperation() != admission.Create {
		return name
	}
	if m, ok := a.GetObject().(metav1.Object); ok {
		return m.GetName()
	}
	return ""
}

func sameName(node string, a admission.Attributes, otherwise string) error {
	if requestedName(a) == node {
		// The object's own name could differ from the path's.
		if m, ok := a.GetObject().(metav1.Object); !ok || a.GetOperation() == admission.Delete || m.GetName() == node {
			return nil
		}
	}
	return admission.NewForbidden(a, errors.New(otherwise))
}

func admitResourceSlice(node string, a admission.Attributes) error {
	if a.GetOperation() != admission.Create {
		return nil // the node authorizer has compared the existing one's node, which cannot change
	}
	slice, err := object[*resourcev1.ResourceSlice](a.GetObject())
	if err != nil {
		return err
	}
	if slice.Spec.NodeName == nil || *slice.Spec.NodeName != node {
		return admission.NewForbidden(a, errors.New("can only create ResourceSlice with the same NodeName as the requesting node"))
	}
	return nil
}
