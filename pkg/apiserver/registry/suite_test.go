package registry_test

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	batchv1 "k8s.io/api/batch/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"sigs.k8s.io/yaml"

	"github.com/leme-k8s/leme/pkg/testcluster"
)

// TestResources does with objects of every kind what clients do.
func TestResources(t *testing.T) {
	c := testcluster.Start(t)
	client := c.Client(t)
	objects := readObjects(t)
	groups, err := restmapper.GetAPIGroupResources(discovery.NewDiscoveryClientForConfigOrDie(c.Config))
	if err != nil {
		t.Fatal(err)
	}
	mapper := restmapper.NewDiscoveryRESTMapper(groups)
	all := dynamic.NewForConfigOrDie(c.Config)

	for _, obj := range objects {
		t.Run(obj.GetKind()+"/"+obj.GetName(), func(t *testing.T) {
			mapping, err := mapper.RESTMapping(obj.GroupVersionKind().GroupKind(), obj.GroupVersionKind().Version)
			if err != nil {
				t.Fatal(err)
			}
			lifeCycle(t, all.Resource(mapping.Resource).Namespace(obj.GetNamespace()), obj)
		})
	}
	t.Run("keys", func(t *testing.T) { checkKeys(t, c) })
	t.Run("scale", func(t *testing.T) { scale(t, client) })
	t.Run("jobs", func(t *testing.T) { jobs(t, client) })
	t.Run("requests are in the name of who sends them", func(t *testing.T) { requester(t, client) })
	t.Run("roles", func(t *testing.T) { roles(t, c.Config, client) })
	t.Run("system classes stay", func(t *testing.T) { systemClasses(t, client) })
}

func readObjects(t *testing.T) []*unstructured.Unstructured {
	t.Helper()
	data, err := os.ReadFile("testdata/objects.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var objects []*unstructured.Unstructured
	for _, document := range strings.Split(string(data), "\n---\n") {
		obj := &unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte(document), &obj.Object); err != nil {
			t.Fatal(err)
		}
		objects = append(objects, obj)
	}
	return objects
}

// noGenerations are the kinds that count none, or from 0.
var noGenerations = map[string]bool{
	"ControllerRevision": true, "Lease": true, "Role": true, "ClusterRole": true, "RoleBinding": true, "ClusterRoleBinding": true,
	"CertificateSigningRequest": true, "StorageClass": true, "CSINode": true, "CSIDriver": true, "VolumeAttachment": true,
	"CSIStorageCapacity": true, "VolumeAttributesClass": true, "ServiceCIDR": true, "IPAddress": true, "RuntimeClass": true,
	"ResourceClaim": true, "ResourceClaimTemplate": true, "PodCertificateRequest": true,
	"StorageVersionMigration": true,
}

// lifeCycle creates an object, writes its status and applies a label to it. None of
// it changes what is desired. The object stays.
func lifeCycle(t *testing.T, client dynamic.ResourceInterface, obj *unstructured.Unstructured) {
	ctx := context.Background()
	created, err := client.Create(ctx, obj, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	want := int64(1)
	if noGenerations[obj.GetKind()] {
		want = 0
	}
	check := func(what string, o *unstructured.Unstructured) {
		t.Helper()
		if o.GetGeneration() != want {
			t.Errorf("%s: generation %d, want %d", what, o.GetGeneration(), want)
		}
	}
	check("created", created)
	if status := obj.Object["status"]; status != nil {
		if got, _, _ := unstructured.NestedFieldNoCopy(created.Object, "status", "conditions"); got != nil {
			t.Errorf("a new object has the conditions %v", got)
		}
		subresource := "status"
		if obj.GetKind() == "CertificateSigningRequest" {
			subresource = "approval"
		}
		created.Object["status"] = status
		if created, err = client.Update(ctx, created, metav1.UpdateOptions{}, subresource); err != nil {
			t.Fatal(err)
		}
		if created.Object["status"] == nil {
			t.Error("the status was not kept")
		}
		check("status written", created)
	}
	applied := &unstructured.Unstructured{}
	applied.SetGroupVersionKind(obj.GroupVersionKind())
	applied.SetName(obj.GetName())
	applied.SetNamespace(obj.GetNamespace())
	applied.SetLabels(map[string]string{"applied": "yes"})
	updated, err := client.Apply(ctx, obj.GetName(), applied, metav1.ApplyOptions{FieldManager: "suite"})
	if err != nil {
		t.Fatal(err)
	}
	if obj.GetKind() == "EndpointSlice" {
		want++ // its labels count, as what consumers of slices go by
	}
	check("applied", updated)
	if updated.GetLabels()["applied"] != "yes" {
		t.Error("the label was not applied")
	}
	if same, err := client.Update(ctx, updated, metav1.UpdateOptions{}); err != nil {
		t.Error(err)
	} else if same.GetResourceVersion() != updated.GetResourceVersion() {
		t.Error("an update without change was written")
	}
}

// checkKeys looks in etcd for the keys that the original had for the same objects.
func checkKeys(t *testing.T, c *testcluster.Cluster) {
	data, err := os.ReadFile("testdata/keys.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range strings.Fields(string(data)) {
		resp, err := c.Etcd.Get(context.Background(), key)
		if err != nil {
			t.Fatal(err)
		}
		if resp.Count != 1 {
			t.Errorf("%s: not there", key)
			continue
		}
		if value := resp.Kvs[0].Value; !strings.HasPrefix(string(value), "k8s\x00") {
			t.Errorf("%s: not protobuf: %.20q", key, value)
		}
	}
}

func scale(t *testing.T, client kubernetes.Interface) {
	ctx := context.Background()
	type scaler interface {
		GetScale(ctx context.Context, name string, options metav1.GetOptions) (*autoscalingv1.Scale, error)
		UpdateScale(ctx context.Context, name string, scale *autoscalingv1.Scale, options metav1.UpdateOptions) (*autoscalingv1.Scale, error)
	}
	apps := client.AppsV1()
	for name, s := range map[string]scaler{"rs": apps.ReplicaSets("default"), "deploy": apps.Deployments("default"), "sts": apps.StatefulSets("default")} {
		scale, err := s.GetScale(ctx, name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(scale.Status.Selector, "app=a") {
			t.Errorf("%s: selector %q", name, scale.Status.Selector)
		}
		stale := scale.DeepCopy()
		scale.Spec.Replicas = 7
		if scale, err = s.UpdateScale(ctx, name, scale, metav1.UpdateOptions{}); err != nil || scale.Spec.Replicas != 7 {
			t.Fatalf("%s: %v %v", name, scale, err)
		}
		stale.Spec.Replicas = 8
		if _, err := s.UpdateScale(ctx, name, stale, metav1.UpdateOptions{}); !apierrors.IsConflict(err) {
			t.Errorf("%s: scaling an old version: %v", name, err)
		}
		scale.Spec.Replicas = -1
		if _, err := s.UpdateScale(ctx, name, scale, metav1.UpdateOptions{}); !apierrors.IsInvalid(err) {
			t.Errorf("%s: scaling to -1: %v", name, err)
		}
	}
	d, err := apps.Deployments("default").Get(ctx, "deploy", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if *d.Spec.Replicas != 7 || d.Generation != 2 {
		t.Errorf("replicas %d, generation %d after scaling", *d.Spec.Replicas, d.Generation)
	}
}

func jobs(t *testing.T, client kubernetes.Interface) {
	ctx := context.Background()
	job := &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{Name: "generated"},
		Spec: batchv1.JobSpec{Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{
			RestartPolicy: corev1.RestartPolicyNever, Containers: []corev1.Container{{Name: "c", Image: "i"}},
		}}},
	}
	created, err := client.BatchV1().Jobs("default").Create(ctx, job, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	uid := string(created.UID)
	for label, want := range map[string]string{
		batchv1.ControllerUidLabel: uid, "controller-uid": uid, batchv1.JobNameLabel: "generated", "job-name": "generated",
	} {
		if got := created.Spec.Template.Labels[label]; got != want {
			t.Errorf("label %s of the pods is %q, want %q", label, got, want)
		}
		if got := created.Labels[label]; got != want {
			t.Errorf("label %s of the Job is %q, want %q", label, got, want)
		}
	}
	if selector := created.Spec.Selector.MatchLabels; len(selector) != 1 || selector[batchv1.ControllerUidLabel] != uid {
		t.Errorf("selector %v", selector)
	}
	job.Name = "mixed"
	job.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"a": "b"}}
	job.Spec.Template.Labels = map[string]string{"a": "b"}
	if _, err := client.BatchV1().Jobs("default").Create(ctx, job, metav1.CreateOptions{}); err == nil || !strings.Contains(err.Error(), "`selector` not auto-generated") {
		t.Errorf("a selector of the client's own: %v", err)
	}
}

func requester(t *testing.T, client kubernetes.Interface) {
	ctx := context.Background()
	requests := client.CertificatesV1().CertificateSigningRequests()
	approved, err := requests.Get(ctx, "approved", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	copied := &certificatesv1.CertificateSigningRequest{ObjectMeta: metav1.ObjectMeta{Name: "forged"}, Spec: approved.Spec}
	copied.Spec.Username, copied.Spec.Groups = "somebody-else", []string{"elsewhere"}
	copied.Status = approved.Status
	forged, err := requests.Create(ctx, copied, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if forged.Spec.Username != approved.Spec.Username || len(forged.Status.Conditions) > 0 {
		t.Errorf("a request in the name of %q with the conditions %v", forged.Spec.Username, forged.Status.Conditions)
	}
	if c := approved.Status.Conditions[0]; c.LastUpdateTime.IsZero() || c.LastTransitionTime.IsZero() {
		t.Errorf("condition without times: %v", c)
	}
	approved.Status.Conditions = nil
	if _, err := requests.UpdateApproval(ctx, approved.Name, approved, metav1.UpdateOptions{}); !apierrors.IsInvalid(err) {
		t.Errorf("taking an approval back: %v", err)
	}
}

func roles(t *testing.T, config *rest.Config, client kubernetes.Interface) {
	ctx := context.Background()
	if _, err := client.RbacV1().ClusterRoleBindings().Create(ctx, &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "suite-author"},
		RoleRef:    rbacv1.RoleRef{Kind: "ClusterRole", Name: "suite-author"},
		Subjects:   []rbacv1.Subject{{Kind: "User", Name: "author"}},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.RbacV1().ClusterRoles().Create(ctx, &rbacv1.ClusterRole{
		ObjectMeta: metav1.ObjectMeta{Name: "suite-author"},
		Rules:      []rbacv1.PolicyRule{{APIGroups: []string{rbacv1.GroupName}, Resources: []string{"roles"}, Verbs: []string{"create"}}},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	as := rest.CopyConfig(config)
	as.Impersonate.UserName = "author"
	role := func(verb string) *rbacv1.Role {
		return &rbacv1.Role{
			ObjectMeta: metav1.ObjectMeta{GenerateName: "written-"},
			Rules:      []rbacv1.PolicyRule{{APIGroups: []string{rbacv1.GroupName}, Resources: []string{"roles"}, Verbs: []string{verb}}},
		}
	}
	author := kubernetes.NewForConfigOrDie(as).RbacV1().Roles("default")
	// The authorizer learns of roles by a watch.
	if err := wait.PollUntilContextTimeout(ctx, 20*time.Millisecond, 30*time.Second, true, func(ctx context.Context) (bool, error) {
		_, err := author.Create(ctx, role("create"), metav1.CreateOptions{})
		return err == nil, nil
	}); err != nil {
		t.Fatalf("granting what one has: %v", err)
	}
	if _, err := author.Create(ctx, role("delete"), metav1.CreateOptions{}); !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "is attempting to grant RBAC permissions not currently held") {
		t.Errorf("granting what one has not: %v", err)
	}
}

func systemClasses(t *testing.T, client kubernetes.Interface) {
	ctx := context.Background()
	classes := client.SchedulingV1().PriorityClasses()
	class := &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: "system-node-critical"}, Value: 2000001000}
	if _, err := classes.Create(ctx, class, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
	if err := classes.Delete(ctx, class.Name, metav1.DeleteOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("deleting it: %v", err)
	}
	if _, err := classes.Patch(ctx, class.Name, types.MergePatchType, []byte(`{"value":1}`), metav1.PatchOptions{}); !apierrors.IsInvalid(err) {
		t.Errorf("changing its value: %v", err)
	}
}
