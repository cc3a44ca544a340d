package apiserver_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"gopkg.in/go-jose/go-jose.v2"
	"gopkg.in/go-jose/go-jose.v2/jwt"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/leme-k8s/leme/pkg/testcluster"
)

func write(t *testing.T, file, text string) string {
	t.Helper()
	// As editors do: a reader sees the old file or the new one.
	if err := os.WriteFile(file+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
	return file
}

// kubeconfigOf returns the kubeconfig of a client of a server.
func kubeconfigOf(s *httptest.Server) string {
	ca, _ := json.Marshal(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
	return fmt.Sprintf("{apiVersion: v1, kind: Config, clusters: [{name: c, cluster: {server: %q, certificate-authority-data: %s}}], contexts: [{name: c, context: {cluster: c}}], current-context: c}", s.URL, ca)
}

// issuer is an OpenID Connect provider.
type issuer struct {
	*httptest.Server
	signer jose.Signer
}

func startIssuer(t *testing.T) *issuer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	i := &issuer{}
	if i.signer, err = jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: key, KeyID: "k"}}, nil); err != nil {
		t.Fatal(err)
	}
	answer := func(w http.ResponseWriter, v any) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(v)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, map[string]any{"issuer": i.URL, "jwks_uri": i.URL + "/keys", "authorization_endpoint": i.URL, "token_endpoint": i.URL, "response_types_supported": []string{"id_token"}, "subject_types_supported": []string{"public"}, "id_token_signing_alg_values_supported": []string{"ES256"}})
	})
	mux.HandleFunc("/keys", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Public(), KeyID: "k", Algorithm: "ES256", Use: "sig"}}})
	})
	i.Server = httptest.NewTLSServer(mux)
	t.Cleanup(i.Close)
	return i
}

func (i *issuer) token(t *testing.T, claims map[string]any) string {
	t.Helper()
	all := map[string]any{"iss": i.URL, "aud": "leme", "exp": time.Now().Add(time.Hour).Unix(), "iat": time.Now().Add(-time.Minute).Unix(), "jti": rand.Text()}
	for k, v := range claims {
		all[k] = v
	}
	token, err := jwt.Signed(i.signer).Claims(all).CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func (i *issuer) configuration(username string) string {
	ca, _ := json.Marshal(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: i.Certificate().Raw})))
	return fmt.Sprintf(`
apiVersion: apiserver.config.k8s.io/v1
kind: AuthenticationConfiguration
jwt:
- issuer: {url: %q, audiences: [leme], certificateAuthority: %s}
  claimValidationRules: [{expression: "claims.team != 'fired'", message: not any more}]
  claimMappings:
    username: {expression: %q}
    groups: {expression: "[claims.team]"}
  userValidationRules: [{expression: "!user.username.startsWith('system:')", message: reserved}]
anonymous:
  enabled: true
  conditions: [{path: /livez}]
`, i.URL, ca, username)
}

// TestAuthentication asks a server who one is, in all ways of saying so.
func TestAuthentication(t *testing.T) {
	dir := t.TempDir()
	idp := startIssuer(t)
	hook := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var review authenticationv1.TokenReview
		if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		if name, ok := strings.CutPrefix(review.Spec.Token, "hook-"); ok {
			review.Status = authenticationv1.TokenReviewStatus{Authenticated: true, User: authenticationv1.UserInfo{Username: name, Groups: []string{"hooked"}}}
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(review)
	}))
	defer hook.Close()
	config := write(t, filepath.Join(dir, "authentication.yaml"), idp.configuration("'oidc:' + claims.sub"))
	c := testcluster.Start(t, testcluster.WithAPIServerFlags(
		"--token-auth-file="+write(t, filepath.Join(dir, "tokens.csv"), "sesame,ali,1,\"cave,oil\"\n"),
		"--enable-bootstrap-token-auth",
		"--authentication-config="+config,
		"--authentication-token-webhook-version=v1", "--authentication-token-webhook-config-file="+write(t, filepath.Join(dir, "hook.kubeconfig"), kubeconfigOf(hook))))
	client := c.Client(t)
	if _, err := client.CoreV1().Secrets("kube-system").Create(t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "bootstrap-token-abcdef"}, Type: "bootstrap.kubernetes.io/token",
		StringData: map[string]string{"token-id": "abcdef", "token-secret": "0123456789abcdef", "usage-bootstrap-authentication": "true", "auth-extra-groups": "system:bootstrappers:new"},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	whoami := func(token string) (authenticationv1.UserInfo, error) {
		config := rest.AnonymousClientConfig(c.Config)
		config.BearerToken = token
		client, err := kubernetes.NewForConfig(config)
		if err != nil {
			t.Fatal(err)
		}
		review, err := client.AuthenticationV1().SelfSubjectReviews().Create(t.Context(), &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
		if err != nil {
			return authenticationv1.UserInfo{}, err
		}
		return review.Status.UserInfo, nil
	}
	eventually(t, "the provider's keys", func(context.Context) bool {
		_, err := whoami(idp.token(t, map[string]any{"sub": "ann", "team": "dev"}))
		return err == nil
	})
	for name, test := range map[string]struct{ token, user, group string }{
		"token file":              {"sesame", "ali", "oil"},
		"bootstrap token":         {"abcdef.0123456789abcdef", "system:bootstrap:abcdef", "system:bootstrappers:new"},
		"wrong bootstrap token":   {token: "abcdef.0123456789abcde0"},
		"webhook":                 {"hook-bob", "bob", "hooked"},
		"nobody knows it":         {token: "nonsense"},
		"OpenID Connect":          {idp.token(t, map[string]any{"sub": "ann", "team": "dev"}), "oidc:ann", "dev"},
		"a claim that is refused": {token: idp.token(t, map[string]any{"sub": "ann", "team": "fired"})},
		"for somebody else":       {token: idp.token(t, map[string]any{"sub": "ann", "team": "dev", "aud": "other"})},
		"expired":                 {token: idp.token(t, map[string]any{"sub": "ann", "team": "dev", "exp": 1})},
		"anonymous":               {token: ""},
	} {
		user, err := whoami(test.token)
		switch {
		case test.user == "" && !apierrors.IsUnauthorized(err):
			t.Errorf("%s: user %+v, %v", name, user, err)
		case test.user != "" && (err != nil || user.Username != test.user || !slices.Contains(user.Groups, test.group) || !slices.Contains(user.Groups, "system:authenticated")):
			t.Errorf("%s: user %+v, %v", name, user, err)
		}
	}
	nobody, err := kubernetes.NewForConfig(rest.AnonymousClientConfig(c.Config))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := nobody.RESTClient().Get().AbsPath("/livez").DoRaw(t.Context()); err != nil {
		t.Errorf("/livez for nobody in particular: %v", err)
	}
	if _, err := nobody.RESTClient().Get().AbsPath("/version").DoRaw(t.Context()); !apierrors.IsUnauthorized(err) {
		t.Errorf("/version for nobody in particular: %v", err)
	}

	// A file that is wrong changes nothing; a right one does.
	write(t, config, "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\njwt: [{}]\n")
	eventually(t, "a wrong file is counted", func(context.Context) bool {
		return counted(metrics(t, client), "apiserver_authentication_config_controller_automatic_reloads_total", `status="failure"`)
	})
	if user, err := whoami(idp.token(t, map[string]any{"sub": "ann", "team": "dev"})); err != nil || user.Username != "oidc:ann" {
		t.Errorf("after a wrong file: %+v, %v", user, err)
	}
	write(t, config, idp.configuration("'new:' + claims.sub"))
	eventually(t, "a new file is in use", func(context.Context) bool {
		user, err := whoami(idp.token(t, map[string]any{"sub": "ann", "team": "dev"}))
		return err == nil && user.Username == "new:ann"
	})
}

func metrics(t *testing.T, client kubernetes.Interface) string {
	t.Helper()
	data, err := client.Discovery().RESTClient().Get().AbsPath("/metrics").DoRaw(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// counted says whether a metric with a label has a value.
func counted(metrics, name, label string) bool {
	for line := range strings.Lines(metrics) {
		if strings.HasPrefix(line, name) && strings.Contains(line, label) {
			return true
		}
	}
	return false
}

// TestImpersonation covers the verb "impersonate" for everything, and those that allow to be
// a certain user for certain requests alone.
func TestImpersonation(t *testing.T) {
	c := testcluster.Start(t)
	client := c.Client(t)
	as := func(user string, impersonated rest.ImpersonationConfig) kubernetes.Interface {
		// The administrator is allowed to be the one who impersonates, by a token.
		request, err := client.CoreV1().ServiceAccounts("default").CreateToken(t.Context(), user, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		config := rest.AnonymousClientConfig(c.Config)
		config.BearerToken, config.Impersonate = request.Status.Token, impersonated
		client, err := kubernetes.NewForConfig(config)
		if err != nil {
			t.Fatal(err)
		}
		return client
	}
	allow := func(name string, subjects []rbacv1.Subject, rules ...rbacv1.PolicyRule) {
		if _, err := client.RbacV1().ClusterRoles().Create(t.Context(), &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name}, Rules: rules}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		if _, err := client.RbacV1().ClusterRoleBindings().Create(t.Context(), &rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: name}, Subjects: subjects, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name},
		}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"full", "constrained", "none"} {
		if _, err := client.CoreV1().ServiceAccounts("default").Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	account := func(name string) []rbacv1.Subject {
		return []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: "default", Name: name}}
	}
	allow("reader", []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: "jane"}}, rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"configmaps", "secrets"}, Verbs: []string{"list"}})
	allow("full", account("full"), rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"users"}, Verbs: []string{"impersonate"}})
	allow("constrained", account("constrained"),
		rbacv1.PolicyRule{APIGroups: []string{"authentication.k8s.io"}, Resources: []string{"users"}, ResourceNames: []string{"jane"}, Verbs: []string{"impersonate:user-info"}},
		rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"configmaps"}, Verbs: []string{"impersonate-on:user-info:list"}})
	list := func(user, impersonated, resource string) error {
		return as(user, rest.ImpersonationConfig{UserName: impersonated}).CoreV1().RESTClient().Get().Namespace("default").Resource(resource).Do(t.Context()).Error()
	}
	eventually(t, "the roles are known", func(context.Context) bool {
		return list("full", "jane", "secrets") == nil && list("constrained", "jane", "configmaps") == nil
	})
	for name, err := range map[string]error{
		"constrained, another resource": list("constrained", "jane", "secrets"),
		"constrained, another user":     list("constrained", "joe", "configmaps"),
		"none":                          list("none", "jane", "configmaps"),
		"a user without rights":         list("full", "joe", "configmaps"),
	} {
		if !apierrors.IsForbidden(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
