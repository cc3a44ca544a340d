package scheme

import (
	"net/url"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

func FuzzDecodeQuery(f *testing.F) {
	s, err := New()
	if err != nil {
		f.Fatal(err)
	}
	for _, q := range []string{
		"", "follow=true&tailLines=5&sinceTime=2026-01-02T03:04:05Z", "command=a&command=b&stdin=1&tty", "ports=80&ports=x", "tailLines=-1",
		"limit=99999999999999999999", "labelSelector=a%3Db&timeoutSeconds=1", "sinceTime=yesterday", "follow=&path=..%2F..",
	} {
		f.Add(q)
	}
	f.Fuzz(func(t *testing.T, text string) {
		query, err := url.ParseQuery(text)
		if err != nil {
			return
		}
		for _, into := range []runtime.Object{&corev1.PodLogOptions{}, &corev1.PodExecOptions{}, &corev1.PodPortForwardOptions{}, &corev1.NodeProxyOptions{}, &metav1.ListOptions{}} {
			if err := s.Convert(&query, into, nil); err != nil {
				continue
			}
			switch o := into.(type) {
			case *corev1.PodLogOptions:
				if o.Container != query.Get("container") {
					t.Errorf("container %q of %q", o.Container, text)
				}
			case *corev1.PodExecOptions:
				if strings.Join(o.Command, "\x00") != strings.Join(query["command"], "\x00") {
					t.Errorf("command %q of %q", o.Command, text)
				}
			case *corev1.NodeProxyOptions:
				if o.Path != query.Get("path") {
					t.Errorf("path %q of %q", o.Path, text)
				}
			}
		}
	})
}
