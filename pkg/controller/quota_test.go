package controller_test

import (
	"context"
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	quotalib "k8s.io/apiserver/pkg/quota/v1"
	"k8s.io/utils/ptr"
)

func amounts(pairs ...string) corev1.ResourceList {
	l := corev1.ResourceList{}
	for i := 0; i < len(pairs); i += 2 {
		l[corev1.ResourceName(pairs[i])] = resource.MustParse(pairs[i+1])
	}
	return l
}

func testResourceQuota(t *testing.T, shared *cluster) {
	c := shared.in(t)
	quotas := c.cs.CoreV1().ResourceQuotas(c.ns)
	limit := func(name string, spec corev1.ResourceQuotaSpec) {
		t.Helper()
		_, err := quotas.Create(t.Context(), &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: spec}, metav1.CreateOptions{})
		c.must(err)
	}
	uses := func(what, name string, want corev1.ResourceList) {
		t.Helper()
		c.eventually(what, func(ctx context.Context) (bool, string) {
			q, err := quotas.Get(ctx, name, metav1.GetOptions{})
			c.must(err)
			return quotalib.Equals(q.Status.Used, want) && quotalib.Equals(q.Status.Hard, q.Spec.Hard), fmt.Sprintf("%+v", q.Status)
		})
	}
	secrets := c.cs.CoreV1().Secrets(c.ns)
	_, err := secrets.Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "before"}}, metav1.CreateOptions{})
	c.must(err)

	limit("all", corev1.ResourceQuotaSpec{Hard: amounts("secrets", "3", "count/secrets", "3", "count/deployments.apps", "1", "pods", "2", "requests.cpu", "2", "configmaps", "9")})
	limit("besteffort", corev1.ResourceQuotaSpec{Hard: amounts("pods", "5"), Scopes: []corev1.ResourceQuotaScope{corev1.ResourceQuotaScopeBestEffort}})
	// The ConfigMap is the one with the certificates.
	empty := amounts("secrets", "1", "count/secrets", "1", "count/deployments.apps", "0", "pods", "0", "requests.cpu", "0", "configmaps", "1")
	uses("what was there before", "all", empty)

	pod := template("x", nil)
	pod.Spec.Containers[0].Resources.Requests = amounts("cpu", "500m")
	pods := c.cs.CoreV1().Pods(c.ns)
	create := func(name string) error {
		_, err := pods.Create(t.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: pod.Spec}, metav1.CreateOptions{})
		return err
	}
	c.must(create("a"))
	c.must(create("b"))
	if err := create("c"); !apierrors.IsForbidden(err) {
		t.Errorf("a pod too many: %v", err)
	}
	full := empty.DeepCopy()
	full["pods"], full["requests.cpu"] = resource.MustParse("2"), resource.MustParse("1")
	uses("two pods", "all", full)
	uses("no pod without requests", "besteffort", amounts("pods", "0"))

	c.must(pods.Delete(t.Context(), "a", *metav1.NewDeleteOptions(0)))
	c.must(pods.Delete(t.Context(), "b", *metav1.NewDeleteOptions(0)))
	c.must(secrets.Delete(t.Context(), "before", metav1.DeleteOptions{}))
	empty["secrets"], empty["count/secrets"] = resource.MustParse("0"), resource.MustParse("0")
	uses("nothing", "all", empty)
}

func testMirroring(t *testing.T, shared *cluster) {
	c := shared.in(t)
	svc, err := c.cs.CoreV1().Services(c.ns).Create(t.Context(), &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "own"}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}},
	}, metav1.CreateOptions{})
	c.must(err)
	endpoints := c.cs.CoreV1().Endpoints(c.ns)
	e, err := endpoints.Create(t.Context(), &corev1.Endpoints{
		ObjectMeta: metav1.ObjectMeta{Name: svc.Name, Labels: map[string]string{"l": "1"}},
		Subsets:    []corev1.EndpointSubset{{Addresses: []corev1.EndpointAddress{{IP: "10.9.0.1"}}, Ports: []corev1.EndpointPort{{Port: 8080}}}},
	}, metav1.CreateOptions{})
	c.must(err)
	slices := func(what, want string) {
		t.Helper()
		c.eventually(what, func(ctx context.Context) (bool, string) {
			l, err := c.cs.DiscoveryV1().EndpointSlices(c.ns).List(ctx, metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=" + svc.Name})
			c.must(err)
			got := ""
			for _, s := range l.Items {
				for _, e := range s.Endpoints {
					got += fmt.Sprintf("%s %s:%d", s.Labels[discoveryv1.LabelManagedBy], e.Addresses[0], *s.Ports[0].Port)
				}
			}
			return got == want, got
		})
	}
	slices("a copy", "endpointslicemirroring-controller.k8s.io 10.9.0.1:8080")
	e.Subsets[0].Addresses[0].IP = "10.9.0.2"
	_, err = endpoints.Update(t.Context(), e, metav1.UpdateOptions{})
	c.must(err)
	slices("a new address", "endpointslicemirroring-controller.k8s.io 10.9.0.2:8080")
	c.must(endpoints.Delete(t.Context(), svc.Name, metav1.DeleteOptions{}))
	slices("the end", "")
}

func testProtection(t *testing.T, shared *cluster) {
	c := shared.in(t)
	claims, pods := c.cs.CoreV1().PersistentVolumeClaims(c.ns), c.cs.CoreV1().Pods(c.ns)
	classes, volumes := c.cs.StorageV1().VolumeAttributesClasses(), c.cs.CoreV1().PersistentVolumes()
	_, err := classes.Create(t.Context(), &storagev1.VolumeAttributesClass{ObjectMeta: metav1.ObjectMeta{Name: c.ns}, DriverName: "example.com", Parameters: map[string]string{"iops": "1"}}, metav1.CreateOptions{})
	c.must(err)
	spec := corev1.PersistentVolumeClaimSpec{
		AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, StorageClassName: ptr.To(""), VolumeAttributesClassName: &c.ns,
		Resources: corev1.VolumeResourceRequirements{Requests: amounts("storage", "1G")},
	}
	_, err = claims.Create(t.Context(), &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: "data"}, Spec: spec}, metav1.CreateOptions{})
	c.must(err)
	pod := template("x", nil)
	pod.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data"}}}}
	_, err = pods.Create(t.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "user"}, Spec: pod.Spec}, metav1.CreateOptions{})
	c.must(err)
	c.eventually("a running pod", func(ctx context.Context) (bool, string) {
		p, err := pods.Get(ctx, "user", metav1.GetOptions{})
		c.must(err)
		return p.Status.Phase == corev1.PodRunning, string(p.Status.Phase)
	})
	c.eventually("a protected class", func(ctx context.Context) (bool, string) {
		class, err := classes.Get(ctx, c.ns, metav1.GetOptions{})
		c.must(err)
		return len(class.Finalizers) == 1, fmt.Sprint(class.Finalizers)
	})
	c.must(claims.Delete(t.Context(), "data", metav1.DeleteOptions{}))
	c.must(classes.Delete(t.Context(), c.ns, metav1.DeleteOptions{}))
	if claim, err := claims.Get(t.Context(), "data", metav1.GetOptions{}); err != nil || claim.DeletionTimestamp == nil {
		t.Errorf("a claim in use: %v, %v", claim, err)
	}
	c.must(pods.Delete(t.Context(), "user", *metav1.NewDeleteOptions(0)))
	c.eventually("the claim and its class to go", func(ctx context.Context) (bool, string) {
		_, err := claims.Get(ctx, "data", metav1.GetOptions{})
		_, classErr := classes.Get(ctx, c.ns, metav1.GetOptions{})
		return apierrors.IsNotFound(err) && apierrors.IsNotFound(classErr), fmt.Sprint(err, classErr)
	})
	_, err = volumes.Create(t.Context(), &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: c.ns}, Spec: corev1.PersistentVolumeSpec{
		Capacity: amounts("storage", "1G"), AccessModes: spec.AccessModes, StorageClassName: "by-hand",
		PersistentVolumeSource: corev1.PersistentVolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/tmp"}},
	}}, metav1.CreateOptions{})
	c.must(err)
	c.must(volumes.Delete(t.Context(), c.ns, metav1.DeleteOptions{}))
	c.eventually("the volume to go", func(ctx context.Context) (bool, string) {
		v, err := volumes.Get(ctx, c.ns, metav1.GetOptions{})
		return apierrors.IsNotFound(err), fmt.Sprintf("%+v", v)
	})
}
