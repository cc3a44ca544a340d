package admission

import (
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"

	"github.com/leme-k8s/leme/pkg/apiserver/admission/defaulttolerationseconds"
	"github.com/leme-k8s/leme/pkg/apiserver/admission/taintnodesbycondition"
)

// The original's order; "-" is off by default.
const original = `-AlwaysAdmit -NamespaceAutoProvision NamespaceLifecycle -NamespaceExists -LimitPodHardAntiAffinityTopology LimitRanger ServiceAccount
	-NodeRestriction TaintNodesByCondition -AlwaysPullImages -ImagePolicyWebhook PodSecurity -PodNodeSelector Priority DefaultTolerationSeconds
	-PodTolerationRestriction -EventRateLimit -ExtendedResourceToleration DefaultStorageClass StorageObjectInUseProtection PodGroupProtection
	-OwnerReferencesPermissionEnforcement PersistentVolumeClaimResize RuntimeClass CertificateApproval CertificateSigning ClusterTrustBundleAttest
	CertificateSubjectRestriction DefaultIngressClass -DenyServiceExternalIPs PodTopologyLabels NodeDeclaredFeatureValidator PodResizeValidator
	MutatingAdmissionPolicy MutatingAdmissionWebhook ValidatingAdmissionPolicy ValidatingAdmissionWebhook ResourceQuota -AlwaysDeny`

func TestOrder(t *testing.T) {
	o := NewOptions()
	if err := o.Validate(); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, name := range o.generic.RecommendedPluginOrder {
		if o.generic.DefaultOffPlugins.Has(name) {
			name = "-" + name
		}
		got = append(got, name)
	}
	if want := strings.Fields(original); !slices.Equal(got, want) {
		t.Errorf("plugins %v, want %v", got, want)
	}
}

func TestFlags(t *testing.T) {
	for name, test := range map[string]struct {
		args []string
		want string
	}{
		"unknown":           {[]string{"--enable-admission-plugins=Nonsense"}, `"Nonsense" is unknown`},
		"unknown, exactly":  {[]string{"--admission-control=Nonsense"}, `--admission-control: plugin "Nonsense" is unknown`},
		"exactly, and more": {[]string{"--admission-control=AlwaysDeny", "--enable-admission-plugins=NodeRestriction"}, "--admission-control excludes"},
		"enabled, disabled": {[]string{"--enable-admission-plugins=NodeRestriction", "--disable-admission-plugins=NodeRestriction"}, "overlapped"},
	} {
		o := NewOptions()
		fs := pflag.NewFlagSet("test", pflag.ContinueOnError)
		o.AddFlags(fs)
		if err := fs.Parse(test.args); err != nil {
			t.Fatal(err)
		}
		if err := o.Validate(); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v", name, err)
		}
	}

	// A plugin whose resource is not served may not be asked for.
	o := NewOptions()
	o.generic.EnablePlugins = []string{"ValidatingAdmissionWebhook"}
	err := o.ApplyTo(nil, Dependencies{Serves: func(schema.GroupVersionResource) bool { return false }})
	if err == nil || !strings.Contains(err.Error(), "needs validatingwebhookconfigurations.admissionregistration.k8s.io") {
		t.Errorf("a plugin without its resource: %v", err)
	}
}

func attributes(obj, old runtime.Object, resource string) admission.Attributes {
	op := admission.Create
	if old != nil {
		op = admission.Update
	}
	return admission.NewAttributesRecord(obj, old, schema.GroupVersionKind{}, "ns", "x", corev1.SchemeGroupVersion.WithResource(resource), "", op, nil, false, nil)
}

func TestDefaultTolerations(t *testing.T) {
	plugin := defaulttolerationseconds.New(300, 200)
	for name, test := range map[string]struct {
		own  []corev1.Toleration
		want []string
	}{
		"none":                      {nil, []string{"node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"}},
		"one":                       {[]corev1.Toleration{{Key: "node.kubernetes.io/not-ready", Effect: corev1.TaintEffectNoExecute}}, []string{"node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"}},
		"everything":                {[]corev1.Toleration{{Operator: corev1.TolerationOpExists}}, []string{""}},
		"another effect is no help": {[]corev1.Toleration{{Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoSchedule}}, []string{"", "node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"}},
	} {
		pod := &corev1.Pod{Spec: corev1.PodSpec{Tolerations: test.own}}
		if err := plugin.Admit(t.Context(), attributes(pod, nil, "pods"), nil); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, toleration := range pod.Spec.Tolerations {
			got = append(got, toleration.Key)
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%s: %q", name, got)
		}
	}
	pod := &corev1.Pod{}
	if err := plugin.Admit(t.Context(), attributes(pod, nil, "pods"), nil); err != nil || *pod.Spec.Tolerations[0].TolerationSeconds != 300 || *pod.Spec.Tolerations[1].TolerationSeconds != 200 {
		t.Errorf("seconds: %v, %v", pod.Spec.Tolerations, err)
	}
}

func TestNodesBeginTainted(t *testing.T) {
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}}
	for range 2 {
		if err := taintnodesbycondition.New().Admit(t.Context(), attributes(node, nil, "nodes"), nil); err != nil {
			t.Fatal(err)
		}
		if len(node.Spec.Taints) != 1 || node.Spec.Taints[0] != (corev1.Taint{Key: "node.kubernetes.io/not-ready", Effect: corev1.TaintEffectNoSchedule}) {
			t.Errorf("taints %v", node.Spec.Taints)
		}
	}
}
