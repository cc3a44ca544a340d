package apiserver

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
	"k8s.io/utils/ptr"

	"github.com/leme-k8s/leme/pkg/api/core/podrefs"
)

// What is left of a pod answers what the server asks as the whole one does.
func TestTrim(t *testing.T) {
	container := func(name string) corev1.Container {
		return corev1.Container{
			Name: name, Image: "image", Command: []string{"run"}, Args: []string{"fast"},
			Env: []corev1.EnvVar{{Name: "A", Value: "1"}, {Name: "B", ValueFrom: &corev1.EnvVarSource{
				SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: name}, Key: "k"},
			}}},
			EnvFrom:       []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "env-" + name}}}},
			Ports:         []corev1.ContainerPort{{ContainerPort: 80, HostPort: 80}},
			Resources:     corev1.ResourceRequirements{Limits: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1")}},
			LivenessProbe: &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Host: "10.0.0.1"}}},
			VolumeMounts:  []corev1.VolumeMount{{Name: "v", MountPath: "/v"}},
			SecurityContext: &corev1.SecurityContext{
				Privileged: ptr.To(true), Capabilities: &corev1.Capabilities{Add: []corev1.Capability{"SYS_ADMIN"}}, ProcMount: ptr.To(corev1.UnmaskedProcMount),
				SELinuxOptions: &corev1.SELinuxOptions{User: "u"}, AppArmorProfile: &corev1.AppArmorProfile{Type: corev1.AppArmorProfileTypeUnconfined},
			},
		}
	}
	whole := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "ns", Name: "p", UID: "1", Labels: map[string]string{"app": "web"},
			Annotations:     map[string]string{corev1.LastAppliedConfigAnnotation: "{}", "container.seccomp.security.alpha.kubernetes.io/c": "unconfined"},
			OwnerReferences: []metav1.OwnerReference{{Kind: "ReplicaSet", Name: "r", UID: "2", Controller: ptr.To(true)}},
			ManagedFields:   []metav1.ManagedFieldsEntry{{Manager: "m"}},
		},
		Spec: corev1.PodSpec{
			NodeName: "n", ServiceAccountName: "sa", HostNetwork: true, HostPID: true, NodeSelector: map[string]string{"disk": "ssd"},
			InitContainers: []corev1.Container{container("i")}, Containers: []corev1.Container{container("c")},
			EphemeralContainers: []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon(container("e"))}},
			ImagePullSecrets:    []corev1.LocalObjectReference{{Name: "pull"}},
			Tolerations:         []corev1.Toleration{{Key: "k"}},
			ResourceClaims:      []corev1.PodResourceClaim{{Name: "gpu", ResourceClaimTemplateName: ptr.To("t")}},
			SecurityContext:     &corev1.PodSecurityContext{RunAsUser: ptr.To[int64](0), Sysctls: []corev1.Sysctl{{Name: "kernel.shm", Value: "1"}}},
			Volumes: []corev1.Volume{
				{Name: "v", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/"}}},
				{Name: "w", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "claim"}}},
			},
		},
		Status: corev1.PodStatus{
			Phase: corev1.PodRunning, ResourceClaimStatuses: []corev1.PodResourceClaimStatus{{Name: "gpu", ResourceClaimName: ptr.To("p-gpu")}},
			Conditions: []corev1.PodCondition{{Type: corev1.PodReady}},
		},
	}
	obj, err := trim(whole.DeepCopy())
	if err != nil {
		t.Fatal(err)
	}
	got := obj.(*corev1.Pod)
	if got.UID != whole.UID || got.Spec.NodeName != whole.Spec.NodeName || !equality.Semantic.DeepEqual(got.OwnerReferences, whole.OwnerReferences) {
		t.Errorf("whose it is and where it runs is lost: %+v", got)
	}
	for name, refs := range map[string]func(*corev1.Pod) []string{
		"secrets":         func(p *corev1.Pod) []string { return podrefs.Secrets(&p.Spec) },
		"config maps":     func(p *corev1.Pod) []string { return podrefs.ConfigMaps(&p.Spec) },
		"volume claims":   podrefs.VolumeClaims,
		"resource claims": podrefs.ResourceClaims,
	} {
		if is, was := refs(got), refs(whole); len(was) == 0 || !equality.Semantic.DeepEqual(is, was) {
			t.Errorf("%s: %q, were %q", name, is, was)
		}
	}
	security, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, level := range []api.Level{api.LevelBaseline, api.LevelRestricted} {
		at := api.LevelVersion{Level: level, Version: api.LatestVersion()}
		is, was := security.EvaluatePod(at, &got.ObjectMeta, &got.Spec), security.EvaluatePod(at, &whole.ObjectMeta, &whole.Spec)
		if !equality.Semantic.DeepEqual(is, was) {
			t.Errorf("%s: %+v, was %+v", level, is, was)
		}
	}
	if got.ManagedFields != nil || got.Labels != nil || got.Status.Conditions != nil || got.Spec.Tolerations != nil ||
		got.Spec.Containers[0].Args != nil || got.Spec.Containers[0].Resources.Limits != nil || len(got.Spec.Containers[0].Env) != 1 {
		t.Errorf("nothing is taken away: %+v", got)
	}
}

// Objects of the cache share their managed fields; others have their own.
func TestSharedFields(t *testing.T) {
	var s sharedFields
	object := func(fields string) *corev1.Pod {
		f := &metav1.FieldsV1{}
		f.SetRawString(fields)
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "m", FieldsV1: f}, {Manager: "none"}}}}
	}
	a, b, c := object(`{"f:spec":{}}`), object(`{"f:spec":{}}`), object(`{"f:status":{}}`)
	for _, pod := range []*corev1.Pod{a, b, c} {
		s.share(pod)
	}
	if a.ManagedFields[0].FieldsV1 != b.ManagedFields[0].FieldsV1 {
		t.Error("equal ones are not shared")
	}
	if c.ManagedFields[0].FieldsV1.GetRawString() != `{"f:status":{}}` {
		t.Error("they are another's")
	}
	for i := range 3 * maxSharedFields {
		s.share(object(string(rune('a' + i))))
	}
	if len(s.known) > maxSharedFields {
		t.Errorf("%d are kept", len(s.known))
	}
}
