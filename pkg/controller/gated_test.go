package controller_test

import (
	"context"
	"fmt"
	"slices"
	"testing"

	apiserverinternalv1alpha1 "k8s.io/api/apiserverinternal/v1alpha1"
	batchv1 "k8s.io/api/batch/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	resourcev1 "k8s.io/api/resource/v1"
	resourcev1alpha3 "k8s.io/api/resource/v1alpha3"
	schedulingv1alpha3 "k8s.io/api/scheduling/v1alpha3"
	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/leme-k8s/leme/pkg/controller/storageversiongc"
	"github.com/leme-k8s/leme/pkg/testcluster"
)

// TestGatedControllers runs those that are off by default, each as its own service account.
func TestGatedControllers(t *testing.T) {
	const gates = "--feature-gates=GenericWorkload=true,DRAResourcePoolStatus=true,WorkloadWithJob=true,DRAWorkloadResourceClaims=true"
	tc := testcluster.Start(t,
		testcluster.WithAPIServerFlags(gates, "--runtime-config=scheduling.k8s.io/v1beta1=true,resource.k8s.io/v1alpha3=true"),
		testcluster.WithControllerManager(gates, "--controllers=*,selinux-warning-controller"))
	c := &cluster{T: t, cfg: tc.Config, cs: tc.Client(t)}
	for name, test := range map[string]func(*testing.T, *cluster){
		"PodGroup":     testPodGroup,
		"GangJob":      testGangJob,
		"PoolStatus":   testPoolStatus,
		"SELinuxLabel": testSELinuxLabel,
	} {
		t.Run(name, func(t *testing.T) { test(t, c) })
	}
}

// A PodGroup that is being deleted goes with the end of its last pod.
func testPodGroup(t *testing.T, shared *cluster) {
	c := shared.in(t)
	groups, pods := c.cs.SchedulingV1beta1().PodGroups(c.ns), c.cs.CoreV1().Pods(c.ns)
	g := &schedulingv1beta1.PodGroup{ObjectMeta: metav1.ObjectMeta{Name: "g"}}
	g.Spec.SchedulingPolicy.Basic = &schedulingv1beta1.BasicSchedulingPolicy{}
	_, err := groups.Create(t.Context(), g, metav1.CreateOptions{})
	c.must(err)
	for _, name := range []string{"ends", "is-deleted"} {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: template("i", nil).Spec}
		pod.Spec.SchedulingGroup = &corev1.PodSchedulingGroup{PodGroupName: ptr.To("g")}
		_, err := pods.Create(t.Context(), pod, metav1.CreateOptions{})
		c.must(err)
	}
	c.must(groups.Delete(t.Context(), "g", metav1.DeleteOptions{}))
	c.retry(func(ctx context.Context) error {
		pod, err := pods.Get(ctx, "ends", metav1.GetOptions{})
		c.must(err)
		pod.Status.Phase = corev1.PodSucceeded
		_, err = pods.UpdateStatus(ctx, pod, metav1.UpdateOptions{})
		return err
	})
	g, err = groups.Get(t.Context(), "g", metav1.GetOptions{})
	c.must(err)
	if len(g.Finalizers) == 0 || g.DeletionTimestamp == nil {
		t.Errorf("with a pod that has not ended: %+v", g.ObjectMeta)
	}
	c.must(pods.Delete(t.Context(), "is-deleted", metav1.DeleteOptions{}))
	c.eventually("the end of the group", func(ctx context.Context) (bool, string) {
		g, err := groups.Get(ctx, "g", metav1.GetOptions{})
		return apierrors.IsNotFound(err), fmt.Sprint(g, err)
	})
}

// The pods of a Job that is a gang are in a group, which follows the size of the gang and has a claim that they share. All of it goes with the Job.
func testGangJob(t *testing.T, shared *cluster) {
	c := shared.in(t)
	ctx := t.Context()
	requests := []resourcev1.DeviceRequest{{Name: "r", Exactly: &resourcev1.ExactDeviceRequest{DeviceClassName: "none"}}}
	_, err := c.cs.ResourceV1().ResourceClaimTemplates(c.ns).Create(ctx, &resourcev1.ResourceClaimTemplate{ObjectMeta: metav1.ObjectMeta{Name: "t"}, Spec: resourcev1.ResourceClaimTemplateSpec{
		Spec: resourcev1.ResourceClaimSpec{Devices: resourcev1.DeviceClaim{Requests: requests}},
	}}, metav1.CreateOptions{})
	c.must(err)
	j := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: "j"}, Spec: batchv1.JobSpec{Parallelism: ptr.To[int32](3), Template: template("i", nil)}}
	j.Spec.Template.Spec.RestartPolicy = corev1.RestartPolicyNever
	j.Spec.Template.Spec.ResourceClaims = []corev1.PodResourceClaim{{Name: "c", ResourceClaimTemplateName: ptr.To("t")}, {Name: "own", ResourceClaimTemplateName: ptr.To("t")}}
	j.Spec.Scheduling = &batchv1.JobSchedulingConfiguration{
		SchedulingPolicy: &schedulingv1alpha3.WorkloadPodGroupSchedulingPolicy{Gang: &schedulingv1alpha3.WorkloadPodGroupGangSchedulingPolicy{}},
		ResourceClaims:   []schedulingv1alpha3.WorkloadPodGroupResourceClaim{{Name: "c", ResourceClaimTemplateName: ptr.To("t")}},
	}
	_, err = c.cs.BatchV1().Jobs(c.ns).Create(ctx, j, metav1.CreateOptions{})
	c.must(err)
	gang := func(n int32) (*schedulingv1beta1.Workload, *schedulingv1beta1.PodGroup) {
		t.Helper()
		var w *schedulingv1beta1.Workload
		var g *schedulingv1beta1.PodGroup
		c.eventually(fmt.Sprintf("a gang of %d with a claim", n), func(ctx context.Context) (bool, string) {
			workloads, err := c.cs.SchedulingV1beta1().Workloads(c.ns).List(ctx, metav1.ListOptions{})
			c.must(err)
			groups, err := c.cs.SchedulingV1beta1().PodGroups(c.ns).List(ctx, metav1.ListOptions{})
			c.must(err)
			if len(workloads.Items) != 1 || len(groups.Items) != 1 {
				return false, fmt.Sprintf("%d Workloads, %d groups", len(workloads.Items), len(groups.Items))
			}
			w, g = &workloads.Items[0], &groups.Items[0]
			return w.Spec.PodGroupTemplates[0].SchedulingPolicy.Gang.MinCount == n && g.Spec.SchedulingPolicy.Gang.MinCount == n && len(g.Status.ResourceClaimStatuses) == 1,
				fmt.Sprintf("%+v, %+v", g.Spec, g.Status)
		})
		return w, g
	}
	w, g := gang(3)
	if len(g.OwnerReferences) != 2 || g.OwnerReferences[0].Kind != "Job" || g.OwnerReferences[1].UID != w.UID {
		t.Errorf("owners of the group: %+v", g.OwnerReferences)
	}
	c.eventually("pods with the claim of their group and one of their own", func(ctx context.Context) (bool, string) {
		pods, err := c.cs.CoreV1().Pods(c.ns).List(ctx, metav1.ListOptions{})
		c.must(err)
		own := map[string]bool{}
		for _, p := range pods.Items {
			statuses := p.Status.ResourceClaimStatuses
			if p.Spec.SchedulingGroup == nil || *p.Spec.SchedulingGroup.PodGroupName != g.Name || len(statuses) != 2 || *statuses[0].ResourceClaimName != *g.Status.ResourceClaimStatuses[0].ResourceClaimName {
				return false, fmt.Sprintf("%s: %+v, %+v", p.Name, p.Spec.SchedulingGroup, statuses)
			}
			own[*statuses[1].ResourceClaimName] = true
		}
		return len(pods.Items) == 3 && len(own) == 3, fmt.Sprintf("%d pods, %v", len(pods.Items), own)
	})
	c.retry(func(ctx context.Context) error {
		j, err := c.cs.BatchV1().Jobs(c.ns).Get(ctx, "j", metav1.GetOptions{})
		c.must(err)
		j.Spec.Parallelism = ptr.To[int32](2)
		_, err = c.cs.BatchV1().Jobs(c.ns).Update(ctx, j, metav1.UpdateOptions{})
		return err
	})
	gang(2)
	c.must(c.cs.BatchV1().Jobs(c.ns).Delete(ctx, "j", metav1.DeleteOptions{PropagationPolicy: ptr.To(metav1.DeletePropagationBackground)}))
	c.eventually("the end of all", func(ctx context.Context) (bool, string) {
		workloads, err := c.cs.SchedulingV1beta1().Workloads(c.ns).List(ctx, metav1.ListOptions{})
		c.must(err)
		groups, err := c.cs.SchedulingV1beta1().PodGroups(c.ns).List(ctx, metav1.ListOptions{})
		c.must(err)
		claims, err := c.cs.ResourceV1().ResourceClaims(c.ns).List(ctx, metav1.ListOptions{})
		c.must(err)
		return len(workloads.Items)+len(groups.Items)+len(claims.Items) == 0, fmt.Sprintf("%d Workloads, %d groups, %d claims", len(workloads.Items), len(groups.Items), len(claims.Items))
	})
}

// A request is answered when its driver has published all.
func testPoolStatus(t *testing.T, shared *cluster) {
	c := shared.in(t)
	slice := func(name string) *resourcev1.ResourceSlice {
		return &resourcev1.ResourceSlice{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: resourcev1.ResourceSliceSpec{
			Driver: "pool.example.com", AllNodes: ptr.To(true), Pool: resourcev1.ResourcePool{Name: "p", Generation: 1, ResourceSliceCount: 2}, Devices: []resourcev1.Device{{Name: name}},
		}}
	}
	slices, requests := c.cs.ResourceV1().ResourceSlices(), c.cs.ResourceV1alpha3().ResourcePoolStatusRequests()
	_, err := slices.Create(t.Context(), slice("one"), metav1.CreateOptions{})
	c.must(err)
	_, err = requests.Create(t.Context(), &resourcev1alpha3.ResourcePoolStatusRequest{ObjectMeta: metav1.ObjectMeta{Name: "r"}, Spec: resourcev1alpha3.ResourcePoolStatusRequestSpec{Driver: "pool.example.com"}}, metav1.CreateOptions{})
	c.must(err)
	_, err = slices.Create(t.Context(), slice("two"), metav1.CreateOptions{})
	c.must(err)
	c.eventually("an answer", func(ctx context.Context) (bool, string) {
		r, err := requests.Get(ctx, "r", metav1.GetOptions{})
		c.must(err)
		if r.Status == nil {
			return false, "none"
		}
		return len(r.Status.Pools) == 1 && ptr.Deref(r.Status.Pools[0].AvailableDevices, 0) == 2 && meta.IsStatusConditionTrue(r.Status.Conditions, "Complete"), fmt.Sprintf("%+v", r.Status)
	})
}

// Two pods that want a volume with different labels are told of each other.
func testSELinuxLabel(t *testing.T, shared *cluster) {
	c := shared.in(t)
	_, err := c.cs.StorageV1().CSIDrivers().Create(t.Context(), &storagev1.CSIDriver{ObjectMeta: metav1.ObjectMeta{Name: "label.example.com"}, Spec: storagev1.CSIDriverSpec{SELinuxMount: ptr.To(true)}}, metav1.CreateOptions{})
	c.must(err)
	size, modes := corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}, []corev1.PersistentVolumeAccessMode{corev1.ReadWriteMany}
	_, err = c.cs.CoreV1().PersistentVolumes().Create(t.Context(), &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: c.ns}, Spec: corev1.PersistentVolumeSpec{
		Capacity: size, AccessModes: modes, PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: "label.example.com", VolumeHandle: "h"}},
	}}, metav1.CreateOptions{})
	c.must(err)
	for _, name := range []string{"1", "2"} {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: template("i", nil).Spec}
		pod.Spec.SecurityContext = &corev1.PodSecurityContext{SELinuxOptions: &corev1.SELinuxOptions{Level: "s0:c" + name}}
		pod.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "c"}}}}
		pod.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "v", MountPath: "/v"}}
		_, err := c.cs.CoreV1().Pods(c.ns).Create(t.Context(), pod, metav1.CreateOptions{})
		c.must(err)
	}
	_, err = c.cs.CoreV1().PersistentVolumeClaims(c.ns).Create(t.Context(), &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: "c"}, Spec: corev1.PersistentVolumeClaimSpec{
		StorageClassName: ptr.To(""), VolumeName: c.ns, AccessModes: modes, Resources: corev1.VolumeResourceRequirements{Requests: size},
	}}, metav1.CreateOptions{})
	c.must(err)
	c.eventually("an event for each", func(ctx context.Context) (bool, string) {
		list, err := c.cs.CoreV1().Events(c.ns).List(ctx, metav1.ListOptions{})
		c.must(err)
		var told []string
		for _, e := range list.Items {
			if e.Reason == "SELinuxLabelConflict" && e.Source.Component == "selinux_warning" {
				told = append(told, e.InvolvedObject.Name)
			}
		}
		return slices.Contains(told, "1") && slices.Contains(told, "2"), fmt.Sprint(told)
	})
}

// What an API server has said in a StorageVersion is forgotten with its Lease.
func TestStorageVersions(t *testing.T) {
	// The controller has its role where the API server has the feature, which all API servers of a process have, or none.
	role := &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "storage-versions"}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "cluster-admin"},
		Subjects: []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: metav1.NamespaceSystem, Name: "storage-version-garbage-collector"}}}
	tc := testcluster.Start(t, testcluster.WithAPIServerFlags("--runtime-config=internal.apiserver.k8s.io/v1alpha1=true"), testcluster.WithObjects(role),
		testcluster.WithControllerManager("--feature-gates=StorageVersionAPI=true", "--controllers=storageversion-garbage-collector-controller"))
	c := &cluster{T: t, cfg: tc.Config, cs: tc.Client(t)}
	leases, versions := c.cs.CoordinationV1().Leases(metav1.NamespaceSystem), c.cs.InternalV1alpha1().StorageVersions()
	v := &apiserverinternalv1alpha1.StorageVersion{ObjectMeta: metav1.ObjectMeta{Name: "apps.deployments"}}
	v, err := versions.Create(t.Context(), v, metav1.CreateOptions{})
	c.must(err)
	for _, id := range []string{"server-1", "server-2"} {
		_, err := leases.Create(t.Context(), &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: id, Labels: map[string]string{storageversiongc.IdentityLabel: storageversiongc.APIServer}}}, metav1.CreateOptions{})
		c.must(err)
		v.Status.StorageVersions = append(v.Status.StorageVersions, apiserverinternalv1alpha1.ServerStorageVersion{APIServerID: id, EncodingVersion: "v" + id, DecodableVersions: []string{"v" + id}})
	}
	_, err = versions.UpdateStatus(t.Context(), v, metav1.UpdateOptions{})
	c.must(err)
	left := func(want ...string) {
		t.Helper()
		c.eventually(fmt.Sprint("what is left of ", want), func(ctx context.Context) (bool, string) {
			v, err := versions.Get(ctx, v.Name, metav1.GetOptions{})
			if apierrors.IsNotFound(err) {
				return len(want) == 0, "nothing"
			}
			c.must(err)
			var ids []string
			for _, s := range v.Status.StorageVersions {
				ids = append(ids, s.APIServerID)
			}
			return slices.Equal(ids, want), fmt.Sprintf("%+v", v.Status)
		})
	}
	left("server-1", "server-2")
	c.must(leases.Delete(t.Context(), "server-1", metav1.DeleteOptions{}))
	left("server-2")
	c.must(leases.Delete(t.Context(), "server-2", metav1.DeleteOptions{}))
	left()
}
