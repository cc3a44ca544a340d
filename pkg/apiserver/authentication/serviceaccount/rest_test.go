package serviceaccount

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/emicklei/go-restful/v3"
	"gopkg.in/go-jose/go-jose.v2/jwt"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	genericrequest "k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/utils/ptr"
)

// store is a registry of one kind of the objects.
type store struct {
	objects objects
	kind    string
}

func (s store) Get(ctx context.Context, name string, _ *metav1.GetOptions) (runtime.Object, error) {
	namespace := genericrequest.NamespaceValue(ctx)
	if s.kind == "nodes" {
		namespace = ""
	}
	o, err := find[metav1.Object](s.objects, s.kind, namespace, name)
	if err != nil {
		return nil, err
	}
	return o.(runtime.Object), nil
}

func TestTokenREST(t *testing.T) {
	keys := newKeys(t)
	request := func(change func(*authenticationv1.TokenRequest)) *authenticationv1.TokenRequest {
		r := &authenticationv1.TokenRequest{}
		if change != nil {
			change(r)
		}
		return r
	}
	boundTo := func(apiVersion, kind, name, uid string) *authenticationv1.TokenRequest {
		return request(func(r *authenticationv1.TokenRequest) {
			r.Spec.BoundObjectRef = &authenticationv1.BoundObjectReference{APIVersion: apiVersion, Kind: kind, Name: name, UID: meta("", uid).UID}
		})
	}
	lasting := func(seconds int64) *authenticationv1.TokenRequest {
		return request(func(r *authenticationv1.TokenRequest) { r.Spec.ExpirationSeconds = &seconds })
	}
	injected := boundTo("v1", "Pod", "pod", "pod-uid")
	injected.Spec.ExpirationSeconds = ptr.To[int64](3607)
	elsewhere := injected.DeepCopy()
	elsewhere.Spec.Audiences = []string{"vault"}
	foreign := pod()
	foreign.Name, foreign.Spec.ServiceAccountName = "foreign", "other"

	for name, test := range map[string]struct {
		account  string
		request  *authenticationv1.TokenRequest
		max      time.Duration
		told     time.Duration // expirationTimestamp
		lives    time.Duration // exp
		warn     bool
		audience string
		refused  string
	}{
		"defaults":                        {request: request(nil), told: time.Hour, lives: time.Hour, audience: issuerName},
		"bound to a pod":                  {request: boundTo("v1", "Pod", "pod", ""), told: time.Hour, lives: time.Hour, audience: issuerName},
		"injected volumes live longer":    {request: injected, told: 3607 * time.Second, lives: 8760 * time.Hour, warn: true, audience: issuerName},
		"but not for other audiences":     {request: elsewhere, told: 3607 * time.Second, lives: 3607 * time.Second, audience: "vault"},
		"the maximum":                     {request: lasting(7200), max: time.Hour, told: time.Hour, lives: time.Hour, audience: issuerName},
		"account not found":               {account: "nobody", request: request(nil), refused: `"nobody" not found`},
		"too short":                       {request: lasting(599), refused: "spec.expirationSeconds: Invalid value: 599: may not specify a duration less than 10 minutes"},
		"too long":                        {request: lasting(1<<32 + 1), refused: "may not specify a duration larger than 2^32 seconds"},
		"bound to a pod of another":       {request: boundTo("v1", "Pod", "foreign", ""), refused: `cannot bind token for serviceaccount "bot" to pod running with different serviceaccount name.`},
		"bound to a pod that is not":      {request: boundTo("v1", "Pod", "none", ""), refused: `"none" not found`},
		"bound to a pod recreated":        {request: boundTo("v1", "Pod", "pod", "old"), refused: "the UID in the bound object reference (old) does not match the UID in record"},
		"bound to a config map":           {request: boundTo("v1", "ConfigMap", "x", ""), refused: "cannot bind token to object of type /v1, Kind=ConfigMap"},
		"bound to nothing in particular":  {request: boundTo("v1", "", "", ""), refused: "cannot bind token to object of type /v1, Kind="},
		"another name than in the path":   {request: request(func(r *authenticationv1.TokenRequest) { r.Name = "x" }), refused: "must match the service account name if specified"},
		"for an account that is replaced": {request: request(func(r *authenticationv1.TokenRequest) { r.UID = "old" }), refused: "does not match the UID of the service account"},
	} {
		t.Run(name, func(t *testing.T) {
			o := cluster().add("pods", foreign)
			rest := NewTokenREST(keys.issuer, []string{issuerName}, TokenOptions{MaxExpiration: test.max, Extend: true},
				Storage{store{o, "serviceaccounts"}, store{o, "pods"}, store{o, "secrets"}, store{o, "nodes"}})
			rest.now = func() time.Time { return epoch }
			account := test.account
			if account == "" {
				account = "bot"
			}
			out, err := rest.Create(genericrequest.WithNamespace(t.Context(), "ns"), account, test.request, nil, &metav1.CreateOptions{})
			if test.refused != "" {
				if err == nil || !strings.Contains(err.Error(), test.refused) {
					t.Fatalf("got %v, want %s", err, test.refused)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			r := out.(*authenticationv1.TokenRequest)
			if r.UID != "bot-uid" || r.Name != "bot" || r.Namespace != "ns" {
				t.Errorf("metadata %+v", r.ObjectMeta)
			}
			if got := r.Status.ExpirationTimestamp.Sub(epoch); got != test.told {
				t.Errorf("expires after %v, want %v", got, test.told)
			}
			token, err := jwt.ParseSigned(r.Status.Token)
			if err != nil {
				t.Fatal(err)
			}
			var c jwt.Claims
			var p privateClaims
			if err := token.Claims(keys.keys[0].Key, &c, &p); err != nil {
				t.Fatal(err)
			}
			if got := c.Expiry.Time().Sub(epoch); got != test.lives {
				t.Errorf("lives %v, want %v", got, test.lives)
			}
			if (p.Kubernetes.WarnAfter != nil) != test.warn || !c.Audience.Contains(test.audience) || len(c.Audience) != 1 {
				t.Errorf("claims %+v %+v", c, p)
			}
			if test.request.Spec.BoundObjectRef != nil && (p.Kubernetes.Pod == nil || p.Kubernetes.Pod.UID != "pod-uid" || p.Kubernetes.Node.UID != "node-uid") {
				t.Errorf("bound to %+v", p)
			}
		})
	}
}

func TestDiscovery(t *testing.T) {
	keys := newKeys(t)
	for _, issuer := range []string{"kubernetes", "http://example.com", "https://example.com?x=y"} {
		if _, err := NewDiscovery(issuer, "", "10.0.0.1:6443", keys.keys); err == nil {
			t.Errorf("%s has a discovery document", issuer)
		}
	}
	d, err := NewDiscovery(issuerName, "", "10.0.0.1:6443", keys.keys)
	if err != nil {
		t.Fatal(err)
	}
	m := restful.NewContainer()
	d.Install(m)
	for path, want := range map[string]string{
		"/.well-known/openid-configuration": `{"issuer":"https://kubernetes.default.svc","jwks_uri":"https://10.0.0.1:6443/openid/v1/jwks","response_types_supported":["id_token"],"subject_types_supported":["public"],"id_token_signing_alg_values_supported":["ES256"]}`,
		"/openid/v1/jwks":                   `"kid":"` + keys.keys[0].ID + `"`,
	} {
		w := httptest.NewRecorder()
		m.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		if body := w.Body.String(); !strings.Contains(body, want) || strings.Contains(body, `"d":`) {
			t.Errorf("%s: %s", path, body)
		}
	}
}
