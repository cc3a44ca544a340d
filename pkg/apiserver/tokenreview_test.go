package apiserver_test

import (
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/leme-k8s/leme/pkg/testcluster"
)

// TestTokenReview wants the original's words for tokens that are not valid.
func TestTokenReview(t *testing.T) {
	client := testcluster.Start(t).Client(t)
	accounts := client.CoreV1().ServiceAccounts("default")
	if _, err := accounts.Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "bot"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	request, err := accounts.CreateToken(t.Context(), "bot", &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	token := request.Status.Token
	for name, c := range map[string]struct {
		token     string
		audiences []string
		err       string
	}{
		"valid":              {token: token},
		"not a token":        {token: "nonsense", err: "invalid bearer token"},
		"for somebody else":  {token: token, audiences: []string{"x"}, err: `[invalid bearer token, token audiences ["https://kubernetes.default.svc"] is invalid for the target audiences ["x"]]`},
		"tampered with":      {token: token[:len(token)-8] + "AAAAAAAA", err: "[invalid bearer token, go-jose/go-jose: error in cryptographic primitive]"},
		"of another cluster": {token: "eyJhbGciOiJSUzI1NiJ9.e30.AAAA", err: "invalid bearer token"},
	} {
		review, err := client.AuthenticationV1().TokenReviews().Create(t.Context(), &authenticationv1.TokenReview{
			Spec: authenticationv1.TokenReviewSpec{Token: c.token, Audiences: c.audiences},
		}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if review.Status.Error != c.err || review.Status.Authenticated != (c.err == "") {
			t.Errorf("%s: %+v", name, review.Status)
		}
	}
}
