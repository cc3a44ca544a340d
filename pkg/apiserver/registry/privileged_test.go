package registry_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/yaml"

	"github.com/leme-k8s/leme/pkg/testcluster"
)

const (
	plainPod      = "{containers: [{name: a, image: i}]}"
	privilegedPod = "{initContainers: [{name: b, image: i, securityContext: {privileged: true}}], containers: [{name: a, image: i, securityContext: {privileged: true}}]}"
	hostProcess   = "{hostNetwork: true, securityContext: {windowsOptions: {hostProcess: true}}, containers: [{name: a, image: i}]}"
)

// workload is a manifest with a spec for pods and where that is.
type workload struct{ api, kind, resource, before, after, at string }

var workloads = []workload{
	{"/api/v1", "Pod", "pods", "spec: ", "", "spec"},
	{"/api/v1", "PodTemplate", "podtemplates", "template: {metadata: {labels: {a: b}}, spec: ", "}", "template.spec"},
	{"/api/v1", "ReplicationController", "replicationcontrollers", "spec: {selector: {a: b}, template: {metadata: {labels: {a: b}}, spec: ", "}}", "spec.template.spec"},
	{"/apis/apps/v1", "DaemonSet", "daemonsets", "spec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: ", "}}", "spec.template.spec"},
	{"/apis/apps/v1", "Deployment", "deployments", "spec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: ", "}}", "spec.template.spec"},
	{"/apis/apps/v1", "ReplicaSet", "replicasets", "spec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: ", "}}", "spec.template.spec"},
	{"/apis/apps/v1", "StatefulSet", "statefulsets", "spec: {serviceName: s, selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: ", "}}", "spec.template.spec"},
	{"/apis/batch/v1", "Job", "jobs", "spec: {template: {spec: {restartPolicy: Never, ", "}}", "spec.template.spec"},
	{"/apis/batch/v1", "CronJob", "cronjobs", "spec: {schedule: '* * * * *', jobTemplate: {spec: {template: {spec: {restartPolicy: Never, ", "}}}}", "spec.jobTemplate.spec.template.spec"},
}

func (w workload) manifest(t *testing.T, spec string) []byte {
	t.Helper()
	if strings.HasSuffix(w.before, ", ") { // within the braces of the spec
		spec = strings.TrimPrefix(spec, "{")
	}
	_, version, _ := strings.Cut(w.api[1:], "/")
	data, err := yaml.YAMLToJSON([]byte("apiVersion: " + version + "\nkind: " + w.kind + "\nmetadata: {name: x}\n" + w.before + spec + w.after))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// causes are what a server finds wrong, field by field.
func causes(err error) []string {
	var status *apierrors.StatusError
	if !errors.As(err, &status) || status.ErrStatus.Details == nil {
		if err != nil {
			return []string{err.Error()}
		}
		return nil
	}
	var list []string
	for _, c := range status.ErrStatus.Details.Causes {
		list = append(list, c.Field+": "+c.Message)
	}
	slices.Sort(list)
	return list
}

// TestPrivileged wants what the original answers without --allow-privileged.
func TestPrivileged(t *testing.T) {
	client := testcluster.Start(t, testcluster.WithAPIServerFlags("--allow-privileged=false")).Client(t)
	for _, w := range workloads {
		t.Run(w.kind, func(t *testing.T) { unprivileged(t, client, w) })
	}
	t.Run("ephemeral container", func(t *testing.T) { unprivilegedEphemeral(t, client) })
}

func unprivileged(t *testing.T, client kubernetes.Interface, w workload) {
	path := w.api + "/namespaces/default/" + w.resource
	create := func(spec string) []string {
		return causes(client.CoreV1().RESTClient().Post().AbsPath(path).SetHeader("Content-Type", "application/json").Body(w.manifest(t, spec)).Do(t.Context()).Error())
	}
	want := []string{
		w.at + ".containers[0].securityContext.privileged: Forbidden: disallowed by cluster policy",
		w.at + ".initContainers[0].securityContext.privileged: Forbidden: disallowed by cluster policy",
	}
	if got := create(privilegedPod); !slices.Equal(got, want) {
		t.Errorf("create: %q", got)
	}
	if got, want := create(hostProcess), []string{w.at + ": Forbidden: hostProcess containers are disallowed by cluster policy"}; !slices.Equal(got, want) {
		t.Errorf("host process: %q", got)
	}
	if got := create(plainPod); got != nil {
		t.Errorf("unprivileged: %q", got)
	}
	switch w.kind {
	case "Pod", "Job": // whose containers cannot change
		return
	}
	err := client.CoreV1().RESTClient().Put().AbsPath(path, "x").SetHeader("Content-Type", "application/json").Body(w.manifest(t, privilegedPod)).Do(t.Context()).Error()
	if got := causes(err); !slices.Equal(got, want) {
		t.Errorf("update: %q", got)
	}
}

func unprivilegedEphemeral(t *testing.T, client kubernetes.Interface) {
	pods := client.CoreV1().Pods("default")
	pod, err := pods.Get(t.Context(), "x", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	pod.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{
		Name: "debug", Image: "i", SecurityContext: &corev1.SecurityContext{Privileged: ptr.To(true)},
	}}}
	_, err = pods.UpdateEphemeralContainers(t.Context(), "x", pod, metav1.UpdateOptions{})
	want := []string{"spec.ephemeralContainers[0].securityContext.privileged: Forbidden: disallowed by cluster policy"}
	if got := causes(err); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}
