package apiserver_test

import (
	"bytes"
	"context"
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/restmapper"
	"sigs.k8s.io/yaml"

	"github.com/leme-k8s/leme/pkg/testcluster"
)

// TestVersions uses what --runtime-config serves beside what is served by default. An
// object that is created in one version is there in the others, and stored in the one in
// which the original stores it.
func TestVersions(t *testing.T) {
	c := testcluster.Start(t, testcluster.WithAPIServerFlags("--runtime-config=api/all=true", "--feature-gates=GenericWorkload=true,TopologyAwareWorkloadScheduling=true,CompositePodGroup=true,EvictionRequestAPI=true"))
	ctx := context.Background()
	mapper := restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(discovery.NewDiscoveryClientForConfigOrDie(c.Config)))
	client := dynamic.NewForConfigOrDie(c.Config)
	in := func(t *testing.T, kind, version, namespace string) dynamic.ResourceInterface {
		t.Helper()
		gv, err := schema.ParseGroupVersion(version)
		if err != nil {
			t.Fatal(err)
		}
		m, err := mapper.RESTMapping(schema.GroupKind{Group: gv.Group, Kind: kind}, gv.Version)
		if err != nil {
			t.Fatal(err)
		}
		return client.Resource(m.Resource).Namespace(namespace)
	}
	for _, tc := range []struct {
		manifest string
		others   []string
		key      string
		stored   string
	}{
		{
			`{apiVersion: storagemigration.k8s.io/v1beta1, kind: StorageVersionMigration, metadata: {name: a}, spec: {resource: {group: "", resource: pods}}}`,
			[]string{"storagemigration.k8s.io/v1"}, "/storageversionmigrations/a", "storagemigration.k8s.io/v1beta1",
		},
		{
			`{apiVersion: coordination.k8s.io/v1alpha2, kind: LeaseCandidate, metadata: {name: a, namespace: default}, spec: {leaseName: l, binaryVersion: 1.37.0, emulationVersion: 1.36.0, strategy: OldestEmulationVersion, renewTime: "2026-01-01T00:00:00.000001Z"}}`,
			[]string{"coordination.k8s.io/v1beta1"}, "/leasecandidates/default/a", "coordination.k8s.io/v1beta1",
		},
		{
			`{apiVersion: internal.apiserver.k8s.io/v1alpha1, kind: StorageVersion, metadata: {name: apps.deployments}, spec: {}}`,
			nil, "/storageversions/apps.deployments", "internal.apiserver.k8s.io/v1alpha1",
		},
		{
			`{apiVersion: resource.k8s.io/v1beta2, kind: DeviceTaintRule, metadata: {name: a}, spec: {taint: {key: a, effect: NoExecute, timeAdded: "2026-01-01T00:00:00Z"}}}`,
			[]string{"resource.k8s.io/v1", "resource.k8s.io/v1alpha3"}, "/devicetaintrules/a", "resource.k8s.io/v1beta2",
		},
		{
			`{apiVersion: resource.k8s.io/v1beta2, kind: ResourceClaim, metadata: {name: a, namespace: default}, spec: {devices: {requests: [{name: a, exactly: {deviceClassName: a, allocationMode: ExactCount, count: 1}}]}}}`,
			[]string{"resource.k8s.io/v1"}, "/resourceclaims/default/a", "resource.k8s.io/v1",
		},
		{
			`{apiVersion: resource.k8s.io/v1beta1, kind: DeviceClass, metadata: {name: a}, spec: {selectors: [{cel: {expression: "true"}}], config: [{opaque: {driver: example.com, parameters: {a: b}}}]}}`,
			[]string{"resource.k8s.io/v1", "resource.k8s.io/v1beta2"}, "/deviceclasses/a", "resource.k8s.io/v1",
		},
		{ // these look otherwise in v1: see the tests of pkg/api/resource
			`{apiVersion: resource.k8s.io/v1beta1, kind: ResourceClaimTemplate, metadata: {name: a, namespace: default}, spec: {spec: {devices: {requests: [{name: a, deviceClassName: a, allocationMode: All}]}}}}`,
			nil, "/resourceclaimtemplates/default/a", "resource.k8s.io/v1",
		},
		{
			`{apiVersion: resource.k8s.io/v1beta1, kind: ResourceSlice, metadata: {name: a}, spec: {driver: example.com, nodeName: a, pool: {name: a, resourceSliceCount: 1, generation: 0}, devices: [{name: a, basic: {attributes: {a: {bool: true}}}}]}}`,
			nil, "/resourceslices/a", "resource.k8s.io/v1",
		},
		{
			`{apiVersion: resource.k8s.io/v1alpha3, kind: ResourcePoolStatusRequest, metadata: {name: a}, spec: {driver: example.com, limit: 5}}`,
			nil, "/resourcepoolstatusrequests/a", "resource.k8s.io/v1alpha3",
		},
		{
			`{apiVersion: certificates.k8s.io/v1beta1, kind: PodCertificateRequest, metadata: {name: a, namespace: default}, spec: {signerName: example.com/s, podName: a, podUID: u1, serviceAccountName: a, serviceAccountUID: u2, nodeName: a, nodeUID: u3, maxExpirationSeconds: 3600, pkixPublicKey: "MCowBQYDK2VwAyEAsDPmTW4mIt1LNOPj4jfrGz8j04Zn1f0SNBCuHC24l8s=", proofOfPossession: "s8VsWr4h+XXXeoPaZb3NdIGvS8VXpHyjZKw6yK4Lf9yHuTKEvWU7xQ2Owzqg63ooufY9mEnP/SdFW0p+Xpo6BQ=="}}`,
			nil, "/podcertificaterequests/default/a", "certificates.k8s.io/v1beta1",
		},
		{
			`{apiVersion: admissionregistration.k8s.io/v1alpha1, kind: MutatingAdmissionPolicyBinding, metadata: {name: a}, spec: {policyName: a}}`,
			[]string{"admissionregistration.k8s.io/v1", "admissionregistration.k8s.io/v1beta1"}, "/mutatingadmissionpolicybindings/a", "admissionregistration.k8s.io/v1",
		},
		{
			`{apiVersion: scheduling.k8s.io/v1alpha3, kind: Workload, metadata: {name: a, namespace: default}, spec: {podGroupTemplates: [{name: a, schedulingConstraints: {topology: [{key: example.com/rack}]}, schedulingPolicy: {gang: {minCount: 2}}}]}}`,
			[]string{"scheduling.k8s.io/v1beta1"}, "/workloads/default/a", "scheduling.k8s.io/v1beta1",
		},
		{
			`{apiVersion: scheduling.k8s.io/v1beta1, kind: PodGroup, metadata: {name: a, namespace: default}, spec: {workloadRef: {workloadName: a, templateName: a}, schedulingPolicy: {basic: {}}}}`,
			[]string{"scheduling.k8s.io/v1alpha3"}, "/podgroups/default/a", "scheduling.k8s.io/v1beta1",
		},
		{
			`{apiVersion: scheduling.k8s.io/v1alpha3, kind: CompositePodGroup, metadata: {name: a, namespace: default}, spec: {workloadRef: {workloadName: a, templateName: a}, schedulingPolicy: {gang: {minGroupCount: 2}}}}`,
			nil, "/compositepodgroups/default/a", "scheduling.k8s.io/v1alpha3",
		},
		{
			`{apiVersion: lifecycle.k8s.io/v1alpha1, kind: EvictionRequest, metadata: {name: a, namespace: default}, spec: {target: {pod: {name: a, uid: 00000000-0000-4000-8000-000000000000}}, requester: example.com/a, intent: Eviction}}`,
			nil, "/evictionrequests/default/a", "lifecycle.k8s.io/v1alpha1",
		},
		{
			`{apiVersion: lifecycle.k8s.io/v1alpha1, kind: Eviction, metadata: {name: a, namespace: default}, spec: {target: {pod: {name: a, uid: 00000000-0000-4000-8000-000000000000}}}}`,
			nil, "/evictions/default/a", "lifecycle.k8s.io/v1alpha1",
		},
	} {
		t.Run(tc.key, func(t *testing.T) {
			obj := &unstructured.Unstructured{}
			if err := yaml.Unmarshal([]byte(tc.manifest), &obj.Object); err != nil {
				t.Fatal(err)
			}
			here := in(t, obj.GetKind(), obj.GetAPIVersion(), obj.GetNamespace())
			created, err := here.Create(ctx, obj, metav1.CreateOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if value := stored(t, c, tc.key); !bytes.HasPrefix(value, []byte("k8s\x00")) || !bytes.Contains(value[:min(len(value), 64)], []byte(tc.stored)) {
				t.Errorf("%s holds %.64q, want %s", tc.key, value, tc.stored)
			}
			for _, version := range tc.others {
				there := in(t, obj.GetKind(), version, obj.GetNamespace())
				got, err := there.Get(ctx, obj.GetName(), metav1.GetOptions{})
				if err != nil {
					t.Fatal(err)
				}
				spec, _ := yaml.Marshal(got.Object["spec"])
				if want, _ := yaml.Marshal(created.Object["spec"]); !bytes.Equal(spec, want) || got.GetAPIVersion() != version {
					t.Errorf("in %s it is %s\n%s, want\n%s", version, got.GetAPIVersion(), spec, want)
				}
				got.SetLabels(map[string]string{"in": got.GetResourceVersion()})
				if _, err := there.Update(ctx, got, metav1.UpdateOptions{}); err != nil {
					t.Errorf("update in %s: %v", version, err)
				}
			}
			if again, err := here.Get(ctx, obj.GetName(), metav1.GetOptions{}); err != nil {
				t.Error(err)
			} else if diff := cmp.Diff(fields(t, obj.Object["spec"], obj), fields(t, again.Object["spec"], obj)); diff != "" {
				t.Errorf("-sent +got:\n%s", diff)
			}
			list, err := here.List(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + obj.GetName()})
			if err != nil {
				t.Fatal(err)
			}
			if len(list.Items) != 1 || len(tc.others) > 0 && list.Items[0].GetLabels()["in"] == "" {
				t.Errorf("the list has %v", list.Items)
			}
			apply := &unstructured.Unstructured{Object: map[string]any{"metadata": map[string]any{"annotations": map[string]any{"a": "b"}}}}
			apply.SetAPIVersion(obj.GetAPIVersion())
			apply.SetKind(obj.GetKind())
			apply.SetName(obj.GetName())
			if _, err := here.Apply(ctx, obj.GetName(), apply, metav1.ApplyOptions{FieldManager: "test"}); err != nil {
				t.Errorf("apply: %v", err)
			}
			if err := here.Delete(ctx, obj.GetName(), metav1.DeleteOptions{}); err != nil {
				t.Error(err)
			}
		})
	}
}

// fields are those of a spec, as JSON, that obj has.
func fields(t *testing.T, spec any, obj *unstructured.Unstructured) map[string]string {
	t.Helper()
	all := map[string]string{}
	for name := range obj.Object["spec"].(map[string]any) {
		value, err := json.Marshal(spec.(map[string]any)[name])
		if err != nil {
			t.Fatal(err)
		}
		all[name] = string(value)
	}
	return all
}
