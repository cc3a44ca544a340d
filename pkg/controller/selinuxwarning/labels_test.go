package selinuxwarning

import (
	"maps"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
)

func TestLabel(t *testing.T) {
	for want, o := range map[string]corev1.SELinuxOptions{
		"":                      {},
		"a:b:container_t:s0:c1": {User: "a", Role: "b", Type: "container_t", Level: "s0:c1"},
		"::container_t:":        {Type: "container_t"},
		":::s0:c0,c1":           {Level: "s0:c0,c1"},
	} {
		if got := label(&o); got != want {
			t.Errorf("%+v: %q", o, got)
		}
	}
}

func TestDiffer(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"", "", false},
		{"", "u:r:t", false},
		{":::", "u:r:t", false},
		{"u:r:t:", "u:r", false},
		{"u::t", ":r::", false},
		{"u:r:other:", "u:r:t", true},
		{"::other", "::t", true},
		{"", "u:r:t:s0:c1", true},
		{":::s0:c1", "", true},
		{":::s0:c1", "u:::s0:c1", false},
		{":::s0:c1", ":::s0:c2", true},
	} {
		if got := differ(c.a, c.b); got != c.want || differ(c.b, c.a) != got {
			t.Errorf("%q and %q: %t", c.a, c.b, got)
		}
	}
}

func TestUseOf(t *testing.T) {
	pod := func(policy *corev1.PodSELinuxChangePolicy) *corev1.Pod {
		return &corev1.Pod{Spec: corev1.PodSpec{SecurityContext: &corev1.PodSecurityContext{SELinuxChangePolicy: policy}}}
	}
	recursive, option := ptr.To(corev1.SELinuxChangePolicyRecursive), ptr.To(corev1.SELinuxChangePolicyMountOption)
	for name, c := range map[string]struct {
		pod    *corev1.Pod
		wanted []string
		want   use
	}{
		"by default":    {&corev1.Pod{}, []string{":::s0"}, use{":::s0", *option}},
		"as it says":    {pod(option), []string{":::s0"}, use{":::s0", *option}},
		"recursively":   {pod(recursive), []string{":::s0"}, use{"", *recursive}},
		"with no label": {pod(option), nil, use{"", *recursive}},
		"with an empty": {pod(option), []string{""}, use{"", *recursive}},
	} {
		if got := useOf(c.pod, c.wanted); got != c.want {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func TestLabels(t *testing.T) {
	level := func(l string) *corev1.SELinuxOptions { return &corev1.SELinuxOptions{Level: l} }
	mounts := func(names ...string) (m []corev1.VolumeMount) {
		for _, n := range names {
			m = append(m, corev1.VolumeMount{Name: n})
		}
		return m
	}
	pod := &corev1.Pod{Spec: corev1.PodSpec{
		SecurityContext: &corev1.PodSecurityContext{SELinuxOptions: level("1")},
		InitContainers:  []corev1.Container{{VolumeMounts: mounts("a", "b")}},
		Containers: []corev1.Container{
			{VolumeMounts: mounts("a", "c"), SecurityContext: &corev1.SecurityContext{SELinuxOptions: level("2")}},
			{VolumeMounts: mounts("b"), SecurityContext: &corev1.SecurityContext{}},
		},
		EphemeralContainers: []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{VolumeMounts: mounts("c")}}},
	}}
	got := labels(pod)
	want := map[string][]string{"a": {":::1", ":::2"}, "b": {":::1"}, "c": {":::2", ":::1"}}
	if !maps.EqualFunc(got, want, slices.Equal[[]string]) {
		t.Error(got)
	}
	pod.Spec.SecurityContext = nil
	if got := labels(pod)["b"]; len(got) > 0 {
		t.Errorf("without options: %v", got)
	}
}

func TestLedger(t *testing.T) {
	option := corev1.SELinuxChangePolicyMountOption
	pod := func(name string) types.NamespacedName {
		ns, name, _ := strings.Cut(name, "/")
		return types.NamespacedName{Namespace: ns, Name: name}
	}
	told := func(l *ledger, name string, uses map[string]use) string {
		var all []string
		for _, c := range l.note(pod(name), uses) {
			all = append(all, c.pod.String()+" "+c.property)
		}
		slices.Sort(all)
		return strings.Join(all, ", ")
	}
	l := newLedger()
	for _, step := range []struct {
		pod  string
		uses map[string]use
		want string
		all  int
	}{
		{"ns/a", map[string]use{"v": {":::1", option}, "w": {":::1", option}}, "", 0},
		{"ns/b", map[string]use{"v": {":::1", option}}, "", 0},
		{"ns/b", map[string]use{"v": {":::2", option}, "w": {":::2", option}}, "ns/a SELinuxLabel, ns/b SELinuxLabel", 2}, // once for two volumes
		{"ns/b", map[string]use{"v": {":::2", option}, "w": {":::2", option}}, "", 2},                                     // nothing new
		{"other/c", map[string]use{"w": {"", corev1.SELinuxChangePolicyRecursive}},
			"ns/a SELinuxChangePolicy, ns/a SELinuxLabel, ns/b SELinuxChangePolicy, ns/b SELinuxLabel, other/c SELinuxChangePolicy, other/c SELinuxChangePolicy, other/c SELinuxLabel, other/c SELinuxLabel", 10},
		{"ns/b", nil, "", 4},
		{"ns/a", nil, "", 0},
		{"other/c", nil, "", 0},
	} {
		if got := told(l, step.pod, step.uses); got != step.want || len(l.all()) != step.all {
			t.Errorf("%s: %q, and %d in all", step.pod, got, len(l.all()))
		}
	}
	if len(l.pods)+len(l.volumes) > 0 {
		t.Errorf("left: %v %v", l.pods, l.volumes)
	}
}

func TestMessages(t *testing.T) {
	const end = "If both pods land on the same node, only one of them may access the volume."
	a, b, c := types.NamespacedName{Namespace: "ns", Name: "a"}, types.NamespacedName{Namespace: "ns", Name: "b"}, types.NamespacedName{Namespace: "other", Name: "c"}
	for want, c := range map[string]conflict{
		`SELinuxLabel ":::1" conflicts with pod b that uses the same volume as this pod with SELinuxLabel ":::2". ` + end:           {labelProperty, a, b, ":::1", ":::2"},
		`SELinuxLabel":::1" conflicts with another pod that uses the same volume as this pod with a different SELinuxLabel. ` + end: {labelProperty, a, c, ":::1", ":::2"},
	} {
		if got := c.String(); got != want || c.reason() != "SELinuxLabelConflict" {
			t.Errorf("%s: %s", c.reason(), got)
		}
	}
}
