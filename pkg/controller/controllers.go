// Package controller is kube-controller-manager: one manager with one cache, and
// the controllers that are listed here.
package controller

import (
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/metadata"

	"github.com/leme-k8s/leme/pkg/controller/csrapproving"
	"github.com/leme-k8s/leme/pkg/controller/csrcleaner"
	"github.com/leme-k8s/leme/pkg/controller/csrsigning"
	"github.com/leme-k8s/leme/pkg/controller/deployment"
	"github.com/leme-k8s/leme/pkg/controller/internal/index"
	"github.com/leme-k8s/leme/pkg/controller/namespace"
	"github.com/leme-k8s/leme/pkg/controller/replicaset"
	"github.com/leme-k8s/leme/pkg/controller/rootca"
	"github.com/leme-k8s/leme/pkg/controller/serviceaccount"
)

// entries are all controllers. A controller's Name is what --controllers calls it,
// Alias its older name there, and Identity the service account that it has
// with --use-service-account-credentials.
var entries = []entry{
	{
		Name: "serviceaccount-controller", Alias: "serviceaccount", Identity: "service-account-controller",
		New: func(d *dependencies, a *access) (registrar, error) { return serviceaccount.New(a.Client), nil },
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
		Name: "deployment-controller", Alias: "deployment", Identity: "deployment-controller",
		Workers: func(w Workers) int { return w.Deployment },
		Indexes: []index.Index{index.ByController(&appsv1.ReplicaSet{}), index.ByController(&corev1.Pod{})},
		New: func(d *dependencies, a *access) (registrar, error) {
			return deployment.New(a.Client, a.Live, a.Events), nil
		},
	},
	{
		Name: "replicaset-controller", Alias: "replicaset", Identity: "replicaset-controller",
		Workers: func(w Workers) int { return w.ReplicaSet },
		Indexes: []index.Index{index.ByController(&appsv1.ReplicaSet{}), index.ByController(&corev1.Pod{})},
		New: func(d *dependencies, a *access) (registrar, error) {
			return replicaset.New(a.Client, a.Live, a.Events), nil
		},
	},
	{
		Name: "replicationcontroller-controller", Alias: "replicationcontroller", Identity: "replication-controller",
		Workers: func(w Workers) int { return w.ReplicationController },
		Indexes: []index.Index{index.ByController(&corev1.Pod{})},
		New: func(d *dependencies, a *access) (registrar, error) {
			return replicaset.NewReplication(a.Client, a.Live, a.Events), nil
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
}
