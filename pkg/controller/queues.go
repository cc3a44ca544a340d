package controller

import (
	"time"

	"k8s.io/client-go/util/workqueue"
	_ "k8s.io/component-base/metrics/prometheus/workqueue" // what queues tell is in /metrics
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/leme-k8s/leme/pkg/component"
)

// queueNames are what metrics call the work queues of controllers, as dashboards know them. A queue that is not
// here is called as its controller.
var queueNames = map[string]string{
	"bootstrap-signer-controller":                                    "bootstrap_signer_queue",
	"certificatesigningrequest-approving-controller":                 "certificate",
	"certificatesigningrequest-signing-controller":                   "certificate",
	"clusterrole-aggregation-controller":                             "ClusterRoleAggregator",
	"cronjob-controller":                                             "cronjob",
	"daemonset-controller":                                           "daemonset",
	"deployment-controller":                                          "deployment",
	"disruption-controller":                                          "disruption",
	"endpoints-controller":                                           "endpoint",
	"endpointslice-controller":                                       "endpoint_slice",
	"endpointslice-mirroring-controller":                             "endpoint_slice_mirroring",
	"ephemeral-volume-controller":                                    "ephemeral_volume",
	"horizontal-pod-autoscaler-controller":                           "horizontalpodautoscaler",
	"job-controller":                                                 "job",
	"kube-apiserver-serving-clustertrustbundle-publisher-controller": "ca_cert_publisher_cluster_trust_bundles",
	"namespace-controller":                                           "namespace",
	"node-lifecycle-controller":                                      "node_lifecycle_controller",
	"persistentvolume-attach-detach-controller":                      "pvcs",
	"persistentvolume-binder-controller":                             "claims",
	"persistentvolume-binder-controller-volumes":                     "volumes",
	"persistentvolume-expander-controller":                           "volume_expand",
	"persistentvolume-protection-controller":                         "pvprotection",
	"persistentvolumeclaim-protection-controller":                    "pvcprotection",
	"pod-garbage-collector-controller":                               "orphaned_pods_nodes",
	"podgroup-protection-controller":                                 "podgroupprotection",
	"replicaset-controller":                                          "replicaset",
	"replicationcontroller-controller":                               "replicationmanager",
	"resourceclaim-controller":                                       "resource_claim",
	"resourcequota-controller":                                       "resourcequota_primary",
	"root-ca-certificate-publisher-controller":                       "root_ca_cert_publisher",
	"selinux-warning-controller":                                     "selinux_warning",
	"service-cidr-controller":                                        "servicecidrs",
	"serviceaccount-controller":                                      "serviceaccount",
	"serviceaccount-token-controller":                                "serviceaccount_tokens_service",
	"statefulset-controller":                                         "statefulset",
	"storageversion-garbage-collector-controller":                    "storage_version_garbage_collector_storageversions",
	"taint-eviction-controller":                                      "noexec_taint_pod",
	"token-cleaner-controller":                                       "token_cleaner",
	"ttl-after-finished-controller":                                  "ttl_jobs_to_delete",
	"ttl-controller":                                                 "ttlcontroller",
	"volumeattributesclass-protection-controller":                    "vacprotection",
}

// newQueue makes a controller's work queue. The one that controller-runtime makes wakes
// the process twice a second for its metrics, and there are as many as controllers.
func newQueue(name string, limiter workqueue.TypedRateLimiter[reconcile.Request]) workqueue.TypedRateLimitingInterface[reconcile.Request] {
	if known, ok := queueNames[name]; ok {
		name = known
	}
	return workqueue.NewTypedRateLimitingQueueWithConfig(limiter, workqueue.TypedRateLimitingQueueConfig[reconcile.Request]{
		Name: name, Clock: queueClock{component.Coarse{Period: time.Second}},
	})
}

// queueClock is coarse for metrics and exact for work that is due.
type queueClock struct{ component.Coarse }

// NewTimer implements clock.Clock.
func (c queueClock) NewTimer(d time.Duration) clock.Timer { return c.RealClock.NewTimer(d) }
