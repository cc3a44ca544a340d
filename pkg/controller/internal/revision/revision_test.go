package revision

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// A revision that kube-controller-manager v1.34 wrote has these bytes and this name; another
// result would roll every StatefulSet out anew when one manager takes over from the other.
func TestBytesAndName(t *testing.T) {
	const want = `{"spec":{"template":{"$patch":"replace","metadata":{"annotations":{"test":"value"},"labels":{"app":"foo"}},"spec":{"containers":[{"image":"test","imagePullPolicy":"Always","name":"test","resources":{},"terminationMessagePath":"/dev/termination-log","terminationMessagePolicy":"File"}],"dnsPolicy":"ClusterFirst","restartPolicy":"Always","schedulerName":"default-scheduler","securityContext":{},"terminationGracePeriodSeconds":30}}}}`
	template := &corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "foo"}, Annotations: map[string]string{"test": "value"}},
		Spec: corev1.PodSpec{
			Containers: []corev1.Container{{
				Name: "test", Image: "test", ImagePullPolicy: corev1.PullAlways,
				TerminationMessagePath: "/dev/termination-log", TerminationMessagePolicy: corev1.TerminationMessageReadFile,
			}},
			DNSPolicy: corev1.DNSClusterFirst, RestartPolicy: corev1.RestartPolicyAlways, SchedulerName: "default-scheduler",
			SecurityContext: &corev1.PodSecurityContext{}, TerminationGracePeriodSeconds: ptr.To[int64](30),
		},
	}
	data, err := Patch(template)
	if err != nil {
		t.Fatal(err)
	}
	if string(data) != want {
		t.Errorf("stored as %s", data)
	}
	if got := DataHash(data, 0); got != "776999688b" {
		t.Errorf("hash %s", got)
	}
	back, err := Template(data)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := Patch(back); err != nil || string(again) != want {
		t.Errorf("read and stored again as %s, %v", again, err)
	}
}
