// Package controller is kube-controller-manager: one manager with one cache, and
// the controllers that are listed here.
package controller

import (
	apiserverinternalv1alpha1 "k8s.io/api/apiserverinternal/v1alpha1"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	resourcev1alpha3 "k8s.io/api/resource/v1alpha3"
	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	storagev1 "k8s.io/api/storage/v1"
	storagemigrationv1 "k8s.io/api/storagemigration/v1"
	apiextensionsclient "k8s.io/apiextensions-apiserver/pkg/client/clientset/clientset/typed/apiextensions/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/metadata"

	"github.com/leme-k8s/leme/pkg/controller/attachdetach"
	"github.com/leme-k8s/leme/pkg/controller/bootstrapsigner"
	"github.com/leme-k8s/leme/pkg/controller/clusterroleaggregation"
	"github.com/leme-k8s/leme/pkg/controller/cronjob"
	"github.com/leme-k8s/leme/pkg/controller/csrapproving"
	"github.com/leme-k8s/leme/pkg/controller/csrcleaner"
	"github.com/leme-k8s/leme/pkg/controller/csrsigning"
	"github.com/leme-k8s/leme/pkg/controller/daemonset"
	"github.com/leme-k8s/leme/pkg/controller/deployment"
	"github.com/leme-k8s/leme/pkg/controller/devicetainteviction"
	"github.com/leme-k8s/leme/pkg/controller/disruption"
	"github.com/leme-k8s/leme/pkg/controller/endpoints"
	"github.com/leme-k8s/leme/pkg/controller/endpointslice"
	"github.com/leme-k8s/leme/pkg/controller/endpointslicemirroring"
	"github.com/leme-k8s/leme/pkg/controller/ephemeralvolume"
	"github.com/leme-k8s/leme/pkg/controller/garbagecollector"
	"github.com/leme-k8s/leme/pkg/controller/internal/index"
	"github.com/leme-k8s/leme/pkg/controller/internal/metricsapi"
	"github.com/leme-k8s/leme/pkg/controller/job"
	"github.com/leme-k8s/leme/pkg/controller/legacytokencleaner"
	"github.com/leme-k8s/leme/pkg/controller/namespace"
	"github.com/leme-k8s/leme/pkg/controller/nodeipam"
	"github.com/leme-k8s/leme/pkg/controller/nodelifecycle"
	"github.com/leme-k8s/leme/pkg/controller/podautoscaler"
	"github.com/leme-k8s/leme/pkg/controller/podcertificatecleaner"
	"github.com/leme-k8s/leme/pkg/controller/podgc"
	"github.com/leme-k8s/leme/pkg/controller/podgroupprotection"
	"github.com/leme-k8s/leme/pkg/controller/policystatus"
	"github.com/leme-k8s/leme/pkg/controller/pvbinder"
	"github.com/leme-k8s/leme/pkg/controller/pvcprotection"
	"github.com/leme-k8s/leme/pkg/controller/pvprotection"
	"github.com/leme-k8s/leme/pkg/controller/replicaset"
	"github.com/leme-k8s/leme/pkg/controller/resourceclaim"
	"github.com/leme-k8s/leme/pkg/controller/resourcepoolstatus"
	"github.com/leme-k8s/leme/pkg/controller/resourcequota"
	"github.com/leme-k8s/leme/pkg/controller/rootca"
	"github.com/leme-k8s/leme/pkg/controller/selinuxwarning"
	"github.com/leme-k8s/leme/pkg/controller/serviceaccount"
	"github.com/leme-k8s/leme/pkg/controller/serviceaccounttoken"
	"github.com/leme-k8s/leme/pkg/controller/servicecidr"
	"github.com/leme-k8s/leme/pkg/controller/statefulset"
	"github.com/leme-k8s/leme/pkg/controller/storageversiongc"
	"github.com/leme-k8s/leme/pkg/controller/storageversionmigrator"
	"github.com/leme-k8s/leme/pkg/controller/tainteviction"
	"github.com/leme-k8s/leme/pkg/controller/tokencleaner"
	"github.com/leme-k8s/leme/pkg/controller/trustbundlepublisher"
	"github.com/leme-k8s/leme/pkg/controller/ttl"
	"github.com/leme-k8s/leme/pkg/controller/ttlafterfinished"
	"github.com/leme-k8s/leme/pkg/controller/vacprotection"
	"github.com/leme-k8s/leme/pkg/controller/volumeexpand"
)

// entries are all controllers. A controller's Name is what --controllers calls it,
// Alias its older name there, and Identity the service account that it has
// with --use-service-account-credentials; without one, it acts as the manager does.
var entries = []entry{
	{
		Name: "serviceaccount-controller", Alias: "serviceaccount", Identity: "service-account-controller",
		New: func(d *dependencies, a *access) (registrar, error) { return serviceaccount.New(a.Client), nil },
	},
	{
		Name: "serviceaccount-token-controller", Alias: "serviceaccount-token", // it acts as the manager itself
		Workers: func(w Workers) int { return w.ServiceAccountToken },
		New: func(d *dependencies, a *access) (registrar, error) {
			if d.serviceAccountKey == nil {
				return nil, notConfigured("--service-account-private-key-file")
			}
			rootCA := d.rootCA
			if len(rootCA) == 0 {
				rootCA = a.Config.CAData
			}
			return serviceaccounttoken.New(a.Client, a.Live, d.serviceAccountKey, rootCA)
		},
	},
	{
		Name: "legacy-serviceaccount-token-cleaner-controller", Alias: "legacy-service-account-token-cleaner", Identity: "legacy-service-account-token-cleaner",
		New: func(d *dependencies, a *access) (registrar, error) {
			return legacytokencleaner.New(a.Client, a.Live, d.options.LegacyTokenCleanUp), nil
		},
	},
	{
		Name: "root-ca-certificate-publisher-controller", Alias: "root-ca-cert-publisher", Identity: "root-ca-cert-publisher",
		New: func(d *dependencies, a *access) (registrar, error) {
			if len(d.rootCA) == 0 {
				return nil, notConfigured("--root-ca-file")
			}
			return rootca.New(a.Client, d.rootCA), nil
		},
	},
	{
		Name: "kube-apiserver-serving-clustertrustbundle-publisher-controller", Identity: "kube-apiserver-serving-clustertrustbundle-publisher",
		Needs: []schema.GroupVersionKind{certificatesv1.SchemeGroupVersion.WithKind("ClusterTrustBundle")},
		New: func(d *dependencies, a *access) (registrar, error) {
			if len(d.rootCA) == 0 {
				return nil, notConfigured("--root-ca-file")
			}
			return trustbundlepublisher.New(a.Client, d.rootCA), nil
		},
	},
	{
		Name: "namespace-controller", Alias: "namespace", Identity: "namespace-controller",
		Workers: func(w Workers) int { return w.Namespace },
		New: func(d *dependencies, a *access) (registrar, error) {
			disco, err := discovery.NewDiscoveryClientForConfig(a.Config)
			if err != nil {
				return nil, err
			}
			meta, err := metadata.NewForConfig(a.Config)
			if err != nil {
				return nil, err
			}
			return namespace.New(a.Client, a.Clientset, disco, meta), nil
		},
	},
	{
		Name: "resourcequota-controller", Alias: "resourcequota", Identity: "resourcequota-controller",
		Workers: func(w Workers) int { return w.ResourceQuota },
		New: func(d *dependencies, a *access) (registrar, error) {
			meta, err := metadata.NewForConfig(a.Config)
			if err != nil {
				return nil, err
			}
			return resourcequota.New(a.Client, d.mgr.GetRESTMapper(), meta, d.options.ResourceQuotaSync), nil
		},
	},
	{
		Name: "deployment-controller", Alias: "deployment", Identity: "deployment-controller",
		Workers: func(w Workers) int { return w.Deployment },
		Indexes: []index.Index{index.ByController(&appsv1.ReplicaSet{}), index.ByController(&corev1.Pod{})},
		New: func(d *dependencies, a *access) (registrar, error) {
			return deployment.New(a.Client, a.Live, a.Events, d.gates[gateTerminatingReplicas]), nil
		},
	},
	{
		Name: "replicaset-controller", Alias: "replicaset", Identity: "replicaset-controller",
		Workers: func(w Workers) int { return w.ReplicaSet },
		Indexes: []index.Index{index.ByController(&appsv1.ReplicaSet{}), index.ByController(&corev1.Pod{})},
		New: func(d *dependencies, a *access) (registrar, error) {
			return replicaset.New(a.Client, a.Live, a.Events, d.replicaSetGates(), d.pods), nil
		},
	},
	{
		Name: "replicationcontroller-controller", Alias: "replicationcontroller", Identity: "replication-controller",
		Workers: func(w Workers) int { return w.ReplicationController },
		Indexes: []index.Index{index.ByController(&corev1.Pod{})},
		New: func(d *dependencies, a *access) (registrar, error) {
			return replicaset.NewReplication(a.Client, a.Live, a.Events, d.replicaSetGates(), d.pods), nil
		},
	},
	{
		Name: "daemonset-controller", Alias: "daemonset", Identity: "daemon-set-controller", Source: "daemonset-controller",
		Workers: func(w Workers) int { return w.DaemonSet },
		Indexes: []index.Index{index.ByController(&appsv1.ControllerRevision{}), index.ByController(&corev1.Pod{})},
		New: func(d *dependencies, a *access) (registrar, error) {
			return daemonset.New(a.Client, a.Live, a.Events), nil
		},
	},
	{
		Name: "statefulset-controller", Alias: "statefulset", Identity: "statefulset-controller",
		Workers: func(w Workers) int { return w.StatefulSet },
		Indexes: []index.Index{index.ByController(&appsv1.ControllerRevision{}), index.ByController(&corev1.Pod{})},
		New: func(d *dependencies, a *access) (registrar, error) {
			return statefulset.New(a.Client, a.Live, a.Events, d.gates[gateMaxUnavailable], d.metrics), nil
		},
	},
	{
		Name: "job-controller", Alias: "job", Identity: "job-controller",
		Workers: func(w Workers) int { return w.Job },
		Indexes: []index.Index{index.ByController(&corev1.Pod{})},
		With: map[string]needs{gateWorkloadWithJob: {
			Kinds:   []schema.GroupVersionKind{schedulingv1beta1.SchemeGroupVersion.WithKind("Workload"), schedulingv1beta1.SchemeGroupVersion.WithKind("PodGroup")},
			Indexes: []index.Index{index.ByController(&schedulingv1beta1.Workload{}), index.ByController(&schedulingv1beta1.PodGroup{})},
		}},
		New: func(d *dependencies, a *access) (registrar, error) {
			return job.New(a.Client, a.Live, a.Events, d.metrics, d.gates[gateWorkloadWithJob]), nil
		},
	},
	{
		Name: "cronjob-controller", Alias: "cronjob", Identity: "cronjob-controller",
		Workers: func(w Workers) int { return w.CronJob },
		Indexes: []index.Index{index.ByController(&batchv1.Job{})},
		New: func(d *dependencies, a *access) (registrar, error) {
			return cronjob.New(a.Client, a.Live, a.Events, d.metrics), nil
		},
	},
	{
		Name: "disruption-controller", Alias: "disruption", Identity: "disruption-controller", Source: "controllermanager",
		Workers: func(w Workers) int { return w.Disruption },
		New: func(d *dependencies, a *access) (registrar, error) {
			return disruption.New(a.Client, a.Live, a.Events), nil
		},
	},
	{
		Name: "horizontal-pod-autoscaler-controller", Alias: "horizontalpodautoscaling", Identity: "horizontal-pod-autoscaler",
		Workers: func(w Workers) int { return w.Autoscaler },
		New: func(d *dependencies, a *access) (registrar, error) {
			metrics, err := metricsapi.New(a.Config, d.mgr.GetRESTMapper(), a.Clientset.Discovery())
			if err != nil {
				return nil, err
			}
			return podautoscaler.New(a.Client, a.Live, d.mgr.GetRESTMapper(), metrics, a.Events, d.options.Autoscaling, d.metrics), nil
		},
	},
	{
		Name: "ttl-after-finished-controller", Alias: "ttl-after-finished", Identity: "ttl-after-finished-controller",
		Workers: func(w Workers) int { return w.TTLAfterFinished },
		New: func(d *dependencies, a *access) (registrar, error) {
			return ttlafterfinished.New(a.Client, a.Live, d.metrics), nil
		},
	},
	{
		Name: "persistentvolume-binder-controller", Alias: "persistentvolume-binder", Identity: "persistent-volume-binder", Source: "persistentvolume-controller",
		Indexes: []index.Index{index.PodsByClaim()},
		New: func(d *dependencies, a *access) (registrar, error) {
			return pvbinder.New(a.Client, a.Live, a.Events, d.options.EnableDynamicProvision, d.metrics), nil
		},
	},
	{
		Name: "persistentvolume-attach-detach-controller", Alias: "attachdetach", Identity: "attachdetach-controller",
		Indexes: []index.Index{index.PodsByClaim(), index.PodsByNode()},
		New: func(d *dependencies, a *access) (registrar, error) {
			return attachdetach.New(a.Client, a.Events, !d.options.DisableForceDetach, d.metrics), nil
		},
	},
	{
		Name: "persistentvolume-expander-controller", Alias: "persistentvolume-expander", Identity: "expand-controller", Source: "volume_expand",
		New: func(d *dependencies, a *access) (registrar, error) { return volumeexpand.New(a.Client, a.Events), nil },
	},
	{
		Name: "ephemeral-volume-controller", Alias: "ephemeral-volume", Identity: "ephemeral-volume-controller", Source: "ephemeral_volume",
		Workers: func(w Workers) int { return w.EphemeralVolume },
		Indexes: []index.Index{index.PodsByClaim()},
		New: func(d *dependencies, a *access) (registrar, error) {
			return ephemeralvolume.New(a.Client, a.Events, d.metrics), nil
		},
	},
	{
		Name: "persistentvolumeclaim-protection-controller", Alias: "pvc-protection", Identity: "pvc-protection-controller",
		Indexes: []index.Index{index.PodsByClaim()},
		New: func(d *dependencies, a *access) (registrar, error) {
			return pvcprotection.New(a.Client, a.Live, d.gates[gateUnusedClaims]), nil
		},
	},
	{
		Name: "persistentvolume-protection-controller", Alias: "pv-protection", Identity: "pv-protection-controller",
		New: func(d *dependencies, a *access) (registrar, error) { return pvprotection.New(a.Client), nil },
	},
	{
		Name: "volumeattributesclass-protection-controller", Identity: "volumeattributesclass-protection-controller",
		Needs: []schema.GroupVersionKind{storagev1.SchemeGroupVersion.WithKind("VolumeAttributesClass")},
		New:   func(d *dependencies, a *access) (registrar, error) { return vacprotection.New(a.Client), nil },
	},
	{
		Name: "endpointslice-controller", Alias: "endpointslice", Identity: "endpointslice-controller", Source: "endpoint-slice-controller",
		Workers: func(w Workers) int { return w.EndpointSlice },
		New: func(d *dependencies, a *access) (registrar, error) {
			return endpointslice.New(a.Client, a.Clientset, a.Events, d.options.MaxEndpointsPerSlice, d.options.EndpointSliceBatch), nil
		},
	},
	{
		Name: "endpointslice-mirroring-controller", Alias: "endpointslicemirroring", Identity: "endpointslicemirroring-controller", Source: "endpoint-slice-mirroring-controller",
		Workers: func(w Workers) int { return w.EndpointSliceMirroring },
		New: func(d *dependencies, a *access) (registrar, error) {
			return endpointslicemirroring.New(a.Client, a.Events, d.options.MirroringMaxEndpoints, d.options.MirroringBatch, d.metrics), nil
		},
	},
	{
		Name: "endpoints-controller", Alias: "endpoint", Identity: "endpoint-controller",
		Workers: func(w Workers) int { return w.Endpoints },
		New: func(d *dependencies, a *access) (registrar, error) {
			return endpoints.New(a.Client, a.Events, d.options.EndpointsBatchPeriod), nil
		},
	},
	{
		Name: "service-cidr-controller", Identity: "service-cidrs-controller", Source: "service-cidr-controller",
		New: func(d *dependencies, a *access) (registrar, error) { return servicecidr.New(a.Client, a.Events), nil },
	},
	{
		Name: "garbage-collector-controller", Alias: "garbagecollector", Identity: "generic-garbage-collector", Source: "garbage-collector-controller",
		Workers: func(w Workers) int { return w.GarbageCollector },
		New: func(d *dependencies, a *access) (registrar, error) {
			if !d.options.EnableGarbageCollector {
				return nil, notConfigured("--enable-garbage-collector")
			}
			disco, err := discovery.NewDiscoveryClientForConfig(a.Config)
			if err != nil {
				return nil, err
			}
			meta, err := metadata.NewForConfig(a.Config)
			if err != nil {
				return nil, err
			}
			return garbagecollector.New(d.mgr.GetRESTMapper(), disco, meta, a.Events, d.metrics), nil
		},
	},
	{
		Name: "storage-version-migrator-controller", Alias: "svm", Identity: "storage-version-migrator-controller",
		Needs: []schema.GroupVersionKind{storagemigrationv1.SchemeGroupVersion.WithKind("StorageVersionMigration")},
		New: func(d *dependencies, a *access) (registrar, error) {
			meta, err := metadata.NewForConfig(a.Config)
			if err != nil {
				return nil, err
			}
			definitions, err := apiextensionsclient.NewForConfig(a.Config)
			if err != nil {
				return nil, err
			}
			return storageversionmigrator.New(a.Client, d.mgr.GetRESTMapper(), meta, definitions.CustomResourceDefinitions()), nil
		},
	},
	{
		Name: "pod-garbage-collector-controller", Alias: "podgc", Identity: "pod-garbage-collector",
		New: func(d *dependencies, a *access) (registrar, error) {
			return podgc.New(a.Client, a.Live, d.options.TerminatedPodThreshold, d.metrics), nil
		},
	},
	{
		Name: "node-lifecycle-controller", Alias: "nodelifecycle", Identity: "node-controller",
		Indexes: []index.Index{index.PodsByNode()},
		New: func(d *dependencies, a *access) (registrar, error) {
			return nodelifecycle.New(a.Client, a.Events, d.options.nodeLifecycle(), d.metrics), nil
		},
	},
	{
		Name: "taint-eviction-controller", Identity: "node-controller", Source: "taint-eviction-controller",
		Indexes: []index.Index{index.PodsByNode()},
		New: func(d *dependencies, a *access) (registrar, error) {
			return tainteviction.New(a.Client, a.Events, d.metrics), nil
		},
	},
	{
		Name: "device-taint-eviction-controller", Identity: "device-taint-eviction-controller",
		Needs:   []schema.GroupVersionKind{resourcev1.SchemeGroupVersion.WithKind("DeviceTaintRule"), resourcev1.SchemeGroupVersion.WithKind("ResourceSlice")},
		Workers: func(w Workers) int { return w.DeviceTaintEviction },
		Indexes: []index.Index{index.PodsByResourceClaim()},
		New: func(d *dependencies, a *access) (registrar, error) {
			return devicetainteviction.New(a.Client, a.Events, d.gates[gateWorkloadClaims]), nil
		},
	},
	{
		Name: "resourceclaim-controller", Alias: "resource-claim-controller", Identity: "resource-claim-controller", Source: "resource_claim",
		Needs:   []schema.GroupVersionKind{resourcev1.SchemeGroupVersion.WithKind("ResourceClaim"), resourcev1.SchemeGroupVersion.WithKind("ResourceClaimTemplate")},
		Workers: func(w Workers) int { return w.ResourceClaim },
		Indexes: []index.Index{index.PodsByResourceClaim()},
		With: map[string]needs{gateGenericWorkload: {
			Kinds:   []schema.GroupVersionKind{schedulingv1beta1.SchemeGroupVersion.WithKind("PodGroup")},
			Indexes: []index.Index{index.PodsByGroup()},
		}},
		New: func(d *dependencies, a *access) (registrar, error) {
			return resourceclaim.New(a.Client, a.Live, a.Events, d.metrics, resourceclaim.Gates{Groups: d.gates[gateGenericWorkload], GroupClaims: d.gates[gateWorkloadClaims]}), nil
		},
	},
	{
		Name: "node-ipam-controller", Alias: "nodeipam", Identity: "node-controller", Source: "cidrAllocator",
		New: func(d *dependencies, a *access) (registrar, error) {
			if !d.options.AllocateNodeCIDRs {
				return nil, notConfigured("--allocate-node-cidrs")
			}
			cluster, masks, services, err := d.options.nodeCIDRs()
			if err != nil {
				return nil, err
			}
			return nodeipam.New(a.Client, a.Events, cluster, masks, services), nil
		},
	},
	{
		Name: "ttl-controller", Alias: "ttl", Identity: "ttl-controller",
		New: func(d *dependencies, a *access) (registrar, error) { return ttl.New(a.Client), nil },
	},
	{
		Name: "clusterrole-aggregation-controller", Alias: "clusterrole-aggregation", Identity: "clusterrole-aggregation-controller",
		New: func(d *dependencies, a *access) (registrar, error) {
			return clusterroleaggregation.New(a.Client), nil
		},
	},
	{
		Name: "certificatesigningrequest-approving-controller", Alias: "csrapproving", Identity: "certificate-controller",
		New: func(d *dependencies, a *access) (registrar, error) {
			return csrapproving.New(a.Client, a.Clientset), nil
		},
	},
	{
		Name: "certificatesigningrequest-signing-controller", Alias: "csrsigning", Identity: "certificate-controller",
		New: func(d *dependencies, a *access) (registrar, error) {
			if d.signers.Empty() {
				return nil, notConfigured("--cluster-signing-cert-file")
			}
			return csrsigning.New(a.Client, d.signers), nil
		},
	},
	{
		Name: "certificatesigningrequest-cleaner-controller", Alias: "csrcleaner", Identity: "certificate-controller",
		New: func(d *dependencies, a *access) (registrar, error) { return csrcleaner.New(a.Client), nil },
	},
	{
		Name: "podcertificaterequest-cleaner-controller", Identity: "podcertificaterequestcleaner",
		Needs: []schema.GroupVersionKind{certificatesv1.SchemeGroupVersion.WithKind("PodCertificateRequest")},
		New:   func(d *dependencies, a *access) (registrar, error) { return podcertificatecleaner.New(a.Client), nil },
	},
	{
		Name: "validatingadmissionpolicy-status-controller", Identity: "validatingadmissionpolicy-status-controller",
		Workers: func(w Workers) int { return w.PolicyStatus },
		New: func(d *dependencies, a *access) (registrar, error) {
			return policystatus.New(a.Client, a.Clientset, d.mgr.GetRESTMapper()), nil
		},
	},
	{
		Name: "podgroup-protection-controller", Identity: "podgroup-protection-controller", Gate: gateGenericWorkload,
		Needs:   []schema.GroupVersionKind{schedulingv1beta1.SchemeGroupVersion.WithKind("PodGroup")},
		Indexes: []index.Index{index.PodsByGroup()},
		New: func(d *dependencies, a *access) (registrar, error) {
			return podgroupprotection.New(a.Client, a.Live), nil
		},
	},
	{
		Name: "resourcepoolstatusrequest-controller", Identity: "resourcepoolstatusrequest-controller", Gate: gateResourcePoolStatus,
		Needs: []schema.GroupVersionKind{resourcev1alpha3.SchemeGroupVersion.WithKind("ResourcePoolStatusRequest")},
		New: func(d *dependencies, a *access) (registrar, error) {
			return resourcepoolstatus.New(a.Client, d.metrics), nil
		},
	},
	{
		Name: "storageversion-garbage-collector-controller", Alias: "storage-version-gc", Identity: "storage-version-garbage-collector", Gate: gateStorageVersions,
		Needs: []schema.GroupVersionKind{apiserverinternalv1alpha1.SchemeGroupVersion.WithKind("StorageVersion")},
		New: func(d *dependencies, a *access) (registrar, error) {
			return storageversiongc.New(a.Client, a.Live), nil
		},
	},
	{
		Name: "selinux-warning-controller", Identity: "selinux-warning-controller", Source: "selinux_warning", OffByDefault: true,
		Indexes: []index.Index{index.PodsByClaim()},
		New: func(d *dependencies, a *access) (registrar, error) {
			return selinuxwarning.New(a.Client, a.Events, d.metrics), nil
		},
	},
	{
		Name: "bootstrap-signer-controller", Alias: "bootstrapsigner", Identity: "bootstrap-signer", OffByDefault: true,
		New: func(d *dependencies, a *access) (registrar, error) {
			return bootstrapsigner.New(a.Client, a.Live), nil
		},
	},
	{
		Name: "token-cleaner-controller", Alias: "tokencleaner", Identity: "token-cleaner", OffByDefault: true,
		New: func(d *dependencies, a *access) (registrar, error) { return tokencleaner.New(a.Client), nil },
	},
}
