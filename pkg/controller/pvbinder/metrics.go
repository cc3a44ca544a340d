package pvbinder

import (
	"cmp"
	"context"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/component-base/metrics"
	storagehelpers "k8s.io/component-helpers/storage/volume"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/leme-k8s/leme/pkg/controller/internal/census"
)

// register adds the original's metrics of volumes and claims.
func register(r metrics.KubeRegistry, reader client.Reader) {
	gauge := func(name, help string, labels ...string) *metrics.Desc {
		return census.Gauge("pv_collector", name, help, labels...)
	}
	total := gauge("total_pv_count", "Number of PersistentVolumes", "plugin_name", "volume_mode")
	bound := gauge("bound_pv_count", "Number of PersistentVolumes that are bound", "storage_class")
	unbound := gauge("unbound_pv_count", "Number of PersistentVolumes that are not bound", "storage_class")
	boundClaims := gauge("bound_pvc_count", "Number of PersistentVolumeClaims that are bound", "namespace", "storage_class", "volume_attributes_class")
	unboundClaims := gauge("unbound_pvc_count", "Number of PersistentVolumeClaims that are not bound", "namespace", "storage_class", "volume_attributes_class")
	r.CustomMustRegister(&census.Census{
		Gauges: []*metrics.Desc{total, bound, unbound, boundClaims, unboundClaims},
		Count: func(ctx context.Context, show func(*metrics.Desc, float64, ...string)) error {
			asCached := []client.ListOption{client.UnsafeDisableDeepCopy, client.DisableReadYourWritesConsistency}
			var pvs corev1.PersistentVolumeList
			if err := reader.List(ctx, &pvs, asCached...); err != nil {
				return err
			}
			var claims corev1.PersistentVolumeClaimList
			if err := reader.List(ctx, &claims, asCached...); err != nil {
				return err
			}
			type key struct {
				gauge   *metrics.Desc
				a, b, c string
			}
			sum := map[key]float64{}
			for i := range pvs.Items {
				pv := &pvs.Items[i]
				sum[key{gauge: total, a: pluginName(pv), b: string(ptr.Deref(pv.Spec.VolumeMode, corev1.PersistentVolumeFilesystem))}]++
				g := unbound
				if pv.Status.Phase == corev1.VolumeBound {
					g = bound
				}
				sum[key{gauge: g, a: pv.Spec.StorageClassName}]++
			}
			for i := range claims.Items {
				claim := &claims.Items[i]
				g := unboundClaims
				if claim.Status.Phase == corev1.ClaimBound {
					g = boundClaims
				}
				sum[key{g, claim.Namespace, storagehelpers.GetPersistentVolumeClaimClass(claim), ptr.Deref(claim.Spec.VolumeAttributesClassName, "")}]++
			}
			for k, n := range sum {
				switch k.gauge {
				case total:
					show(k.gauge, n, k.a, k.b)
				case bound, unbound:
					show(k.gauge, n, k.a)
				default:
					show(k.gauge, n, k.a, k.b, k.c)
				}
			}
			return nil
		},
	})
}

// pluginName is what the original calls what provides a volume.
func pluginName(pv *corev1.PersistentVolume) string {
	s := pv.Spec.PersistentVolumeSource
	var name string
	switch {
	case s.CSI != nil:
		name = "kubernetes.io/csi:" + s.CSI.Driver
	case s.HostPath != nil:
		name = "kubernetes.io/host-path"
	case s.NFS != nil:
		name = "kubernetes.io/nfs"
	case s.Local != nil:
		name = "kubernetes.io/local-volume"
	case s.ISCSI != nil:
		name = "kubernetes.io/iscsi"
	case s.FC != nil:
		name = "kubernetes.io/fc"
	}
	return cmp.Or(name, "N/A")
}
