package pvbinder

import (
	"os"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/record"
	storagehelpers "k8s.io/component-helpers/storage/volume"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
)

func quantity(s string) corev1.ResourceList {
	return corev1.ResourceList{corev1.ResourceStorage: resource.MustParse(s)}
}

// pv returns a volume; ref is name/UID of the claim that it is for, if any.
func pv(name, size, class, ref string, change ...func(*corev1.PersistentVolume)) *corev1.PersistentVolume {
	v := &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{}},
		Spec: corev1.PersistentVolumeSpec{
			Capacity: quantity(size), StorageClassName: class, AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimRetain,
		},
		Status: corev1.PersistentVolumeStatus{Phase: corev1.VolumeAvailable},
	}
	if name, uid, ok := strings.Cut(ref, "/"); ok {
		v.Spec.ClaimRef = &corev1.ObjectReference{Namespace: "ns", Name: name, UID: types.UID(uid)}
	}
	for _, f := range change {
		f(v)
	}
	return v
}

func pvc(class *string, volume string, change ...func(*corev1.PersistentVolumeClaim)) *corev1.PersistentVolumeClaim {
	c := &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "c", UID: "u", Annotations: map[string]string{}},
		Spec: corev1.PersistentVolumeClaimSpec{
			StorageClassName: class, VolumeName: volume, AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources: corev1.VolumeResourceRequirements{Requests: quantity("5G")},
		},
		Status: corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimPending},
	}
	for _, f := range change {
		f(c)
	}
	return c
}

func completed(c *corev1.PersistentVolumeClaim) {
	c.Annotations[storagehelpers.AnnBindCompleted] = "yes"
}

func TestPlanClaim(t *testing.T) {
	none, gold := ptr.To(""), ptr.To("gold")
	class := func(provisioner string, mode storagev1.VolumeBindingMode) *storagev1.StorageClass {
		return &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "gold"}, Provisioner: provisioner, VolumeBindingMode: &mode}
	}
	immediate, first := storagev1.VolumeBindingImmediate, storagev1.VolumeBindingWaitForFirstConsumer
	many := func(v *corev1.PersistentVolume) {
		v.Spec.AccessModes = append(v.Spec.AccessModes, corev1.ReadWriteMany)
	}
	for name, tc := range map[string]struct {
		claim                            *corev1.PersistentVolumeClaim
		facts                            claimFacts
		bind, class, provisioner, reason string
		phase                            corev1.PersistentVolumeClaimPhase
	}{
		"the smallest that fits":   {claim: pvc(none, ""), facts: claimFacts{volumes: []*corev1.PersistentVolume{pv("large", "9G", "", ""), pv("small", "1G", "", ""), pv("right", "6G", "", "")}}, bind: "right"},
		"with the fewest modes":    {claim: pvc(none, ""), facts: claimFacts{volumes: []*corev1.PersistentVolume{pv("shared", "5G", "", "", many), pv("plain", "9G", "", "")}}, bind: "plain"},
		"one that is meant for it": {claim: pvc(none, ""), facts: claimFacts{volumes: []*corev1.PersistentVolume{pv("other", "5G", "", ""), pv("meant", "9G", "", "c/")}}, bind: "meant"},
		"not one of another":       {claim: pvc(none, ""), facts: claimFacts{volumes: []*corev1.PersistentVolume{pv("v", "5G", "", "d/x")}}, phase: corev1.ClaimPending, reason: "FailedBinding"},
		"not of another class":     {claim: pvc(none, ""), facts: claimFacts{volumes: []*corev1.PersistentVolume{pv("v", "5G", "gold", "")}}, phase: corev1.ClaimPending, reason: "FailedBinding"},
		"the default class":        {claim: pvc(nil, ""), facts: claimFacts{standard: class("x", immediate)}, class: "gold"},
		"no class on purpose":      {claim: pvc(none, ""), facts: claimFacts{standard: class("x", immediate)}, phase: corev1.ClaimPending, reason: "FailedBinding"},
		"a provisioner":            {claim: pvc(gold, ""), facts: claimFacts{class: class("example.com/x", immediate)}, provisioner: "example.com/x", phase: corev1.ClaimPending, reason: "ExternalProvisioning"},
		"a provisioner of old":     {claim: pvc(gold, ""), facts: claimFacts{class: class("kubernetes.io/aws-ebs", immediate)}, provisioner: "ebs.csi.aws.com", phase: corev1.ClaimPending, reason: "ExternalProvisioning"},
		"no provisioner":           {claim: pvc(gold, ""), facts: claimFacts{class: class("kubernetes.io/no-provisioner", immediate)}, phase: corev1.ClaimPending, reason: "ProvisioningFailed"},
		"no such class":            {claim: pvc(gold, ""), phase: corev1.ClaimPending, reason: "ProvisioningFailed"},
		"nobody is asked":          {claim: pvc(gold, ""), facts: claimFacts{class: class("example.com/x", immediate), provisioning: true}, phase: corev1.ClaimPending},
		"waiting for a pod":        {claim: pvc(gold, ""), facts: claimFacts{class: class("example.com/x", first)}, phase: corev1.ClaimPending, reason: "WaitForFirstConsumer"},
		"waiting for its node":     {claim: pvc(gold, ""), facts: claimFacts{class: class("example.com/x", first), waiting: []string{"p"}}, phase: corev1.ClaimPending, reason: "WaitForPodScheduled"},
		"waiting, though it fits":  {claim: pvc(gold, ""), facts: claimFacts{class: class("example.com/x", first), volumes: []*corev1.PersistentVolume{pv("v", "5G", "gold", "")}}, phase: corev1.ClaimPending, reason: "WaitForFirstConsumer"},
		"a node is selected": {claim: pvc(gold, "", func(c *corev1.PersistentVolumeClaim) { c.Annotations[storagehelpers.AnnSelectedNode] = "n" }), facts: claimFacts{class: class("example.com/x", first)},
			provisioner: "example.com/x", phase: corev1.ClaimPending, reason: "ExternalProvisioning"},
		"named":                  {claim: pvc(none, "v"), facts: claimFacts{volumes: []*corev1.PersistentVolume{pv("v", "5G", "", "")}}, bind: "v"},
		"named, not there":       {claim: pvc(none, "v"), phase: corev1.ClaimPending},
		"named, too small":       {claim: pvc(none, "v"), facts: claimFacts{volumes: []*corev1.PersistentVolume{pv("v", "1G", "", "")}}, phase: corev1.ClaimPending, reason: "VolumeMismatch"},
		"named, another's":       {claim: pvc(none, "v"), facts: claimFacts{volumes: []*corev1.PersistentVolume{pv("v", "5G", "", "d/x")}}, phase: corev1.ClaimPending, reason: "FailedBinding"},
		"bound":                  {claim: pvc(none, "v", completed), facts: claimFacts{volumes: []*corev1.PersistentVolume{pv("v", "5G", "", "c/u")}}, bind: "v"},
		"bound, lost":            {claim: pvc(none, "v", completed), phase: corev1.ClaimLost, reason: "ClaimLost"},
		"bound, nothing named":   {claim: pvc(none, "", completed), phase: corev1.ClaimLost, reason: "ClaimLost"},
		"bound, to another too":  {claim: pvc(none, "v", completed), facts: claimFacts{volumes: []*corev1.PersistentVolume{pv("v", "5G", "", "d/x")}}, phase: corev1.ClaimLost, reason: "ClaimMisbound"},
		"bound, freed meanwhile": {claim: pvc(none, "v", completed), facts: claimFacts{volumes: []*corev1.PersistentVolume{pv("v", "5G", "", "")}}, bind: "v"},
	} {
		tc.facts.provisioning, tc.facts.migrated = !tc.facts.provisioning, migrated
		p, err := planClaim(tc.claim, tc.facts)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		bind, reason := "", ""
		if p.bind != nil {
			bind = p.bind.Name
		}
		if p.event != nil {
			reason = p.event.reason
		}
		if bind != tc.bind || p.class != tc.class || p.provisioner != tc.provisioner || p.phase != tc.phase || reason != tc.reason {
			t.Errorf("%s: bind %q, class %q, provisioner %q, phase %q, event %q", name, bind, p.class, p.provisioner, p.phase, reason)
		}
	}
}

func TestPlanVolume(t *testing.T) {
	deleted := func(v *corev1.PersistentVolume) {
		v.Spec.PersistentVolumeReclaimPolicy = corev1.PersistentVolumeReclaimDelete
	}
	dynamic := func(v *corev1.PersistentVolume) {
		v.Annotations[storagehelpers.AnnDynamicallyProvisioned] = "example.com/x"
	}
	recycled := func(v *corev1.PersistentVolume) {
		v.Spec.PersistentVolumeReclaimPolicy = corev1.PersistentVolumeReclaimRecycle
	}
	failed := func(v *corev1.PersistentVolume) { v.Status.Phase = corev1.VolumeFailed }
	at := func(path string) func(*corev1.PersistentVolume) {
		return func(v *corev1.PersistentVolume) { v.Spec.HostPath = &corev1.HostPathVolumeSource{Path: path} }
	}
	block := func(v *corev1.PersistentVolume) { v.Spec.VolumeMode = ptr.To(corev1.PersistentVolumeBlock) }
	for name, tc := range map[string]struct {
		volume *corev1.PersistentVolume
		claim  *corev1.PersistentVolumeClaim
		phase  corev1.PersistentVolumePhase
		reason string
		unbind bool
		remove string
	}{
		"free":                          {volume: pv("v", "5G", "", ""), phase: corev1.VolumeAvailable},
		"meant for one":                 {volume: pv("v", "5G", "", "c/"), phase: corev1.VolumeAvailable},
		"bound":                         {volume: pv("v", "5G", "", "c/u"), claim: pvc(nil, "v"), phase: corev1.VolumeBound},
		"half bound":                    {volume: pv("v", "5G", "", "c/u"), claim: pvc(nil, "")},
		"half bound, another mode":      {volume: pv("v", "5G", "", "c/u", block), claim: pvc(nil, ""), reason: "VolumeMismatch"},
		"its claim is gone":             {volume: pv("v", "5G", "", "c/u"), phase: corev1.VolumeReleased},
		"its claim is another now":      {volume: pv("v", "5G", "", "c/old"), claim: pvc(nil, "v"), phase: corev1.VolumeReleased},
		"to be deleted by its maker":    {volume: pv("v", "5G", "", "c/u", deleted, dynamic), phase: corev1.VolumeReleased},
		"to be deleted by no one":       {volume: pv("v", "5G", "", "c/u", deleted), phase: corev1.VolumeFailed, reason: "VolumeFailedDelete"},
		"a directory":                   {volume: pv("v", "5G", "", "c/u", deleted, at("/tmp/v")), phase: corev1.VolumeReleased, remove: "/tmp/v"},
		"a directory to be kept":        {volume: pv("v", "5G", "", "c/u", at("/tmp/v")), phase: corev1.VolumeReleased},
		"not below /tmp":                {volume: pv("v", "5G", "", "c/u", deleted, at("/var/tmp/v")), phase: corev1.VolumeFailed, reason: "VolumeFailedDelete"},
		"/tmp itself":                   {volume: pv("v", "5G", "", "c/u", deleted, at("/tmp")), phase: corev1.VolumeFailed, reason: "VolumeFailedDelete"},
		"one that has failed":           {volume: pv("v", "5G", "", "c/u", deleted, failed, at("/tmp/v"))},
		"that has been said":            {volume: pv("v", "5G", "", "c/u", deleted, failed)},
		"to be recycled":                {volume: pv("v", "5G", "", "c/u", recycled), phase: corev1.VolumeFailed, reason: "VolumeFailedRecycle"},
		"its claim took another":        {volume: pv("v", "5G", "", "c/u"), claim: pvc(nil, "w"), phase: corev1.VolumeAvailable, unbind: true},
		"made for a claim, not taken":   {volume: pv("v", "5G", "", "c/u", deleted, dynamic), claim: pvc(nil, "w"), phase: corev1.VolumeReleased},
		"its maker may delete a failed": {volume: pv("v", "5G", "", "c/u", deleted, dynamic, failed)},
	} {
		p := planVolume(tc.volume, tc.claim)
		reason := ""
		if p.event != nil {
			reason = p.event.reason
		}
		if p.phase != tc.phase || reason != tc.reason || p.unbind != tc.unbind || p.remove != tc.remove {
			t.Errorf("%s: %+v, event %q", name, p, reason)
		}
	}
}

func TestStatusOf(t *testing.T) {
	v := pv("v", "9G", "", "c/u")
	s := statusOf(pvc(nil, "v"), corev1.ClaimBound, v)
	if got := s.Capacity[corev1.ResourceStorage]; s.Phase != corev1.ClaimBound || got.String() != "9G" || len(s.AccessModes) != 1 {
		t.Errorf("bound: %+v", s)
	}
	v.Annotations[preResize] = "5G"
	s = statusOf(pvc(nil, "v"), corev1.ClaimBound, v)
	if got := s.Capacity[corev1.ResourceStorage]; got.String() != "5G" {
		t.Errorf("before its file system has grown: %+v", s)
	}
	bound := pvc(nil, "v")
	bound.Status = s
	v.Spec.Capacity = quantity("20G")
	if got := statusOf(bound, corev1.ClaimBound, v).Capacity[corev1.ResourceStorage]; got.String() != "5G" {
		t.Errorf("bound already: %v", got)
	}
	if s := statusOf(bound, corev1.ClaimLost, nil); s.Capacity != nil || s.AccessModes != nil {
		t.Errorf("lost: %+v", s)
	}
}

// With a directory below /tmp goes its volume.
func TestDirectoryIsRemoved(t *testing.T) {
	path, err := os.MkdirTemp("/tmp", "volume-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(path) })
	v := pv("v", "5G", "", "c/u")
	v.Spec.PersistentVolumeReclaimPolicy = corev1.PersistentVolumeReclaimDelete
	v.Spec.HostPath = &corev1.HostPathVolumeSource{Path: path}
	api := fake.NewClientBuilder().WithScheme(scheme.Scheme).WithObjects(v).WithStatusSubresource(v).Build()
	c := &Controller{client: api, live: api, events: record.NewFakeRecorder(1)}
	if err := c.remove(t.Context(), v, path); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("the directory: %v", err)
	}
	if err := api.Get(t.Context(), client.ObjectKeyFromObject(v), v); !apierrors.IsNotFound(err) {
		t.Errorf("the volume: %v", err)
	}
}
