// Package registry lists the resources of the API server.
package registry

import (
	"maps"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	admissionregistrationv1alpha1 "k8s.io/api/admissionregistration/v1alpha1"
	admissionregistrationv1beta1 "k8s.io/api/admissionregistration/v1beta1"
	internalv1alpha1 "k8s.io/api/apiserverinternal/v1alpha1"
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
	"k8s.io/apimachinery/pkg/runtime/schema"

	authenticationreview "github.com/leme-k8s/leme/pkg/apiserver/authentication/review"
	"github.com/leme-k8s/leme/pkg/apiserver/authorization/rbac"
	authorizationreview "github.com/leme-k8s/leme/pkg/apiserver/authorization/review"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/admissionregistration/mutatingadmissionpolicy"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/admissionregistration/mutatingadmissionpolicybinding"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/admissionregistration/mutatingwebhookconfiguration"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/admissionregistration/params"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/admissionregistration/validatingadmissionpolicy"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/admissionregistration/validatingadmissionpolicybinding"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/admissionregistration/validatingwebhookconfiguration"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/apiserverinternal/storageversion"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/apps/controllerrevision"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/apps/daemonset"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/apps/deployment"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/apps/replicaset"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/apps/statefulset"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/autoscaling/horizontalpodautoscaler"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/batch/cronjob"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/batch/job"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/certificates/certificatesigningrequest"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/certificates/clustertrustbundle"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/certificates/podcertificaterequest"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/coordination/lease"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/coordination/leasecandidate"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/core/componentstatus"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/core/configmap"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/core/endpoints"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/core/event"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/core/limitrange"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/core/namespace"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/core/persistentvolume"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/core/persistentvolumeclaim"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/core/podtemplate"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/core/replicationcontroller"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/core/resourcequota"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/discovery/endpointslice"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/flowcontrol/flowschema"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/flowcontrol/prioritylevelconfiguration"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/generic"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/lifecycle/eviction"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/lifecycle/evictionrequest"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/networking/ingress"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/networking/ingressclass"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/networking/ipaddress"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/networking/networkpolicy"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/networking/servicecidr"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/node/runtimeclass"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/policy/poddisruptionbudget"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/rbac/clusterrole"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/rbac/clusterrolebinding"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/rbac/role"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/rbac/rolebinding"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/resource/access"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/resource/deviceclass"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/resource/devicetaintrule"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/resource/resourceclaim"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/resource/resourceclaimtemplate"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/resource/resourcepoolstatusrequest"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/resource/resourceslice"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/scheduling/compositepodgroup"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/scheduling/podgroup"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/scheduling/priorityclass"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/scheduling/workload"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/storage/csidriver"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/storage/csinode"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/storage/csistoragecapacity"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/storage/storageclass"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/storage/volumeattachment"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/storage/volumeattributesclass"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/storagemigration/storageversionmigration"
)

// Group is one version of an API group and the resources in it.
type Group struct {
	schema.GroupVersion
	Resources []Resource
}

// Resource builds the storage of a resource and its subresources.
type Resource func(generic.Options) (generic.Storage, error)

// Groups lists everything that is served.
func Groups(c Config) []Group {
	autoscalers := shared(horizontalpodautoscaler.Storage)
	betaTaintRules := shared(devicetaintrule.BetaStorage)
	bundles := shared(clustertrustbundle.Storage)
	candidates := shared(leasecandidate.Storage)
	claims := shared(c.accessed(resourceclaim.Storage))
	claimTemplates := shared(c.accessed(resourceclaimtemplate.Storage))
	classes := shared(deviceclass.Storage)
	migrations := shared(storageversionmigration.Storage)
	mutatingPolicies := shared(c.parameterized(mutatingadmissionpolicy.Storage))
	mutatingBindings := shared(c.parameterized(mutatingadmissionpolicybinding.Storage))
	podGroups := shared(gated("GenericWorkload", podgroup.Storage))
	podCertificates := shared(c.podCertificates)
	slices := shared(resourceslice.Storage)
	workloads := shared(gated("GenericWorkload", workload.Storage))
	return []Group{
		{corev1.SchemeGroupVersion, []Resource{
			func(generic.Options) (generic.Storage, error) {
				return componentstatus.Storage(componentstatus.Components(c.StoreChecks)), nil
			},
			configmap.Storage,
			endpoints.Storage,
			c.events,
			limitrange.Storage,
			namespace.Storage,
			persistentvolume.Storage,
			persistentvolumeclaim.Storage,
			podtemplate.Storage,
			c.podsAndOthers,
			replicationcontroller.Storage,
			resourcequota.Storage,
		}},
		{admissionregistrationv1.SchemeGroupVersion, []Resource{
			mutatingPolicies,
			mutatingBindings,
			mutatingwebhookconfiguration.Storage,
			c.parameterized(validatingadmissionpolicy.Storage),
			c.parameterized(validatingadmissionpolicybinding.Storage),
			validatingwebhookconfiguration.Storage,
		}},
		{admissionregistrationv1beta1.SchemeGroupVersion, []Resource{
			mutatingPolicies,
			mutatingBindings,
		}},
		{admissionregistrationv1alpha1.SchemeGroupVersion, []Resource{
			mutatingPolicies,
			mutatingBindings,
		}},
		{appsv1.SchemeGroupVersion, []Resource{
			controllerrevision.Storage,
			daemonset.Storage,
			deployment.Storage,
			replicaset.Storage,
			statefulset.Storage,
		}},
		{authenticationv1.SchemeGroupVersion, []Resource{
			func(generic.Options) (generic.Storage, error) {
				return authenticationreview.Storage(c.Authenticator, c.Authentication.Audiences), nil
			},
		}},
		{authorizationv1.SchemeGroupVersion, []Resource{
			func(generic.Options) (generic.Storage, error) {
				return authorizationreview.Storage(c.Authorization.Authorizer, c.Authorization.Rules), nil
			},
		}},
		{autoscalingv2.SchemeGroupVersion, []Resource{
			autoscalers,
		}},
		{autoscalingv1.SchemeGroupVersion, []Resource{
			autoscalers,
		}},
		{batchv1.SchemeGroupVersion, []Resource{
			cronjob.Storage,
			job.Storage,
		}},
		{certificatesv1.SchemeGroupVersion, []Resource{
			certificatesigningrequest.Storage,
			bundles,
			podCertificates,
		}},
		{certificatesv1beta1.SchemeGroupVersion, []Resource{
			bundles,
			podCertificates,
		}},
		{coordinationv1.SchemeGroupVersion, []Resource{
			lease.Storage,
		}},
		{coordinationv1beta1.SchemeGroupVersion, []Resource{
			candidates,
		}},
		{coordinationv1alpha2.SchemeGroupVersion, []Resource{
			candidates,
		}},
		{discoveryv1.SchemeGroupVersion, []Resource{
			endpointslice.Storage,
		}},
		{eventsv1.SchemeGroupVersion, []Resource{
			c.events,
		}},
		{flowcontrolv1.SchemeGroupVersion, []Resource{
			flowschema.Storage,
			prioritylevelconfiguration.Storage,
		}},
		{internalv1alpha1.SchemeGroupVersion, []Resource{
			storageversion.Storage,
		}},
		{lifecyclev1alpha1.SchemeGroupVersion, []Resource{
			gated("EvictionRequestAPI", eviction.Storage),
			gated("EvictionRequestAPI", evictionrequest.Storage),
		}},
		{networkingv1.SchemeGroupVersion, []Resource{
			ingress.Storage,
			ingressclass.Storage,
			ipaddress.Storage,
			networkpolicy.Storage,
			servicecidr.Storage,
		}},
		{nodev1.SchemeGroupVersion, []Resource{
			runtimeclass.Storage,
		}},
		{policyv1.SchemeGroupVersion, []Resource{
			poddisruptionbudget.Storage,
		}},
		{rbacv1.SchemeGroupVersion, []Resource{
			guarded(c, clusterrole.Resource),
			guarded(c, clusterrolebinding.Resource),
			guarded(c, role.Resource),
			guarded(c, rolebinding.Resource),
		}},
		{resourcev1.SchemeGroupVersion, []Resource{
			classes,
			devicetaintrule.Storage,
			claims,
			claimTemplates,
			slices,
		}},
		{resourcev1beta2.SchemeGroupVersion, []Resource{
			classes,
			betaTaintRules,
			claims,
			claimTemplates,
			slices,
		}},
		{resourcev1beta1.SchemeGroupVersion, []Resource{
			classes,
			claims,
			claimTemplates,
			slices,
		}},
		{resourcev1alpha3.SchemeGroupVersion, []Resource{
			betaTaintRules,
			resourcepoolstatusrequest.Storage,
		}},
		{schedulingv1.SchemeGroupVersion, []Resource{
			priorityclass.Storage,
		}},
		{schedulingv1beta1.SchemeGroupVersion, []Resource{
			podGroups,
			workloads,
		}},
		{schedulingv1alpha3.SchemeGroupVersion, []Resource{
			gated("CompositePodGroup", compositepodgroup.Storage),
			podGroups,
			workloads,
		}},
		{storagev1.SchemeGroupVersion, []Resource{
			csidriver.Storage,
			csinode.Storage,
			csistoragecapacity.Storage,
			storageclass.Storage,
			volumeattachment.Storage,
			volumeattributesclass.Storage,
		}},
		{migrationv1.SchemeGroupVersion, []Resource{
			migrations,
		}},
		{migrationv1beta1.SchemeGroupVersion, []Resource{
			migrations,
		}},
	}
}

// shared is one storage for several versions.
func shared(r Resource) Resource {
	var storage generic.Storage
	return func(o generic.Options) (_ generic.Storage, err error) {
		if storage == nil {
			storage, err = r(o)
		}
		return storage, err
	}
}

// gated serves a resource where a feature is on.
func gated(feature string, r Resource) Resource {
	return func(o generic.Options) (generic.Storage, error) {
		if !o.Features[feature] {
			return generic.Storage{}, nil
		}
		return r(o)
	}
}

// guarded lets nobody grant rights that they do not have.
func guarded[T generic.Object](c Config, r generic.Resource[T]) Resource {
	return func(o generic.Options) (generic.Storage, error) {
		s, err := generic.NewStore(r, o)
		if err != nil {
			return nil, err
		}
		rbac.NewGuard(c.Authorization.Authorizer, c.Authorization.RBAC).Protect(s.Store)
		return s.Paths(), nil
	}
}

// parameterized lets nobody name parameters that they cannot read.
func (c Config) parameterized(storage func(generic.Options, *params.Guard) (generic.Storage, error)) Resource {
	return func(o generic.Options) (generic.Storage, error) {
		return storage(o, params.NewGuard(c.Authorization.Authorizer, c.Client))
	}
}

// accessed lets nobody have more access to devices than they may.
func (c Config) accessed(storage func(generic.Options, *access.Guard) (generic.Storage, error)) Resource {
	return func(o generic.Options) (generic.Storage, error) {
		return storage(o, access.NewGuard(c.Authorization.Authorizer, c.Client))
	}
}

func (c Config) podCertificates(o generic.Options) (generic.Storage, error) {
	return podcertificaterequest.Storage(o, c.Authorization.Authorizer)
}

func (c Config) events(o generic.Options) (generic.Storage, error) {
	return event.Storage(o, c.EventTTL)
}

// Storage builds the storage of all of the group's resources.
func (g Group) Storage(o generic.Options) (generic.Storage, error) {
	all := generic.Storage{}
	for _, resource := range g.Resources {
		storage, err := resource(o)
		if err != nil {
			return nil, err
		}
		maps.Copy(all, storage)
	}
	return all, nil
}
