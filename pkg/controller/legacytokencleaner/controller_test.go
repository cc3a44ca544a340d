package legacytokencleaner

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestDecide(t *testing.T) {
	now := time.Date(2026, 6, 30, 12, 0, 0, 0, time.UTC)
	const period = 30 * 24 * time.Hour
	old := func() *corev1.Secret {
		return &corev1.Secret{
			Type: corev1.SecretTypeServiceAccountToken,
			ObjectMeta: metav1.ObjectMeta{
				Namespace: "ns", Name: "token", CreationTimestamp: metav1.NewTime(now.AddDate(-1, 0, 0)), Labels: map[string]string{},
				Annotations: map[string]string{corev1.ServiceAccountNameKey: "sa", corev1.ServiceAccountUIDKey: "u"},
			},
		}
	}
	accounts := []corev1.ServiceAccount{{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "sa", UID: "u"}, Secrets: []corev1.ObjectReference{{Name: "token"}}}}
	mounts := corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns"}, Spec: corev1.PodSpec{ImagePullSecrets: []corev1.LocalObjectReference{{Name: "token"}}}}
	for name, tc := range map[string]struct {
		change func(*corev1.Secret)
		pods   []corev1.Pod
		want   action
	}{
		"never used":          {want: invalidate},
		"used long ago":       {change: func(s *corev1.Secret) { s.Labels[lastUsedLabel] = "2026-01-01" }, want: invalidate},
		"used lately":         {change: func(s *corev1.Secret) { s.Labels[lastUsedLabel] = "2026-06-01" }},
		"used who knows when": {change: func(s *corev1.Secret) { s.Labels[lastUsedLabel] = "x" }},
		"invalid lately":      {change: func(s *corev1.Secret) { s.Labels[invalidSinceLabel] = "2026-06-10" }},
		"invalid long ago":    {change: func(s *corev1.Secret) { s.Labels[invalidSinceLabel] = "2026-05-01" }, want: remove},
		"young":               {change: func(s *corev1.Secret) { s.CreationTimestamp = metav1.NewTime(now) }},
		"made by hand":        {change: func(s *corev1.Secret) { s.Name = "mine" }},
		"of another account":  {change: func(s *corev1.Secret) { s.Annotations[corev1.ServiceAccountUIDKey] = "v" }},
		"another type":        {change: func(s *corev1.Secret) { s.Type = corev1.SecretTypeOpaque }},
		"a pod uses it":       {pods: []corev1.Pod{mounts}},
	} {
		s := old()
		if tc.change != nil {
			tc.change(s)
		}
		if got := decide(s, accounts, tc.pods, period, now); got != tc.want {
			t.Errorf("%s: %d", name, got)
		}
	}
}
