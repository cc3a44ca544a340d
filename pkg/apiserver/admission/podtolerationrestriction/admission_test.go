package podtolerationrestriction

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/leme-k8s/leme/pkg/apiserver/internal/admissiontest"
)

// toleration from key[=value][:effect][@seconds], "*" being any key.
func toleration(text string) corev1.Toleration {
	t := corev1.Toleration{Operator: corev1.TolerationOpExists}
	text, seconds, timed := strings.Cut(text, "@")
	if timed {
		n := resource.MustParse(seconds)
		t.TolerationSeconds = ptr.To(n.Value())
	}
	text, effect, _ := strings.Cut(text, ":")
	t.Effect = corev1.TaintEffect(effect)
	key, value, equal := strings.Cut(text, "=")
	if t.Key = key; key == "*" {
		t.Key = ""
	}
	if equal {
		t.Operator, t.Value = corev1.TolerationOpEqual, value
	}
	return t
}

func tolerations(text string) (all []corev1.Toleration) {
	for _, f := range strings.Fields(text) {
		all = append(all, toleration(f))
	}
	return all
}

func TestCovers(t *testing.T) {
	all := "* *:NoSchedule *:NoExecute foo foo=bar foo:NoSchedule foo=bar:NoSchedule foo=baz:NoSchedule faz:NoSchedule foo:PreferNoSchedule foo:NoExecute foo=bar:NoExecute foo:NoExecute@10 foo:NoExecute@0 foo=bar:NoExecute@10"
	for a, covered := range map[string]string{
		"*":                     all,
		"*:NoSchedule":          "foo:NoSchedule foo=bar:NoSchedule foo=baz:NoSchedule faz:NoSchedule",
		"*:NoExecute":           "foo:NoExecute foo=bar:NoExecute foo:NoExecute@10 foo:NoExecute@0 foo=bar:NoExecute@10",
		"foo":                   "foo=bar foo:NoSchedule foo=bar:NoSchedule foo=baz:NoSchedule foo:PreferNoSchedule foo:NoExecute foo=bar:NoExecute foo:NoExecute@10 foo:NoExecute@0 foo=bar:NoExecute@10",
		"foo=bar":               "foo=bar:NoSchedule foo=bar:NoExecute foo=bar:NoExecute@10",
		"foo:NoExecute@10":      "foo:NoExecute@0 foo=bar:NoExecute@10",
		"foo:NoExecute@0":       "",
		"foo=bar:NoSchedule":    "",
		"foo=bar:NoExecute":     "foo=bar:NoExecute@10",
		"foo:PreferNoSchedule":  "",
		"faz:NoSchedule":        "",
		"foo=bar:NoExecute@10":  "",
		"foo:NoSchedule":        "foo=bar:NoSchedule foo=baz:NoSchedule",
		"foo:NoExecute":         "foo=bar:NoExecute foo:NoExecute@10 foo:NoExecute@0 foo=bar:NoExecute@10",
		"foo=baz:NoSchedule":    "",
		"unheard-of:NoSchedule": "",
	} {
		for _, b := range strings.Fields(all) {
			want := a == b
			for _, c := range strings.Fields(covered) {
				want = want || b == c
			}
			if got := covers(toleration(a), toleration(b)); got != want {
				t.Errorf("%s covers %s: %t", a, b, got)
			}
		}
	}
}

func TestMerge(t *testing.T) {
	for _, c := range []struct{ first, second, want string }{
		{"", "", ""},
		{"a:NoSchedule", "b:NoSchedule", "a:NoSchedule b:NoSchedule"},
		{"a:NoSchedule b", "b a:NoSchedule", "a:NoSchedule b"},
		{"a=x:NoSchedule a=y:NoSchedule", "a:NoSchedule b", "a:NoSchedule b"},
		{"a=x:NoSchedule a=y:NoSchedule", "*", "*"},
		{"*", "a=x:NoSchedule b", "*"},
	} {
		if got, want := merge(tolerations(c.first), tolerations(c.second)), tolerations(c.want); !equality.Semantic.DeepEqual(got, want) {
			t.Errorf("%q with %q: %v, want %v", c.first, c.second, got, want)
		}
	}
}

func TestAdmit(t *testing.T) {
	const key = `[{"key":"k","operator":"Equal","value":"v","effect":"NoSchedule"}]`
	const config = "apiVersion: podtolerationrestriction.admission.k8s.io/v1alpha1\nkind: Configuration\n"
	requests := corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1")}}
	for name, c := range map[string]struct {
		config      string
		annotations map[string]string
		own, want   string
		resources   corev1.ResourceRequirements
		update      bool
		err         string
	}{
		"nothing configured":         {own: "a", want: "a"},
		"cluster's":                  {config: "default: " + key, want: "k=v:NoSchedule"},
		"cluster's, and its own":     {config: "default: " + key, own: "k=v:NoSchedule a", want: "k=v:NoSchedule a"},
		"namespace's":                {config: "default: " + key, annotations: map[string]string{defaultsAnnotation: `[{"key":"n","operator":"Exists"}]`}, want: "n"},
		"namespace's, none":          {config: "default: " + key, annotations: map[string]string{defaultsAnnotation: ""}, own: "a", want: "a"},
		"another value":              {config: "default: " + key, own: "k=w:NoSchedule", want: "k=v:NoSchedule k=w:NoSchedule"},
		"not on update":              {config: "default: " + key, own: "a", want: "a", update: true},
		"in the whitelist":           {config: "default: " + key + "\nwhitelist: " + key, want: "k=v:NoSchedule"},
		"beside the whitelist":       {config: "whitelist: " + key, own: "k=w:NoSchedule", err: "conflict with its cluster whitelist"},
		"namespace without a list":   {config: "whitelist: " + key, annotations: map[string]string{whitelistAnnotation: "[]"}, own: "a", want: "a"},
		"beside the namespace's":     {annotations: map[string]string{whitelistAnnotation: key}, own: "a", err: "conflict with its namespace whitelist"},
		"updated beside the list":    {annotations: map[string]string{whitelistAnnotation: key}, own: "a", update: true, err: "conflict with its namespace whitelist"},
		"pod with requests":          {own: "a", want: "a node.kubernetes.io/memory-pressure:NoSchedule", resources: requests},
		"an annotation that is none": {annotations: map[string]string{defaultsAnnotation: "{"}, err: "annotation scheduler.alpha.kubernetes.io/defaultTolerations of namespace ns"},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := New(strings.NewReader(config + c.config))
			if err != nil {
				t.Fatal(err)
			}
			admissiontest.Start(t, p, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "ns", Annotations: c.annotations}})
			pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p"}}
			pod.Spec.Containers = []corev1.Container{{Name: "c", Resources: c.resources}}
			pod.Spec.Tolerations = tolerations(c.own)
			r := admissiontest.Request{Resource: "/pods", Object: pod}
			if c.update {
				r.Old = pod.DeepCopy()
			}
			admissiontest.Check(t, admissiontest.Run(t, p, r.Attributes(t)), c.err)
			if c.err == "" && !equality.Semantic.DeepEqual(pod.Spec.Tolerations, tolerations(c.want)) {
				t.Errorf("tolerations %v, want %s", pod.Spec.Tolerations, c.want)
			}
		})
	}
}

func TestConfigurationOfAnotherKind(t *testing.T) {
	_, err := New(strings.NewReader("{apiVersion: v1, kind: Pod}"))
	admissiontest.Check(t, err, "expected kind Configuration of apiVersion podtolerationrestriction.admission.k8s.io/v1alpha1")
}
