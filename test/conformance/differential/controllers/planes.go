package main

import (
	"context"
	"fmt"
	"os"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"

	"github.com/leme-k8s/leme/test/conformance/differential/internal/peers"
)

// A plane is a control plane with one of the controller managers.
type plane struct {
	config *rest.Config
	client dynamic.Interface
	mapper meta.RESTMapper
	world  *world
	nodes  *nodes
}

// features are on in all components: they bring controllers, or more for those to do.
const features = "GenericWorkload=true,DRAResourcePoolStatus=true,DRAWorkloadResourceClaims=true"

// gates is the flag that switches the features on.
func (o options) gates() string {
	if o.features == "" {
		return "--feature-gates=" + features
	}
	return "--feature-gates=" + features + "," + o.features
}

// managerFlags are those of both managers. Intervals are short where a scenario would
// wait for them.
func managerFlags(p *peers.Processes, kubeconfig, gates string) []string {
	return []string{
		"--kubeconfig=" + kubeconfig, "--authentication-kubeconfig=" + kubeconfig, "--authorization-kubeconfig=" + kubeconfig,
		"--secure-port=0", "--leader-elect=false", "--use-service-account-credentials",
		"--controllers=*,bootstrap-signer-controller,selinux-warning-controller,token-cleaner-controller", gates,
		"--root-ca-file=" + p.Path("ca.crt"), "--service-account-private-key-file=" + p.Path("sa.key"),
		"--cluster-signing-cert-file=" + p.Path("ca.crt"), "--cluster-signing-key-file=" + p.Path("ca.key"),
		"--allocate-node-cidrs", "--cluster-cidr=10.244.0.0/16", "--service-cluster-ip-range=10.96.0.0/16",
		"--kube-api-qps=1000", "--kube-api-burst=2000",
		"--node-monitor-period=1s", "--node-monitor-grace-period=40s", "--node-eviction-rate=10", "--secondary-node-eviction-rate=10",
		"--horizontal-pod-autoscaler-sync-period=4s", "--resource-quota-sync-period=5s",
		"--attach-detach-reconcile-sync-period=2s",
	}
}

func startPlane(ctx context.Context, p *peers.Processes, name, manager string, o options) (*plane, error) {
	etcd, err := p.StartEtcd(name+"-etcd", o.etcd)
	if err != nil {
		return nil, err
	}
	server, err := p.StartServer(ctx, name+"-kube-apiserver", o.server, etcd,
		o.gates(), "--runtime-config=resource.k8s.io/v1alpha3=true,scheduling.k8s.io/v1beta1=true")
	if err != nil {
		return nil, err
	}
	config := &rest.Config{Host: server.URL(""), BearerToken: peers.Token, QPS: -1, TLSClientConfig: rest.TLSClientConfig{Insecure: true}}
	pl := &plane{config: config}
	if pl.client, err = dynamic.NewForConfig(config); err != nil {
		return nil, err
	}
	d, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		return nil, err
	}
	if err := pl.define(ctx, d); err != nil {
		return nil, err
	}
	groups, err := restmapper.GetAPIGroupResources(d)
	if err != nil {
		return nil, err
	}
	pl.mapper = restmapper.NewDiscoveryRESTMapper(groups)
	cs, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	pl.nodes = newNodes(cs)
	pl.world = newWorld(pl.client, pl.mapper)
	pl.world.onPod = pl.nodes.see
	kubeconfig, err := writeKubeconfig(p, name, server)
	if err != nil {
		return nil, err
	}
	if _, err := p.Start(name+"-kube-controller-manager", manager, managerFlags(p, kubeconfig, o.gates())...); err != nil {
		return nil, err
	}
	if err := pl.world.start(ctx, d); err != nil {
		return nil, err
	}
	return pl, pl.nodes.run(ctx)
}

func writeKubeconfig(p *peers.Processes, name string, s *peers.Server) (string, error) {
	file := p.Path(name + ".conf")
	return file, os.WriteFile(file, fmt.Appendf(nil, `apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: %q, insecure-skip-tls-verify: true}}]
users: [{name: u, user: {token: %q}}]
contexts: [{name: c, context: {cluster: c, user: u}}]
current-context: c
`, s.URL(""), peers.Token), 0o600)
}

// things is a resource that is not built in.
var things = schema.GroupVersionResource{Group: "example.com", Version: "v1", Resource: "things"}

// define makes the API server serve things.
func (p *plane) define(ctx context.Context, d discovery.DiscoveryInterface) error {
	keep, selector := true, ".status.selector"
	object, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&apiextensionsv1.CustomResourceDefinition{
		TypeMeta:   metav1.TypeMeta{APIVersion: "apiextensions.k8s.io/v1", Kind: "CustomResourceDefinition"},
		ObjectMeta: metav1.ObjectMeta{Name: "things.example.com"},
		Spec: apiextensionsv1.CustomResourceDefinitionSpec{
			Group: things.Group, Scope: apiextensionsv1.NamespaceScoped,
			Names: apiextensionsv1.CustomResourceDefinitionNames{Plural: things.Resource, Singular: "thing", Kind: "Thing", ListKind: "ThingList"},
			Versions: []apiextensionsv1.CustomResourceDefinitionVersion{{
				Name: things.Version, Served: true, Storage: true,
				Schema: &apiextensionsv1.CustomResourceValidation{OpenAPIV3Schema: &apiextensionsv1.JSONSchemaProps{Type: "object", XPreserveUnknownFields: &keep}},
				Subresources: &apiextensionsv1.CustomResourceSubresources{Scale: &apiextensionsv1.CustomResourceSubresourceScale{
					SpecReplicasPath: ".spec.replicas", StatusReplicasPath: ".status.replicas", LabelSelectorPath: &selector,
				}},
			}},
		},
	})
	if err != nil {
		return err
	}
	delete(object, "status")
	gvr := schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}
	if _, err := p.client.Resource(gvr).Create(ctx, &unstructured.Unstructured{Object: object}, metav1.CreateOptions{}); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		if list, err := d.ServerResourcesForGroupVersion(things.GroupVersion().String()); err == nil && len(list.APIResources) > 0 {
			return nil
		}
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return fmt.Errorf("things are not served: %w", err)
		}
	}
}
