package bootstraptoken

import (
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
)

func TestTokens(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for name, test := range map[string]struct {
		token  string
		change func(*corev1.Secret)
		want   bool
		groups []string
	}{
		"valid":                  {want: true, groups: []string{"system:bootstrappers"}},
		"with groups":            {change: func(s *corev1.Secret) { s.Data["auth-extra-groups"] = []byte("system:bootstrappers:a") }, want: true, groups: []string{"system:bootstrappers", "system:bootstrappers:a"}},
		"not yet expired":        {change: func(s *corev1.Secret) { s.Data["expiration"] = []byte("2026-01-01T00:00:01Z") }, want: true, groups: []string{"system:bootstrappers"}},
		"expired":                {change: func(s *corev1.Secret) { s.Data["expiration"] = []byte("2025-12-31T23:59:59Z") }},
		"unreadable expiration":  {change: func(s *corev1.Secret) { s.Data["expiration"] = []byte("soon") }},
		"another secret part":    {token: "abcdef.0000000000000000"},
		"another ID":             {token: "fedcba.0123456789abcdef"},
		"not of the form":        {token: "abcdef"},
		"empty secret part":      {change: func(s *corev1.Secret) { delete(s.Data, "token-secret") }},
		"ID differs from name":   {change: func(s *corev1.Secret) { s.Data["token-id"] = []byte("fedcba") }},
		"another type":           {change: func(s *corev1.Secret) { s.Type = corev1.SecretTypeOpaque }},
		"for signing alone":      {change: func(s *corev1.Secret) { delete(s.Data, "usage-bootstrap-authentication") }},
		"being deleted":          {change: func(s *corev1.Secret) { s.DeletionTimestamp = &metav1.Time{Time: now} }},
		"a group it may not add": {change: func(s *corev1.Secret) { s.Data["auth-extra-groups"] = []byte("system:masters") }},
	} {
		secret := &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "bootstrap-token-abcdef"},
			Type:       "bootstrap.kubernetes.io/token",
			Data:       map[string][]byte{"token-id": []byte("abcdef"), "token-secret": []byte("0123456789abcdef"), "usage-bootstrap-authentication": []byte("true")},
		}
		if test.change != nil {
			test.change(secret)
		}
		if test.token == "" {
			test.token = "abcdef.0123456789abcdef"
		}
		b := &bootstrap{secrets: fake.NewSimpleClientset(secret).CoreV1(), now: func() time.Time { return now }} // NewClientset is slow: it knows managed fields
		response, ok, err := b.AuthenticateToken(t.Context(), test.token)
		if ok != test.want || err != nil {
			t.Errorf("%s: %v, %v", name, ok, err)
			continue
		}
		if ok && (response.User.GetName() != "system:bootstrap:abcdef" || !slices.Equal(response.User.GetGroups(), test.groups)) {
			t.Errorf("%s: user %v", name, response.User)
		}
	}
}
