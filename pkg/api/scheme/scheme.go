// Package scheme brings the built-in API groups together: their types, defaults,
// field selectors and conversions.
//
// The published Go type of a kind is also its hub: it is registered under its API
// version and, once more, under the version "__internal" that the API server
// library converts to and from. Converting between the two is a no-op. A kind that
// is served in several versions has one hub, and conversions to it from the others.
package scheme

import (
	"fmt"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	admissionregistrationv1alpha1 "k8s.io/api/admissionregistration/v1alpha1"
	admissionregistrationv1beta1 "k8s.io/api/admissionregistration/v1beta1"
	apiserverinternalv1alpha1 "k8s.io/api/apiserverinternal/v1alpha1"
	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	certificatesv1beta1 "k8s.io/api/certificates/v1beta1"
	coordinationv1 "k8s.io/api/coordination/v1"
	coordinationv1alpha2 "k8s.io/api/coordination/v1alpha2"
	coordinationv1beta1 "k8s.io/api/coordination/v1beta1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	eventsv1 "k8s.io/api/events/v1"
	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	lifecyclev1alpha1 "k8s.io/api/lifecycle/v1alpha1"
	networkingv1 "k8s.io/api/networking/v1"
	nodev1 "k8s.io/api/node/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	resourcev1 "k8s.io/api/resource/v1"
	resourcev1alpha3 "k8s.io/api/resource/v1alpha3"
	resourcev1beta1 "k8s.io/api/resource/v1beta1"
	resourcev1beta2 "k8s.io/api/resource/v1beta2"
	schedulingv1 "k8s.io/api/scheduling/v1"
	schedulingv1alpha3 "k8s.io/api/scheduling/v1alpha3"
	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	storagev1 "k8s.io/api/storage/v1"
	migrationv1 "k8s.io/api/storagemigration/v1"
	migrationv1beta1 "k8s.io/api/storagemigration/v1beta1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"

	"github.com/leme-k8s/leme/pkg/api/admissionregistration"
	"github.com/leme-k8s/leme/pkg/api/apps"
	"github.com/leme-k8s/leme/pkg/api/authentication"
	"github.com/leme-k8s/leme/pkg/api/autoscaling"
	"github.com/leme-k8s/leme/pkg/api/batch"
	"github.com/leme-k8s/leme/pkg/api/certificates"
	"github.com/leme-k8s/leme/pkg/api/core"
	"github.com/leme-k8s/leme/pkg/api/discovery"
	"github.com/leme-k8s/leme/pkg/api/events"
	"github.com/leme-k8s/leme/pkg/api/flowcontrol"
	"github.com/leme-k8s/leme/pkg/api/networking"
	"github.com/leme-k8s/leme/pkg/api/rbac"
	"github.com/leme-k8s/leme/pkg/api/resource"
	"github.com/leme-k8s/leme/pkg/api/scheduling"
	"github.com/leme-k8s/leme/pkg/api/storage"
)

type register func(*runtime.Scheme) error

// version is one served version of a group.
type version struct {
	schema.GroupVersion
	types register
	// Nil: there are none, or another version's function registers those of this one.
	defaults    register
	fieldLabels register
	// hub says which types stand under "__internal". Nil: this version's own.
	hub register
}

// versions lists what can be served. Of several versions of a group, the preferred one,
// in which objects are stored unless the API server says otherwise, comes first.
var versions = []version{
	{corev1.SchemeGroupVersion, corev1.AddToScheme, core.AddDefaults, core.AddFieldLabels, coreHub},
	{admissionregistrationv1.SchemeGroupVersion, admissionregistrationv1.AddToScheme, admissionregistration.AddDefaults, nil, nil},
	{admissionregistrationv1beta1.SchemeGroupVersion, admissionregistrationv1beta1.AddToScheme, nil, nil, join(admissionregistrationv1beta1.SchemeGroupVersion, moves{})},
	{admissionregistrationv1alpha1.SchemeGroupVersion, admissionregistrationv1alpha1.AddToScheme, nil, nil, join(admissionregistrationv1alpha1.SchemeGroupVersion, moves{})},
	{apiserverinternalv1alpha1.SchemeGroupVersion, apiserverinternalv1alpha1.AddToScheme, nil, nil, nil},
	{appsv1.SchemeGroupVersion, appsv1.AddToScheme, apps.AddDefaults, nil, nil},
	{authenticationv1.SchemeGroupVersion, authenticationv1.AddToScheme, authentication.AddDefaults, nil, nil},
	{authorizationv1.SchemeGroupVersion, authorizationv1.AddToScheme, nil, nil, nil},
	{autoscalingv2.SchemeGroupVersion, autoscalingv2.AddToScheme, autoscaling.AddDefaults, nil, nil},
	{autoscalingv1.SchemeGroupVersion, autoscalingv1.AddToScheme, nil, nil, autoscalingV1Hub},
	{batchv1.SchemeGroupVersion, batchv1.AddToScheme, batch.AddDefaults, batch.AddFieldLabels, nil},
	{certificatesv1.SchemeGroupVersion, certificatesv1.AddToScheme, certificates.AddDefaults, certificates.AddFieldLabels, ownHubBut(certificatesv1.SchemeGroupVersion, podCertificates...)},
	{certificatesv1beta1.SchemeGroupVersion, certificatesv1beta1.AddToScheme, nil, nil, certificatesV1beta1Hub},
	{coordinationv1.SchemeGroupVersion, coordinationv1.AddToScheme, nil, nil, nil},
	{coordinationv1beta1.SchemeGroupVersion, coordinationv1beta1.AddToScheme, nil, nil, join(coordinationv1beta1.SchemeGroupVersion, moves{})},
	{coordinationv1alpha2.SchemeGroupVersion, coordinationv1alpha2.AddToScheme, nil, nil, join(coordinationv1alpha2.SchemeGroupVersion, moves{})},
	{discoveryv1.SchemeGroupVersion, discoveryv1.AddToScheme, discovery.AddDefaults, nil, nil},
	{eventsv1.SchemeGroupVersion, eventsv1.AddToScheme, nil, events.AddFieldLabels, eventsHub},
	{flowcontrolv1.SchemeGroupVersion, flowcontrolv1.AddToScheme, flowcontrol.AddDefaults, nil, nil},
	{lifecyclev1alpha1.SchemeGroupVersion, lifecyclev1alpha1.AddToScheme, nil, nil, nil},
	{networkingv1.SchemeGroupVersion, networkingv1.AddToScheme, networking.AddDefaults, nil, nil},
	{nodev1.SchemeGroupVersion, nodev1.AddToScheme, nil, nil, nil},
	{policyv1.SchemeGroupVersion, policyv1.AddToScheme, nil, nil, nil},
	{rbacv1.SchemeGroupVersion, rbacv1.AddToScheme, rbac.AddDefaults, nil, nil},
	{resourcev1.SchemeGroupVersion, resourcev1.AddToScheme, resource.AddDefaults, resource.AddFieldLabels, nil},
	{resourcev1beta2.SchemeGroupVersion, resourcev1beta2.AddToScheme, nil, nil, join(resourcev1beta2.SchemeGroupVersion, moves{})},
	{resourcev1beta1.SchemeGroupVersion, resourcev1beta1.AddToScheme, nil, nil, join(resourcev1beta1.SchemeGroupVersion, moves{resource.FromV1beta1, resource.ToV1beta1})},
	{resourcev1alpha3.SchemeGroupVersion, resourcev1alpha3.AddToScheme, nil, nil, join(resourcev1alpha3.SchemeGroupVersion, moves{})},
	{schedulingv1.SchemeGroupVersion, schedulingv1.AddToScheme, scheduling.AddDefaults, nil, nil},
	{schedulingv1beta1.SchemeGroupVersion, schedulingv1beta1.AddToScheme, nil, nil, schedulingV1beta1Hub},
	{schedulingv1alpha3.SchemeGroupVersion, schedulingv1alpha3.AddToScheme, nil, nil, schedulingV1alpha3Hub},
	{storagev1.SchemeGroupVersion, storagev1.AddToScheme, storage.AddDefaults, nil, nil},
	{migrationv1.SchemeGroupVersion, migrationv1.AddToScheme, nil, nil, nil},
	{migrationv1beta1.SchemeGroupVersion, migrationv1beta1.AddToScheme, nil, nil, join(migrationv1beta1.SchemeGroupVersion, moves{})},
}

// unserved are versions that are not served here. Options and events of watches exist
// in them too, and API documentation says so.
var unserved = []string{
	"admission.k8s.io/v1", "admission.k8s.io/v1beta1",
	"apps/v1beta1", "apps/v1beta2",
	"authentication.k8s.io/v1alpha1", "authentication.k8s.io/v1beta1",
	"authorization.k8s.io/v1beta1",
	"batch/v1beta1",
	"certificates.k8s.io/v1alpha1",
	"discovery.k8s.io/v1beta1",
	"events.k8s.io/v1beta1",
	"extensions/v1beta1",
	"flowcontrol.apiserver.k8s.io/v1beta1", "flowcontrol.apiserver.k8s.io/v1beta2", "flowcontrol.apiserver.k8s.io/v1beta3",
	"imagepolicy.k8s.io/v1alpha1",
	"networking.k8s.io/v1beta1",
	"node.k8s.io/v1alpha1", "node.k8s.io/v1beta1",
	"policy/v1beta1",
	"rbac.authorization.k8s.io/v1alpha1", "rbac.authorization.k8s.io/v1beta1",
	"storage.k8s.io/v1alpha1", "storage.k8s.io/v1beta1",
}

// New returns a scheme of all built-in kinds.
func New() (*runtime.Scheme, error) {
	s := runtime.NewScheme()
	metav1.AddToGroupVersion(s, schema.GroupVersion{Version: "v1"})
	priority := map[string][]schema.GroupVersion{}
	for _, v := range versions {
		for _, add := range []register{v.types, v.defaults, v.fieldLabels} {
			if add == nil {
				continue
			}
			if err := add(s); err != nil {
				return nil, fmt.Errorf("registering %s: %w", v, err)
			}
		}
		hub := v.hub
		if hub == nil {
			hub = v.ownHub
		}
		if err := hub(s); err != nil {
			return nil, fmt.Errorf("registering the hub of %s: %w", v, err)
		}
		priority[v.Group] = append(priority[v.Group], v.GroupVersion)
	}
	for _, versions := range priority {
		if err := s.SetVersionPriority(versions...); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// NewExternal returns a scheme of the types as clients see them, without the hubs:
// what names and versions in API documentation are derived from.
func NewExternal() (*runtime.Scheme, error) {
	s := runtime.NewScheme()
	metav1.AddToGroupVersion(s, schema.GroupVersion{Version: "v1"})
	for _, v := range versions {
		if err := v.types(s); err != nil {
			return nil, fmt.Errorf("registering %s: %w", v, err)
		}
	}
	for _, v := range unserved {
		gv, err := schema.ParseGroupVersion(v)
		if err != nil {
			return nil, err
		}
		metav1.AddToGroupVersion(s, gv)
	}
	return s, nil
}

// NewCodecs returns the codecs of s. Lists are encoded item by item, so that a large
// one needs no second copy of itself.
func NewCodecs(s *runtime.Scheme) serializer.CodecFactory {
	return serializer.NewCodecFactory(s, serializer.WithStreamingCollectionEncodingToJSON(), serializer.WithStreamingCollectionEncodingToProtobuf())
}

func internal(group string) schema.GroupVersion {
	return schema.GroupVersion{Group: group, Version: runtime.APIVersionInternal}
}
