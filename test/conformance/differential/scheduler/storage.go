package scheduler

import (
	"fmt"

	v1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/component-helpers/storage/volume"
	"k8s.io/utils/ptr"
)

const (
	driver      = "csi.example.com"
	staticClass = "static" // volumes that somebody has made
	lateClass   = "late"   // volumes are made where the pod goes
	earlyClass  = "early"  // volumes are made at once
)

func (g *generator) object(o runtime.Object) { g.c.Objects = append(g.c.Objects, o) }

// claimNames are those that pods name; not all are there.
var claimNames = []string{"bound-0", "bound-1", "bound-2", "static-0", "static-1", "late-0", "late-1", "early-0", "once", "lost", "going", "gone"}

// storage draws classes, drivers, volumes and claims.
func (g *generator) storage() {
	if g.topic != volumes && g.IntN(3) > 0 {
		return
	}
	g.object(&storagev1.CSIDriver{ObjectMeta: metav1.ObjectMeta{Name: driver}, Spec: storagev1.CSIDriverSpec{StorageCapacity: ptr.To(g.IntN(2) == 0)}})
	late := storagev1.VolumeBindingWaitForFirstConsumer
	g.object(&storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: staticClass}, Provisioner: "kubernetes.io/no-provisioner", VolumeBindingMode: &late})
	class := &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: lateClass}, Provisioner: driver, VolumeBindingMode: &late}
	if g.IntN(3) == 0 {
		class.AllowedTopologies = []v1.TopologySelectorTerm{{MatchLabelExpressions: []v1.TopologySelectorLabelRequirement{{Key: v1.LabelTopologyZone, Values: []string{pick(g, zones), pick(g, zones)}}}}}
	}
	g.object(class)
	g.object(&storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: earlyClass}, Provisioner: driver, VolumeBindingMode: ptr.To(storagev1.VolumeBindingImmediate)})
	for i := range g.IntN(3) {
		c := &storagev1.CSIStorageCapacity{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprint("capacity-", i)}, StorageClassName: lateClass,
			NodeTopology: &metav1.LabelSelector{MatchLabels: map[string]string{v1.LabelTopologyZone: pick(g, zones)}}}
		if g.IntN(5) > 0 {
			c.Capacity = ptr.To(resource.MustParse(pick(g, []string{"1Gi", "3Gi", "10Gi"})))
		}
		if g.IntN(3) == 0 && c.Capacity != nil { // without it the original's scheduler panics
			c.MaximumVolumeSize = ptr.To(resource.MustParse("2Gi"))
		}
		g.object(c)
	}
	for _, n := range g.c.Nodes {
		if g.IntN(3) == 0 {
			continue
		}
		d := storagev1.CSINodeDriver{Name: driver, NodeID: n.Name, TopologyKeys: []string{v1.LabelTopologyZone}}
		if g.IntN(2) == 0 {
			d.Allocatable = &storagev1.VolumeNodeResources{Count: ptr.To(int32(g.IntN(3)))}
		}
		g.object(&storagev1.CSINode{ObjectMeta: metav1.ObjectMeta{Name: n.Name}, Spec: storagev1.CSINodeSpec{Drivers: []storagev1.CSINodeDriver{d}}})
	}
	for i := range 2 + g.IntN(3) {
		g.object(g.volume(fmt.Sprint("free-", i), staticClass))
	}
	for i := range 3 {
		v, name := g.volume(fmt.Sprint("held-", i), lateClass), fmt.Sprint("bound-", i)
		claim := g.claim(name, lateClass, v1.ReadWriteOnce)
		g.bind(claim, v)
		if g.IntN(10) > 0 {
			g.object(v)
		}
		g.object(claim)
	}
	once, v := g.claim("once", lateClass, v1.ReadWriteOncePod), g.volume("held-once", lateClass)
	v.Spec.AccessModes = []v1.PersistentVolumeAccessMode{v1.ReadWriteOncePod}
	g.bind(once, v)
	g.object(once)
	g.object(v)
	for _, name := range []string{"static-0", "static-1"} {
		g.object(g.claim(name, staticClass, v1.ReadWriteOnce))
	}
	for _, name := range []string{"late-0", "late-1"} {
		g.object(g.claim(name, lateClass, v1.ReadWriteOnce))
	}
	g.object(g.claim("early-0", earlyClass, v1.ReadWriteOnce))
	lost := g.claim("lost", earlyClass, v1.ReadWriteOnce)
	lost.Spec.VolumeName, lost.Status.Phase = "no-more", v1.ClaimLost
	g.object(lost)
	going := g.claim("going", lateClass, v1.ReadWriteOnce)
	going.DeletionTimestamp, going.Finalizers = ptr.To(metav1.Now()), []string{"kubernetes.io/pvc-protection"}
	g.object(going)
}

func (g *generator) volume(name, class string) *v1.PersistentVolume {
	v := &v1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name), ResourceVersion: "1"}, Spec: v1.PersistentVolumeSpec{
		Capacity:               v1.ResourceList{v1.ResourceStorage: resource.MustParse(pick(g, []string{"1Gi", "2Gi", "5Gi"}))},
		AccessModes:            []v1.PersistentVolumeAccessMode{v1.ReadWriteOnce},
		StorageClassName:       class,
		PersistentVolumeSource: v1.PersistentVolumeSource{CSI: &v1.CSIPersistentVolumeSource{Driver: driver, VolumeHandle: name}},
	}, Status: v1.PersistentVolumeStatus{Phase: v1.VolumeAvailable}}
	switch g.IntN(4) {
	case 0:
		v.Labels = map[string]string{v1.LabelTopologyZone: pick(g, []string{"z1", "z2", "z1__z2"})}
	case 1, 2:
		key, values := v1.LabelTopologyZone, []string{pick(g, zones)}
		if g.IntN(2) == 0 {
			key, values = v1.LabelHostname, []string{pick(g, g.c.Nodes).Name}
		}
		v.Spec.NodeAffinity = &v1.VolumeNodeAffinity{Required: &v1.NodeSelector{NodeSelectorTerms: []v1.NodeSelectorTerm{{
			MatchExpressions: []v1.NodeSelectorRequirement{{Key: key, Operator: v1.NodeSelectorOpIn, Values: values}},
		}}}}
	}
	return v
}

func (g *generator) claim(name, class string, mode v1.PersistentVolumeAccessMode) *v1.PersistentVolumeClaim {
	return &v1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID(name), ResourceVersion: "1"},
		Spec: v1.PersistentVolumeClaimSpec{
			StorageClassName: &class, AccessModes: []v1.PersistentVolumeAccessMode{mode},
			Resources: v1.VolumeResourceRequirements{Requests: v1.ResourceList{v1.ResourceStorage: resource.MustParse(pick(g, []string{"1Gi", "2Gi", "4Gi"}))}},
		},
		Status: v1.PersistentVolumeClaimStatus{Phase: v1.ClaimPending},
	}
}

func (g *generator) bind(c *v1.PersistentVolumeClaim, v *v1.PersistentVolume) {
	c.Spec.VolumeName, c.Status.Phase = v.Name, v1.ClaimBound
	c.Annotations = map[string]string{volume.AnnBindCompleted: "yes"}
	v.Spec.ClaimRef = &v1.ObjectReference{Kind: "PersistentVolumeClaim", Namespace: c.Namespace, Name: c.Name, UID: c.UID}
	v.Status.Phase = v1.VolumeBound
}

// volumes gives a pod some.
func (g *generator) volumes(p *v1.Pod) {
	p.Namespace = "default"
	for i := range 1 + g.IntN(3) {
		v := v1.Volume{Name: fmt.Sprint("v", i)}
		switch g.IntN(12) {
		case 0:
			v.GCEPersistentDisk = &v1.GCEPersistentDiskVolumeSource{PDName: pick(g, []string{"d1", "d2"}), ReadOnly: g.IntN(2) == 0}
		case 1:
			v.ISCSI = &v1.ISCSIVolumeSource{IQN: "iqn.2001-04.com.example:" + pick(g, []string{"a", "b"}), TargetPortal: "10.0.0.9:3260", ReadOnly: g.IntN(2) == 0}
		case 2:
			v.RBD = &v1.RBDVolumeSource{CephMonitors: []string{"10.0.0.8"}, RBDPool: "p", RBDImage: pick(g, []string{"a", "b"}), ReadOnly: g.IntN(2) == 0}
		case 3:
			v.CSI = &v1.CSIVolumeSource{Driver: driver}
		case 4:
			v.Ephemeral = &v1.EphemeralVolumeSource{VolumeClaimTemplate: &v1.PersistentVolumeClaimTemplate{Spec: v1.PersistentVolumeClaimSpec{StorageClassName: ptr.To(lateClass)}}}
			if g.IntN(2) == 0 {
				c := g.claim(p.Name+"-"+v.Name, lateClass, v1.ReadWriteOnce)
				if g.IntN(4) > 0 {
					c.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: p.Name, UID: p.UID, Controller: ptr.To(true)}}
				}
				g.object(c)
			}
		default:
			v.PersistentVolumeClaim = &v1.PersistentVolumeClaimVolumeSource{ClaimName: pick(g, claimNames[:9])}
			if g.IntN(10) == 0 {
				v.PersistentVolumeClaim.ClaimName = pick(g, claimNames[9:])
			}
		}
		p.Spec.Volumes = append(p.Spec.Volumes, v)
	}
}
