package serviceaccount

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/utils/ptr"
)

type fixedName struct{}

func (fixedName) GenerateName(base string) string { return base + "abcde" }

func account(name string, change func(*corev1.ServiceAccount)) *corev1.ServiceAccount {
	a := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name}}
	if change != nil {
		change(a)
	}
	return a
}

// plugin knows the cached objects from its informers, the others from the server only.
func plugin(t *testing.T, cached, live []runtime.Object) *Plugin {
	t.Helper()
	f := informers.NewSharedInformerFactory(fake.NewSimpleClientset(cached...), 0) // NewClientset is slow: it knows managed fields
	p := New()
	p.generate = fixedName{}
	p.SetExternalKubeInformerFactory(f)
	p.SetExternalKubeClientSet(fake.NewSimpleClientset(append(cached, live...)...))
	f.Start(t.Context().Done())
	f.WaitForCacheSync(t.Context().Done())
	return p
}

func create(pod *corev1.Pod) admission.Attributes {
	return admission.NewAttributesRecord(pod, nil, corev1.SchemeGroupVersion.WithKind("Pod"), "ns", pod.Name, corev1.SchemeGroupVersion.WithResource("pods"), "", admission.Create, nil, false, nil)
}

func TestMount(t *testing.T) {
	p := plugin(t, []runtime.Object{account("default", func(a *corev1.ServiceAccount) { a.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "pull"}} })}, nil)
	pod := &corev1.Pod{Spec: corev1.PodSpec{
		InitContainers: []corev1.Container{{Name: "i"}},
		Containers:     []corev1.Container{{Name: "a"}, {Name: "own", VolumeMounts: []corev1.VolumeMount{{Name: "x", MountPath: mountPath}}}},
	}}
	if err := p.Admit(t.Context(), create(pod), nil); err != nil {
		t.Fatal(err)
	}
	mounted := []corev1.VolumeMount{{Name: "kube-api-access-abcde", ReadOnly: true, MountPath: mountPath}}
	want := corev1.PodSpec{
		ServiceAccountName: "default", DeprecatedServiceAccount: "default",
		ImagePullSecrets: []corev1.LocalObjectReference{{Name: "pull"}},
		InitContainers:   []corev1.Container{{Name: "i", VolumeMounts: mounted}},
		Containers:       []corev1.Container{{Name: "a", VolumeMounts: mounted}, {Name: "own", VolumeMounts: []corev1.VolumeMount{{Name: "x", MountPath: mountPath}}}},
		Volumes: []corev1.Volume{{Name: "kube-api-access-abcde", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
			DefaultMode: ptr.To[int32](420),
			Sources: []corev1.VolumeProjection{
				{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{ExpirationSeconds: ptr.To[int64](3607), Path: "token"}},
				{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "kube-root-ca.crt"}, Items: []corev1.KeyToPath{{Key: "ca.crt", Path: "ca.crt"}}}},
				{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{{Path: "namespace", FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: "metadata.namespace"}}}}},
			},
		}}}},
	}
	if diff := cmp.Diff(want, pod.Spec); diff != "" {
		t.Error(diff)
	}

	// Admission may run twice: nothing is added then.
	if err := p.Admit(t.Context(), create(pod), nil); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, pod.Spec); diff != "" {
		t.Errorf("the second time: %s", diff)
	}
}

func TestAutomount(t *testing.T) {
	off := func(a *corev1.ServiceAccount) { a.AutomountServiceAccountToken = ptr.To(false) }
	p := plugin(t, []runtime.Object{account("default", nil), account("off", off)}, nil)
	for name, test := range map[string]struct {
		account string
		pod     *bool
		want    int
	}{
		"by default":      {account: "default", want: 1},
		"pod says no":     {account: "default", pod: ptr.To(false)},
		"account says no": {account: "off"},
		"pod overrules":   {account: "off", pod: ptr.To(true), want: 1},
	} {
		pod := &corev1.Pod{Spec: corev1.PodSpec{ServiceAccountName: test.account, AutomountServiceAccountToken: test.pod, Containers: []corev1.Container{{}}}}
		if err := p.Admit(t.Context(), create(pod), nil); err != nil || len(pod.Spec.Volumes) != test.want {
			t.Errorf("%s: %d volumes, %v", name, len(pod.Spec.Volumes), err)
		}
	}
}

func TestRefusals(t *testing.T) {
	strict := account("strict", func(a *corev1.ServiceAccount) {
		a.Annotations = map[string]string{enforceMountable: "true"}
		a.Secrets = []corev1.ObjectReference{{Name: "mine"}}
		a.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "pull"}}
	})
	p := plugin(t, []runtime.Object{strict, account("default", nil)}, []runtime.Object{account("fresh", nil)})
	secret := func(name string) []corev1.Volume {
		return []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: name}}}}
	}
	env := func(name string) []corev1.Container {
		return []corev1.Container{{Name: "c", Env: []corev1.EnvVar{{Name: "E", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: name}}}}}}}
	}
	token := []corev1.Volume{{VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{}}}}}}}
	for name, test := range map[string]struct {
		spec    corev1.PodSpec
		mirror  bool
		refused string
	}{
		"account not there":          {spec: corev1.PodSpec{ServiceAccountName: "none"}, refused: `error looking up service account ns/none: serviceaccount "none" not found`},
		"account not cached yet":     {spec: corev1.PodSpec{ServiceAccountName: "fresh"}},
		"listed secret":              {spec: corev1.PodSpec{ServiceAccountName: "strict", Volumes: secret("mine"), Containers: env("mine")}},
		"volume of another secret":   {spec: corev1.PodSpec{ServiceAccountName: "strict", Volumes: secret("x")}, refused: `volume with secret.secretName="x" is not allowed because service account strict does not reference that secret`},
		"env of another secret":      {spec: corev1.PodSpec{ServiceAccountName: "strict", Containers: env("x")}, refused: `container c with envVar E referencing secret.secretName="x" is not allowed`},
		"init env of another secret": {spec: corev1.PodSpec{ServiceAccountName: "strict", InitContainers: env("x")}, refused: `init container c with envVar E`},
		"another pull secret":        {spec: corev1.PodSpec{ServiceAccountName: "strict", ImagePullSecrets: []corev1.LocalObjectReference{{Name: "x"}}}, refused: `imagePullSecrets[0].name="x" is not allowed`},
		"lenient account":            {spec: corev1.PodSpec{Volumes: secret("x"), Containers: env("x")}},
		"mirror pod":                 {mirror: true},
		"mirror pod with account":    {mirror: true, spec: corev1.PodSpec{ServiceAccountName: "default"}, refused: "a mirror pod may not reference service accounts"},
		"mirror pod with secret":     {mirror: true, spec: corev1.PodSpec{Volumes: secret("x")}, refused: "a mirror pod may not reference secrets"},
		"mirror pod with token":      {mirror: true, spec: corev1.PodSpec{Volumes: token}, refused: "a mirror pod may not use ServiceAccountToken volume projections"},
	} {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p"}, Spec: test.spec}
		if test.mirror {
			pod.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "x"}
		}
		before := pod.DeepCopy()
		err := p.Admit(t.Context(), create(pod), nil)
		if err == nil {
			err = p.Validate(t.Context(), create(pod), nil)
		}
		if (err == nil) != (test.refused == "") || err != nil && !strings.Contains(err.Error(), test.refused) {
			t.Errorf("%s: %v, want %q", name, err, test.refused)
		}
		if test.mirror && !cmp.Equal(before, pod) {
			t.Errorf("%s: changed", name)
		}
	}
}
