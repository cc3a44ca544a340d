package scheduler

import (
	"fmt"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/component-helpers/storage/volume"
	"k8s.io/utils/ptr"

	"github.com/leme-k8s/leme/pkg/component/componenttest"
	"github.com/leme-k8s/leme/pkg/scheduler/framework"
)

func uses(claims ...string) func(*v1.Pod) {
	return func(p *v1.Pod) {
		for _, c := range claims {
			p.Spec.Volumes = append(p.Spec.Volumes, v1.Volume{Name: c, VolumeSource: v1.VolumeSource{
				PersistentVolumeClaim: &v1.PersistentVolumeClaimVolumeSource{ClaimName: c},
			}})
		}
	}
}

func makeClaim(name, class, size string, change ...func(*v1.PersistentVolumeClaim)) *v1.PersistentVolumeClaim {
	c := &v1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID(name), Annotations: map[string]string{}},
		Spec: v1.PersistentVolumeClaimSpec{
			StorageClassName: &class, AccessModes: []v1.PersistentVolumeAccessMode{v1.ReadWriteOnce},
			Resources: v1.VolumeResourceRequirements{Requests: v1.ResourceList{v1.ResourceStorage: resource.MustParse(size)}},
		},
	}
	for _, f := range change {
		f(c)
	}
	return c
}

func bound(to string) func(*v1.PersistentVolumeClaim) {
	return func(c *v1.PersistentVolumeClaim) {
		c.Spec.VolumeName = to
		c.Annotations[volume.AnnBindCompleted] = "yes"
		c.Status.Phase = v1.ClaimBound
	}
}

func makeVolume(name, class, size, node string, change ...func(*v1.PersistentVolume)) *v1.PersistentVolume {
	v := &v1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: name, ResourceVersion: "1", Labels: map[string]string{}},
		Spec: v1.PersistentVolumeSpec{
			StorageClassName: class, AccessModes: []v1.PersistentVolumeAccessMode{v1.ReadWriteOnce},
			Capacity:               v1.ResourceList{v1.ResourceStorage: resource.MustParse(size)},
			PersistentVolumeSource: v1.PersistentVolumeSource{CSI: &v1.CSIPersistentVolumeSource{Driver: "csi.example", VolumeHandle: name}},
		},
		Status: v1.PersistentVolumeStatus{Phase: v1.VolumeAvailable},
	}
	if node != "" {
		v.Spec.NodeAffinity = &v1.VolumeNodeAffinity{Required: &v1.NodeSelector{NodeSelectorTerms: []v1.NodeSelectorTerm{{
			MatchExpressions: []v1.NodeSelectorRequirement{{Key: v1.LabelHostname, Operator: v1.NodeSelectorOpIn, Values: []string{node}}},
		}}}}
	}
	for _, f := range change {
		f(v)
	}
	return v
}

func makeClass(name, provisioner string, mode storagev1.VolumeBindingMode) *storagev1.StorageClass {
	return &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: name}, Provisioner: provisioner, VolumeBindingMode: &mode}
}

func TestVolumes(t *testing.T) {
	a, b := makeNode("a", "8", "16Gi", zone("a")), makeNode("b", "4", "8Gi", zone("b"))
	nodes := []*v1.Node{a, b}
	local := makeClass("local", volume.NotSupportedProvisioner, storagev1.VolumeBindingWaitForFirstConsumer)
	late, early := makeClass("late", "csi.example", storagev1.VolumeBindingWaitForFirstConsumer), makeClass("early", "csi.example", storagev1.VolumeBindingImmediate)
	onlyB := makeClass("only-b", "csi.example", storagev1.VolumeBindingWaitForFirstConsumer)
	onlyB.AllowedTopologies = []v1.TopologySelectorTerm{{MatchLabelExpressions: []v1.TopologySelectorLabelRequirement{{Key: zoneKey, Values: []string{"b"}}}}}
	capacity := func(name, host, size string) *storagev1.CSIStorageCapacity {
		return &storagev1.CSIStorageCapacity{
			ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: name}, StorageClassName: "late", Capacity: ptr.To(resource.MustParse(size)),
			NodeTopology: &metav1.LabelSelector{MatchLabels: map[string]string{v1.LabelHostname: host}},
		}
	}
	tells := &storagev1.CSIDriver{ObjectMeta: metav1.ObjectMeta{Name: "csi.example"}, Spec: storagev1.CSIDriverSpec{StorageCapacity: ptr.To(true)}}
	once := func(c *v1.PersistentVolumeClaim) {
		c.Spec.AccessModes = []v1.PersistentVolumeAccessMode{v1.ReadWriteOncePod}
	}
	limit := func(node string, n int32) *storagev1.CSINode {
		return &storagev1.CSINode{ObjectMeta: metav1.ObjectMeta{Name: node}, Spec: storagev1.CSINodeSpec{Drivers: []storagev1.CSINodeDriver{
			{Name: "csi.example", NodeID: node, Allocatable: &storagev1.VolumeNodeResources{Count: &n}},
		}}}
	}
	disk := func(p *v1.Pod) {
		p.Spec.Volumes = []v1.Volume{{Name: "d", VolumeSource: v1.VolumeSource{ISCSI: &v1.ISCSIVolumeSource{IQN: "iqn"}}}}
	}
	pod := makePod("p", "1", "1Gi", uses("c"))
	for _, tc := range []placementCase{
		{"no claim", pod, nodes, nil, nil, `0/2 nodes are available: persistentvolumeclaim "c" not found.`},
		{"bound to a volume of a node", pod, nodes, nil, []runtime.Object{makeClaim("c", "", "1Gi", bound("v")), makeVolume("v", "", "1Gi", "b")}, "b"},
		{"bound to a volume that is gone", pod, nodes, nil, []runtime.Object{makeClaim("c", "", "1Gi", bound("v"))}, `0/2 nodes are available: persistentvolume "v" not found.`},
		{"a claim that the controller has yet to bind", pod, nodes, nil, []runtime.Object{early, makeClaim("c", "early", "1Gi")},
			"0/2 nodes are available: pod has unbound immediate PersistentVolumeClaims."},
		{"a claim that is being deleted", pod, nodes, nil, []runtime.Object{makeClaim("c", "", "1Gi", bound("v"), func(c *v1.PersistentVolumeClaim) {
			c.DeletionTimestamp, c.Finalizers = &metav1.Time{Time: time.Now()}, []string{"x/y"}
		}), makeVolume("v", "", "1Gi", "b")}, `0/2 nodes are available: persistentvolumeclaim "c" is being deleted.`},
		{"where there is a volume to bind", pod, nodes, nil, []runtime.Object{local, makeClaim("c", "local", "1Gi"), makeVolume("v", "local", "1Gi", "b")}, "b"},
		{"no volume is large enough", pod, nodes, nil, []runtime.Object{local, makeClaim("c", "local", "2Gi"), makeVolume("v", "local", "1Gi", "b")},
			"0/2 nodes are available: 2 node(s) didn't find available persistent volumes to bind."},
		{"two claims need two volumes", makePod("p", "1", "1Gi", uses("c", "d")), nodes, nil,
			[]runtime.Object{local, makeClaim("c", "local", "1Gi"), makeClaim("d", "local", "1Gi"), makeVolume("v", "local", "1Gi", "b"), makeVolume("w", "local", "1Gi", "a"), makeVolume("x", "local", "1Gi", "b")}, "b"},
		{"where one can be made", pod, nodes, nil, []runtime.Object{onlyB, makeClaim("c", "only-b", "1Gi")}, "b"},
		{"where one is being made", pod, nodes, nil, []runtime.Object{late, makeClaim("c", "late", "1Gi", func(c *v1.PersistentVolumeClaim) { c.Annotations[volume.AnnSelectedNode] = "b" })}, "b"},
		{"where there is storage enough", pod, nodes, nil, []runtime.Object{late, tells, capacity("1", "a", "1Gi"), capacity("2", "b", "5Gi"), makeClaim("c", "late", "2Gi")}, "b"},
		{"no storage anywhere", pod, nodes, nil, []runtime.Object{late, tells, makeClaim("c", "late", "2Gi")}, "0/2 nodes are available: 2 node(s) did not have enough free storage."},
		{"in the volume's zone", pod, nodes, nil, []runtime.Object{makeClaim("c", "", "1Gi", bound("v")),
			makeVolume("v", "", "1Gi", "", func(v *v1.PersistentVolume) { v.Labels[zoneKey] = "x__b" })}, "b"},
		{"another zone", pod, nodes, nil, []runtime.Object{makeClaim("c", "", "1Gi", bound("v")),
			makeVolume("v", "", "1Gi", "", func(v *v1.PersistentVolume) { v.Labels[zoneKey] = "x" })}, "0/2 nodes are available: 2 node(s) had no available volume zone."},
		{"one pod only", pod, nodes, []*v1.Pod{makePod("q", "1", "", on("a"), uses("c"))}, []runtime.Object{makeClaim("c", "", "1Gi", bound("v"), once), makeVolume("v", "", "1Gi", "")},
			"0/2 nodes are available: 2 node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by another pod."},
		{"a disk in use", makePod("p", "1", "1Gi", disk), nodes, []*v1.Pod{makePod("q", "1", "", on("a"), disk)}, nil, "b"},
		{"as many volumes as can be attached", pod, nodes, []*v1.Pod{makePod("q", "100m", "", on("a"), uses("d"))}, []runtime.Object{limit("a", 1), limit("b", 1),
			makeClaim("c", "", "1Gi", bound("v")), makeVolume("v", "", "1Gi", ""), makeClaim("d", "", "1Gi", bound("w")), makeVolume("w", "", "1Gi", "")}, "b"},
		{"the same volume counts once", pod, nodes, []*v1.Pod{makePod("q", "100m", "", on("a"), uses("c"))}, []runtime.Object{limit("a", 1), limit("b", 0),
			makeClaim("c", "", "1Gi", bound("v")), makeVolume("v", "", "1Gi", "")}, "a"},
		{"a volume still attached counts", pod, nodes[:1], nil, []runtime.Object{limit("a", 1), makeClaim("c", "", "1Gi", bound("v")), makeVolume("v", "", "1Gi", ""), makeVolume("old", "", "1Gi", ""),
			&storagev1.VolumeAttachment{ObjectMeta: metav1.ObjectMeta{Name: "x"}, Spec: storagev1.VolumeAttachmentSpec{Attacher: "csi.example", NodeName: "a", Source: storagev1.VolumeAttachmentSource{PersistentVolumeName: ptr.To("old")}}}},
			"0/1 nodes are available: 1 node(s) exceed max volume count."},
	} {
		tc.check(t)
	}
}

// A claim that waits for its first consumer is bound before its pod is, and its volume
// is nobody else's from the moment that the node is chosen.
func TestVolumesAreBound(t *testing.T) {
	local := makeClass("local", volume.NotSupportedProvisioner, storagev1.VolumeBindingWaitForFirstConsumer)
	claim, other := makeClaim("c", "local", "1Gi"), makeClaim("d", "local", "1Gi")
	pod, second := makePod("p", "1", "1Gi", uses("c")), makePod("q", "1", "1Gi", uses("d"))
	w := newWorld(t, []*v1.Node{makeNode("a", "8", "16Gi")}, []*v1.Pod{pod, second}, local, claim, other, makeVolume("v", "local", "1Gi", "a"), makeNode("a", "8", "16Gi"))
	w.client.PrependReactor("update", "persistentvolumes", func(a clienttesting.Action) (bool, runtime.Object, error) {
		a.(clienttesting.UpdateAction).GetObject().(*v1.PersistentVolume).ResourceVersion = "2" // the fake does not count
		return false, nil, nil
	})
	ctx, state := t.Context(), framework.NewCycleState(false)
	if p, err := (&cycle{fw: w.fw, snapshot: w.snapshot}).run(ctx, state, pod, 0); err != nil || p.node != "a" {
		t.Fatalf("the pod goes to %q: %v", p.node, err)
	}
	if s := w.fw.RunReservePluginsReserve(ctx, state, pod, "a"); !s.IsSuccess() {
		t.Fatal(s)
	}
	if got, want := w.where(t, second), "0/1 nodes are available: 1 node(s) didn't find available persistent volumes to bind."; got != want {
		t.Errorf("the second pod: %s, want %s", got, want)
	}
	placed := pod.DeepCopy()
	placed.Spec.NodeName = "a"
	done := make(chan error, 1)
	go func() { done <- w.fw.RunPreBind(ctx, state, placed, "a").AsError() }()

	// The test is the controller that completes the binding.
	componenttest.EventuallyTold(t, "the volume to be promised to the claim", func() (bool, string) {
		v, err := w.client.CoreV1().PersistentVolumes().Get(ctx, "v", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return v.Spec.ClaimRef != nil && v.Spec.ClaimRef.Name == "c" && v.Spec.ClaimRef.UID == "c", fmt.Sprint(v.Spec.ClaimRef)
	})
	select {
	case err := <-done:
		t.Fatalf("the pod did not wait for its claim: %v", err)
	default:
	}
	complete := claim.DeepCopy()
	bound("v")(complete)
	if _, err := w.client.CoreV1().PersistentVolumeClaims("default").Update(ctx, complete, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}
