package apiserver_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/leme-k8s/leme/pkg/testcluster"
)

const admissionConfig = `
apiVersion: apiserver.config.k8s.io/v1
kind: AdmissionConfiguration
plugins:
- name: EventRateLimit
  configuration:
    apiVersion: eventratelimit.admission.k8s.io/v1alpha1
    kind: Configuration
    limits: [{type: Namespace, qps: 1, burst: 2}]
- name: PodNodeSelector
  path: podnodeselector.yaml
- name: PodTolerationRestriction
  configuration:
    apiVersion: podtolerationrestriction.admission.k8s.io/v1alpha1
    kind: Configuration
    default: [{key: rented, operator: Exists}]
`

// TestOptionalAdmission switches on what can be switched on, each of which must have its
// configuration and do its part of a request.
func TestOptionalAdmission(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"admission.yaml":       admissionConfig,
		"podnodeselector.yaml": "podNodeSelectorPluginConfig: {clusterDefaultNodeSelector: role=worker}",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	client := testcluster.Start(t, testcluster.WithAPIServerFlags("--admission-control-config-file="+filepath.Join(dir, "admission.yaml"),
		"--enable-admission-plugins=NamespaceAutoProvision,NamespaceExists,LimitPodHardAntiAffinityTopology,PodNodeSelector,PodTolerationRestriction,"+
			"EventRateLimit,ExtendedResourceToleration,OwnerReferencesPermissionEnforcement,DenyServiceExternalIPs,AlwaysAdmit,AlwaysPullImages,NodeRestriction")).Client(t)
	ctx := t.Context()

	// The namespace is made with its first object. It needs a ServiceAccount before a pod.
	if _, err := client.CoreV1().ServiceAccounts("made").Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	pod, err := client.CoreV1().Pods("made").Create(ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "p"},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if s := pod.Spec; s.NodeSelector["role"] != "worker" || s.Tolerations[0].Key != "rented" && s.Tolerations[len(s.Tolerations)-1].Key != "rented" || s.Containers[0].ImagePullPolicy != corev1.PullAlways {
		t.Errorf("pod with selector %v, tolerations %v, pull policy %s", s.NodeSelector, s.Tolerations, s.Containers[0].ImagePullPolicy)
	}
	_, err = client.CoreV1().Services("made").Create(ctx, &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "s"},
		Spec:       corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}, ExternalIPs: []string{"1.2.3.4"}},
	}, metav1.CreateOptions{})
	if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "external IPs") {
		t.Errorf("a Service with an external IP: %v", err)
	}
	event := func() error {
		_, err := client.CoreV1().Events("made").Create(ctx, &corev1.Event{
			ObjectMeta: metav1.ObjectMeta{GenerateName: "e", Namespace: "made"}, InvolvedObject: corev1.ObjectReference{Kind: "Pod", Namespace: "made", Name: "p"},
		}, metav1.CreateOptions{})
		return err
	}
	refused := 0
	for range 20 {
		if err := event(); apierrors.IsTooManyRequests(err) {
			refused++
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if refused == 0 {
		t.Error("20 events at once: none is refused")
	}
}
