package controller_test

import (
	"context"
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
)

// volume makes a volume of a class and a CSI driver of its own, and returns its name.
func (c *cluster) volume(name, class string) {
	c.Helper()
	_, err := c.cs.CoreV1().PersistentVolumes().Create(c.Context(), &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PersistentVolumeSpec{
		Capacity: amounts("storage", "1G"), AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, StorageClassName: class,
		PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimRetain,
		PersistentVolumeSource:        corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: "csi.example.com", VolumeHandle: name}},
	}}, metav1.CreateOptions{})
	c.must(err)
}

func (c *cluster) claim(name, class string) {
	c.Helper()
	_, err := c.cs.CoreV1().PersistentVolumeClaims(c.ns).Create(c.Context(), &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: claimSpec(class)}, metav1.CreateOptions{})
	c.must(err)
}

func claimSpec(class string) corev1.PersistentVolumeClaimSpec {
	return corev1.PersistentVolumeClaimSpec{
		AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, StorageClassName: &class,
		Resources: corev1.VolumeResourceRequirements{Requests: amounts("storage", "1G")},
	}
}

func (c *cluster) claimIs(name string, phase corev1.PersistentVolumeClaimPhase, volume string) {
	c.Helper()
	c.eventually(fmt.Sprintf("claim %s to be %s", name, phase), func(ctx context.Context) (bool, string) {
		claim, err := c.cs.CoreV1().PersistentVolumeClaims(c.ns).Get(ctx, name, metav1.GetOptions{})
		c.must(err)
		return claim.Status.Phase == phase && claim.Spec.VolumeName == volume, fmt.Sprintf("%q %+v", claim.Spec.VolumeName, claim.Status)
	})
}

func (c *cluster) volumeIs(name string, phase corev1.PersistentVolumePhase) {
	c.Helper()
	c.eventually(fmt.Sprintf("volume %s to be %s", name, phase), func(ctx context.Context) (bool, string) {
		v, err := c.cs.CoreV1().PersistentVolumes().Get(ctx, name, metav1.GetOptions{})
		c.must(err)
		return v.Status.Phase == phase, fmt.Sprintf("%+v", v.Status)
	})
}

func testBinding(t *testing.T, shared *cluster) {
	c := shared.in(t)
	volumes, claims := c.cs.CoreV1().PersistentVolumes(), c.cs.CoreV1().PersistentVolumeClaims(c.ns)
	// First the claim, then the volume.
	c.claim("data", c.ns)
	c.volume(c.ns, c.ns)
	c.claimIs("data", corev1.ClaimBound, c.ns)
	c.volumeIs(c.ns, corev1.VolumeBound)
	c.claim("more", c.ns)
	c.must(claims.Delete(t.Context(), "data", metav1.DeleteOptions{}))
	c.volumeIs(c.ns, corev1.VolumeReleased)
	// Somebody makes it available again.
	_, err := volumes.Patch(t.Context(), c.ns, types.MergePatchType, []byte(`{"spec":{"claimRef":null}}`), metav1.PatchOptions{})
	c.must(err)
	c.claimIs("more", corev1.ClaimBound, c.ns)
	_, err = volumes.Patch(t.Context(), c.ns, types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`), metav1.PatchOptions{})
	c.must(err)
	c.must(volumes.Delete(t.Context(), c.ns, metav1.DeleteOptions{}))
	_, err = volumes.Patch(t.Context(), c.ns, types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`), metav1.PatchOptions{})
	if !apierrors.IsNotFound(err) {
		c.must(err)
	}
	c.claimIs("more", corev1.ClaimLost, c.ns)
}

func testProvisioning(t *testing.T, shared *cluster) {
	c := shared.in(t)
	claims := c.cs.CoreV1().PersistentVolumeClaims(c.ns)
	_, err := c.cs.StorageV1().StorageClasses().Create(t.Context(), &storagev1.StorageClass{
		ObjectMeta: metav1.ObjectMeta{Name: c.ns}, Provisioner: "csi.example.com", VolumeBindingMode: ptr.To(storagev1.VolumeBindingWaitForFirstConsumer),
	}, metav1.CreateOptions{})
	c.must(err)
	pod := template("x", nil)
	pod.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{
		VolumeClaimTemplate: &corev1.PersistentVolumeClaimTemplate{Spec: claimSpec(c.ns)},
	}}}}
	_, err = c.cs.CoreV1().Pods(c.ns).Create(t.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "user"}, Spec: pod.Spec}, metav1.CreateOptions{})
	c.must(err)
	c.eventually("the claim of the pod", func(ctx context.Context) (bool, string) {
		claim, err := claims.Get(ctx, "user-v", metav1.GetOptions{})
		return err == nil && len(claim.OwnerReferences) == 1, fmt.Sprint(err)
	})
	// The scheduler says where.
	_, err = claims.Patch(t.Context(), "user-v", types.MergePatchType, []byte(`{"metadata":{"annotations":{"volume.kubernetes.io/selected-node":"n1"}}}`), metav1.PatchOptions{})
	c.must(err)
	c.eventually("a provisioner to be asked", func(ctx context.Context) (bool, string) {
		claim, err := claims.Get(ctx, "user-v", metav1.GetOptions{})
		c.must(err)
		return claim.Annotations["volume.kubernetes.io/storage-provisioner"] == "csi.example.com", fmt.Sprint(claim.Annotations)
	})
}

func testAttachment(t *testing.T, shared *cluster) {
	c := shared.in(t)
	_, err := c.cs.CoreV1().Nodes().Patch(t.Context(), "n1", types.MergePatchType, []byte(`{"metadata":{"annotations":{"volumes.kubernetes.io/controller-managed-attach-detach":"true"}}}`), metav1.PatchOptions{})
	c.must(err)
	c.claim("data", c.ns)
	c.volume(c.ns, c.ns)
	c.claimIs("data", corev1.ClaimBound, c.ns)
	pod := template("x", nil)
	pod.Spec.NodeName = "n1"
	pod.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data"}}}}
	pods, attachments := c.cs.CoreV1().Pods(c.ns), c.cs.StorageV1().VolumeAttachments()
	_, err = pods.Create(t.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "user"}, Spec: pod.Spec}, metav1.CreateOptions{})
	c.must(err)
	find := func(ctx context.Context) *storagev1.VolumeAttachment {
		l, err := attachments.List(ctx, metav1.ListOptions{})
		c.must(err)
		for i := range l.Items {
			if ptr.Deref(l.Items[i].Spec.Source.PersistentVolumeName, "") == c.ns {
				return &l.Items[i]
			}
		}
		return nil
	}
	var va *storagev1.VolumeAttachment
	c.eventually("an attachment", func(ctx context.Context) (bool, string) {
		va = find(ctx)
		return va != nil && va.Spec.NodeName == "n1" && va.Spec.Attacher == "csi.example.com", fmt.Sprintf("%+v", va)
	})
	reported := func(what string, want bool) {
		t.Helper()
		c.eventually(what, func(ctx context.Context) (bool, string) {
			n, err := c.cs.CoreV1().Nodes().Get(ctx, "n1", metav1.GetOptions{})
			c.must(err)
			for _, v := range n.Status.VolumesAttached {
				if string(v.Name) == "kubernetes.io/csi/csi.example.com^"+c.ns {
					return want, fmt.Sprint(n.Status.VolumesAttached)
				}
			}
			return !want, fmt.Sprint(n.Status.VolumesAttached)
		})
	}
	va.Status.Attached = true
	_, err = attachments.UpdateStatus(t.Context(), va, metav1.UpdateOptions{})
	c.must(err)
	reported("the node to be told", true)
	c.must(pods.Delete(t.Context(), "user", *metav1.NewDeleteOptions(0)))
	c.eventually("the attachment to go", func(ctx context.Context) (bool, string) { return find(ctx) == nil, "it is there" })
	reported("the node to be told again", false)
}
