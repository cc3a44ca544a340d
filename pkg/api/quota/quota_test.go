package quota

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/admission"
	quota "k8s.io/apiserver/pkg/quota/v1"
	"k8s.io/apiserver/pkg/quota/v1/generic"
	clocktesting "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/yaml"
)

var now = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// testDevices has a class "gpu" that pods call example.com/gpu as well, and pods that each ask for one by each name: "noted" says which claim it
// has, and "new" and "two" do not. Of "two", there are two claims.
var testDevices = Devices{
	Class: func(name string) (*resourcev1.DeviceClass, error) {
		if name != "gpu" {
			return nil, apierrors.NewNotFound(resourcev1.Resource("deviceclasses"), name)
		}
		return &resourcev1.DeviceClass{Spec: resourcev1.DeviceClassSpec{ExtendedResourceName: ptr.To("example.com/gpu")}}, nil
	},
	Pod: func(_, name string) (*corev1.Pod, error) {
		one := corev1.ResourceRequirements{Requests: corev1.ResourceList{"example.com/gpu": resource.MustParse("1"), "deviceclass.resource.kubernetes.io/gpu": resource.MustParse("1"), "cpu": resource.MustParse("1")}}
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: types.UID(name)}, Spec: corev1.PodSpec{
			InitContainers: []corev1.Container{{Resources: one}}, Containers: []corev1.Container{{Resources: one}},
		}}
		switch name {
		case "noted":
			pod.Status.ExtendedResourceClaimStatus = &corev1.PodExtendedResourceClaimStatus{ResourceClaimName: "c"}
		case "new", "two":
		default:
			return nil, apierrors.NewNotFound(corev1.Resource("pods"), name)
		}
		return pod, nil
	},
	Claims: func(string) ([]resourcev1.ResourceClaim, error) {
		other := resourcev1.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Name: "other", OwnerReferences: []metav1.OwnerReference{{Kind: "Pod", Name: "two", UID: "two", Controller: ptr.To(true)}}}}
		return []resourcev1.ResourceClaim{other}, nil
	},
}

func evaluatorOf(t *testing.T, resource string) quota.Evaluator {
	t.Helper()
	e := generic.NewRegistry(Evaluators(nil, testDevices, clocktesting.NewFakePassiveClock(now))).Get(schema.ParseGroupResource(resource))
	if e == nil {
		t.Fatalf("no evaluator of %s", resource)
	}
	return e
}

// read reads a manifest of the resource.
func read(t *testing.T, resource, manifest string) runtime.Object {
	t.Helper()
	obj := map[string]runtime.Object{
		"pods": &corev1.Pod{}, "services": &corev1.Service{}, "persistentvolumeclaims": &corev1.PersistentVolumeClaim{}, "secrets": &corev1.Secret{},
		"resourceclaims.resource.k8s.io": &resourcev1.ResourceClaim{},
	}[resource]
	if err := yaml.UnmarshalStrict([]byte(manifest), obj); err != nil {
		t.Fatal(err)
	}
	return obj
}

// measured is a manifest of a resource and what it uses.
type measured struct {
	resource, manifest string
	want               map[corev1.ResourceName]string
}

// extended is a claim of two devices that was made for the extended resources of a pod, which uses so many under the names that pods have for them.
func extended(pod, claim, uid, requests string) measured {
	return measured{"resourceclaims.resource.k8s.io", `{metadata: {name: ` + claim + `, annotations: {resource.kubernetes.io/extended-resource-claim: "true"}, ownerReferences: [{kind: Pod, name: ` + pod + `, uid: ` + uid + `, controller: true}]},
		spec: {devices: {requests: [{name: a, exactly: {deviceClassName: gpu, allocationMode: ExactCount, count: 2}}]}}}`,
		map[corev1.ResourceName]string{
			"count/resourceclaims.resource.k8s.io": "1", "gpu.deviceclass.resource.k8s.io/devices": "2",
			"requests.deviceclass.resource.kubernetes.io/gpu": requests, "requests.example.com/gpu": requests,
		}}
}

func TestUsage(t *testing.T) {
	for name, tc := range map[string]measured{
		"secret": {"secrets", `{}`, map[corev1.ResourceName]string{"secrets": "1", "count/secrets": "1"}},
		"pod": {"pods", `{spec: {containers: [{resources: {requests: {cpu: 1, memory: 50M, example.com/dongle: 1}, limits: {cpu: 2, memory: 100M, example.com/dongle: 1}}}, {resources: {requests: {cpu: 2, hugepages-2Mi: 2Mi}}}],
			initContainers: [{resources: {requests: {cpu: 4}}}]}}`,
			map[corev1.ResourceName]string{
				"pods": "1", "count/pods": "1", "cpu": "4", "requests.cpu": "4", "limits.cpu": "2", "memory": "50M", "requests.memory": "50M", "limits.memory": "100M",
				"requests.example.com/dongle": "1", "hugepages-2Mi": "2Mi", "requests.hugepages-2Mi": "2Mi",
			}},
		"implicit device": {"pods", `{spec: {containers: [{resources: {requests: {deviceclass.resource.kubernetes.io/dongle: 3}}}]}}`,
			map[corev1.ResourceName]string{"pods": "1", "count/pods": "1", "requests.deviceclass.resource.kubernetes.io/dongle": "3"}},
		"ended pod": {"pods", `{spec: {containers: [{resources: {requests: {cpu: 1}}}]}, status: {phase: Succeeded}}`, map[corev1.ResourceName]string{"count/pods": "1"}},
		"pod that should be gone": {"pods", `{metadata: {deletionTimestamp: "2025-12-31T23:59:00Z", deletionGracePeriodSeconds: 30}, spec: {containers: [{resources: {requests: {cpu: 1}}}]}}`,
			map[corev1.ResourceName]string{"count/pods": "1"}},
		"pod that is going": {"pods", `{metadata: {deletionTimestamp: "2025-12-31T23:59:50Z", deletionGracePeriodSeconds: 30}}`,
			map[corev1.ResourceName]string{"pods": "1", "count/pods": "1"}},
		"devices": {"resourceclaims.resource.k8s.io", `{spec: {devices: {requests: [{name: a, exactly: {deviceClassName: gpu, allocationMode: ExactCount, count: 2}},
			{name: b, exactly: {deviceClassName: nic, allocationMode: All}},
			{name: c, firstAvailable: [{name: x, deviceClassName: gpu, allocationMode: ExactCount, count: 1}, {name: y, deviceClassName: gpu, allocationMode: ExactCount, count: 4}]}]}}}`,
			map[corev1.ResourceName]string{"count/resourceclaims.resource.k8s.io": "1", "gpu.deviceclass.resource.k8s.io/devices": "6", "nic.deviceclass.resource.k8s.io/devices": "32",
				"requests.deviceclass.resource.kubernetes.io/gpu": "6", "requests.example.com/gpu": "6", "requests.deviceclass.resource.kubernetes.io/nic": "32"}},
		"devices in a way to come": {"resourceclaims.resource.k8s.io", `{spec: {devices: {requests: [{name: a, exactly: {deviceClassName: gpu, allocationMode: Some, count: 2}}]}}}`,
			map[corev1.ResourceName]string{"count/resourceclaims.resource.k8s.io": "1", "gpu.deviceclass.resource.k8s.io/devices": "0"}},
		"extended, noted":                       extended("noted", "c", "noted", "1"),
		"extended, another's":                   extended("noted", "d", "noted", "2"),
		"extended, new":                         extended("new", "c", "new", "1"),
		"extended, one of two":                  extended("two", "c", "two", "2"),
		"extended, of a pod that is gone":       extended("gone", "c", "gone", "2"),
		"extended, of a pod that came after it": extended("new", "c", "old", "2"),
		"cluster IP": {"services", `{spec: {type: ClusterIP, ports: [{port: 1}]}}`,
			map[corev1.ResourceName]string{"services": "1", "count/services": "1", "services.nodeports": "0", "services.loadbalancers": "0"}},
		"node ports": {"services", `{spec: {type: NodePort, ports: [{port: 1}, {port: 2}]}}`,
			map[corev1.ResourceName]string{"services": "1", "count/services": "1", "services.nodeports": "2", "services.loadbalancers": "0"}},
		"load balancer": {"services", `{spec: {type: LoadBalancer, ports: [{port: 1}, {port: 2}]}}`,
			map[corev1.ResourceName]string{"services": "1", "count/services": "1", "services.nodeports": "2", "services.loadbalancers": "1"}},
		"load balancer without node ports": {"services", `{spec: {type: LoadBalancer, allocateLoadBalancerNodePorts: false, ports: [{port: 1}, {port: 2, nodePort: 30000}]}}`,
			map[corev1.ResourceName]string{"services": "1", "count/services": "1", "services.nodeports": "1", "services.loadbalancers": "1"}},
		"claim": {"persistentvolumeclaims", `{spec: {resources: {requests: {storage: 1001m}}}}`,
			map[corev1.ResourceName]string{"persistentvolumeclaims": "1", "count/persistentvolumeclaims": "1", "requests.storage": "2"}},
		"expanded claim of a class": {"persistentvolumeclaims", `{spec: {storageClassName: gold, resources: {requests: {storage: 5G}}}, status: {allocatedResources: {storage: 10G}}}`,
			map[corev1.ResourceName]string{
				"persistentvolumeclaims": "1", "count/persistentvolumeclaims": "1", "requests.storage": "10G",
				"gold.storageclass.storage.k8s.io/requests.storage": "10G", "gold.storageclass.storage.k8s.io/persistentvolumeclaims": "1",
			}},
	} {
		t.Run(name, func(t *testing.T) {
			used, err := evaluatorOf(t, tc.resource).Usage(read(t, tc.resource, tc.manifest))
			if err != nil {
				t.Fatal(err)
			}
			want := corev1.ResourceList{}
			for name, quantity := range tc.want {
				want[name] = resource.MustParse(quantity)
			}
			if !quota.Equals(want, used) {
				t.Errorf("uses %v, want %v", used, want)
			}
			// What is used is measured.
			names := slices.Collect(maps.Keys(used))
			if got := evaluatorOf(t, tc.resource).MatchingResources(names); len(got) != len(names) {
				t.Errorf("of %v, only %v are measured", names, got)
			}
		})
	}
}

func TestMatchingResources(t *testing.T) {
	others := []corev1.ResourceName{"storage", "gold.storage.k8s.io/requests.storage", "gold.storageclass.storage.k8s.io/storage", "count/other", "requests.kubernetes.io/x", "services.other"}
	for _, resource := range []string{"pods", "services", "persistentvolumeclaims", "secrets"} {
		if got := evaluatorOf(t, resource).MatchingResources(others); len(got) > 0 {
			t.Errorf("%s: %v", resource, got)
		}
	}
}

func TestConstraints(t *testing.T) {
	two := `{spec: {containers: [{name: foo}], initContainers: [{name: bar, resources: {limits: {cpu: 1}}}]%s}}`
	for name, tc := range map[string]struct {
		more, want string
		required   []corev1.ResourceName
	}{
		"nothing required": {required: []corev1.ResourceName{"pods", "example.com/x"}},
		"requests":         {required: []corev1.ResourceName{"memory", "requests.cpu"}, want: "must specify memory for: bar,foo; requests.cpu for: bar,foo"},
		"limits":           {required: []corev1.ResourceName{"limits.cpu"}, want: "must specify limits.cpu for: foo"},
		"of the pod":       {required: []corev1.ResourceName{"memory"}, more: `, resources: {requests: {cpu: 1}}`},
	} {
		pod := read(t, "pods", strings.Replace(two, "%s", tc.more, 1))
		got := ""
		if err := evaluatorOf(t, "pods").Constraints(tc.required, pod); err != nil {
			got = err.Error()
		}
		if got != tc.want {
			t.Errorf("%s: %q, want %q", name, got, tc.want)
		}
	}
}

func TestScopes(t *testing.T) {
	const attributes = corev1.ResourceQuotaScopeVolumeAttributesClass
	for name, tc := range map[string]struct {
		resource, manifest string
		in, out            []corev1.ScopedResourceSelectorRequirement
	}{
		"best effort": {resource: "pods", manifest: `{}`,
			in:  []corev1.ScopedResourceSelectorRequirement{{ScopeName: "BestEffort"}, {ScopeName: "NotTerminating"}, {ScopeName: "PriorityClass", Operator: "DoesNotExist"}, {ScopeName: "PriorityClass", Operator: "NotIn", Values: []string{"a"}}},
			out: []corev1.ScopedResourceSelectorRequirement{{ScopeName: "NotBestEffort"}, {ScopeName: "Terminating"}, {ScopeName: "CrossNamespacePodAffinity"}, {ScopeName: "PriorityClass", Operator: "Exists"}}},
		"burstable": {resource: "pods", manifest: `{spec: {activeDeadlineSeconds: 1, priorityClassName: a, containers: [{resources: {requests: {cpu: 1}}}]}}`,
			in:  []corev1.ScopedResourceSelectorRequirement{{ScopeName: "NotBestEffort"}, {ScopeName: "Terminating"}, {ScopeName: "PriorityClass", Operator: "Exists"}, {ScopeName: "PriorityClass", Operator: "In", Values: []string{"a", "b"}}},
			out: []corev1.ScopedResourceSelectorRequirement{{ScopeName: "BestEffort"}, {ScopeName: "NotTerminating"}, {ScopeName: "PriorityClass", Operator: "NotIn", Values: []string{"a"}}}},
		"namespaces": {resource: "pods", manifest: `{spec: {affinity: {podAntiAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [{podAffinityTerm: {namespaceSelector: {}}}]}}}}`,
			in: []corev1.ScopedResourceSelectorRequirement{{ScopeName: "CrossNamespacePodAffinity"}}},
		"claim": {resource: "persistentvolumeclaims", manifest: `{spec: {volumeAttributesClassName: a}, status: {currentVolumeAttributesClassName: b, modifyVolumeStatus: {targetVolumeAttributesClassName: c}}}`,
			in:  []corev1.ScopedResourceSelectorRequirement{{ScopeName: attributes, Operator: "Exists"}, {ScopeName: attributes, Operator: "In", Values: []string{"c", "d"}}, {ScopeName: attributes, Operator: "NotIn", Values: []string{"d"}}},
			out: []corev1.ScopedResourceSelectorRequirement{{ScopeName: attributes, Operator: "DoesNotExist"}, {ScopeName: attributes, Operator: "In", Values: []string{"d"}}, {ScopeName: "BestEffort"}}},
		"service": {resource: "services", manifest: `{}`, out: []corev1.ScopedResourceSelectorRequirement{{ScopeName: "BestEffort"}}},
	} {
		got, err := evaluatorOf(t, tc.resource).MatchingScopes(read(t, tc.resource, tc.manifest), append(slices.Clone(tc.in), tc.out...))
		if err != nil || len(got) != len(tc.in) {
			t.Errorf("%s: %v, %v, want %v", name, got, err, tc.in)
		}
	}
	uncovered, err := evaluatorOf(t, "pods").UncoveredQuotaScopes(
		[]corev1.ScopedResourceSelectorRequirement{{ScopeName: "PriorityClass", Operator: "Exists"}, {ScopeName: "BestEffort"}},
		[]corev1.ScopedResourceSelectorRequirement{{ScopeName: "PriorityClass", Operator: "In", Values: []string{"a"}}})
	if err != nil || len(uncovered) != 1 || uncovered[0].ScopeName != "BestEffort" {
		t.Errorf("uncovered: %v, %v", uncovered, err)
	}
}

func TestHandles(t *testing.T) {
	plain, ending := &corev1.Pod{}, &corev1.Pod{Spec: corev1.PodSpec{ActiveDeadlineSeconds: ptr.To[int64](1)}}
	for _, tc := range []struct {
		resource, sub string
		op            admission.Operation
		obj, old      runtime.Object
		want          bool
	}{
		{resource: "pods", op: admission.Create, obj: plain, want: true},
		{resource: "pods", op: admission.Create, sub: "binding"},
		{resource: "pods", op: admission.Update, obj: plain, old: plain},
		{resource: "pods", op: admission.Update, obj: plain, old: ending, want: true},
		{resource: "pods", op: admission.Update, obj: ending, old: plain, want: true},
		{resource: "pods", op: admission.Update, obj: ending, old: plain, sub: "status"},
		{resource: "pods", op: admission.Update, obj: plain, old: plain, sub: "resize", want: true},
		{resource: "pods", op: admission.Delete},
		{resource: "services", op: admission.Update, want: true},
		{resource: "services", op: admission.Update, sub: "status"},
		{resource: "persistentvolumeclaims", op: admission.Update, want: true},
		{resource: "persistentvolumeclaims", op: admission.Connect},
		{resource: "secrets", op: admission.Update},
	} {
		a := admission.NewAttributesRecord(tc.obj, tc.old, schema.GroupVersionKind{}, "", "", corev1.SchemeGroupVersion.WithResource(tc.resource), tc.sub, tc.op, nil, false, nil)
		if got := evaluatorOf(t, tc.resource).Handles(a); got != tc.want {
			t.Errorf("%s %s/%s: %v", tc.op, tc.resource, tc.sub, got)
		}
	}
}
