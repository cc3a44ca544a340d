package serviceaccount

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"gopkg.in/go-jose/go-jose.v2/jwt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/leme-k8s/leme/pkg/api/authentication/signing"
)

const issuerName = "https://kubernetes.default.svc"

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// objects is a cluster's contents for a Getter, by kind and name.
type objects map[string]metav1.Object

func (o objects) add(kind string, obj metav1.Object) objects {
	o[kind+" "+obj.GetNamespace()+"/"+obj.GetName()] = obj
	return o
}

func find[T metav1.Object](o objects, kind, namespace, name string) (T, error) {
	if obj, ok := o[kind+" "+namespace+"/"+name]; ok {
		return obj.(T), nil
	}
	var none T
	return none, apierrors.NewNotFound(schema.GroupResource{Resource: kind}, name)
}

func (o objects) ServiceAccount(_ context.Context, namespace, name string) (*corev1.ServiceAccount, error) {
	return find[*corev1.ServiceAccount](o, "serviceaccounts", namespace, name)
}
func (o objects) Secret(_ context.Context, namespace, name string) (*corev1.Secret, error) {
	return find[*corev1.Secret](o, "secrets", namespace, name)
}
func (o objects) Pod(_ context.Context, namespace, name string) (*corev1.Pod, error) {
	return find[*corev1.Pod](o, "pods", namespace, name)
}
func (o objects) Node(_ context.Context, name string) (*corev1.Node, error) {
	return find[*corev1.Node](o, "nodes", "", name)
}

func meta(name, uid string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: "ns", Name: name, UID: types.UID(uid)}
}

func account() *corev1.ServiceAccount {
	return &corev1.ServiceAccount{ObjectMeta: meta("bot", "bot-uid")}
}
func pod() *corev1.Pod {
	return &corev1.Pod{ObjectMeta: meta("pod", "pod-uid"), Spec: corev1.PodSpec{NodeName: "node", ServiceAccountName: "bot"}}
}
func secret() *corev1.Secret { return &corev1.Secret{ObjectMeta: meta("secret", "secret-uid")} }
func node() *corev1.Node {
	return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node", UID: "node-uid"}}
}

func cluster() objects {
	return objects{}.add("serviceaccounts", account()).add("pods", pod()).add("secrets", secret()).add("nodes", node())
}

func deleted(o metav1.Object, ago time.Duration) metav1.Object {
	at := metav1.NewTime(epoch.Add(-ago))
	o.SetDeletionTimestamp(&at)
	return o
}

type keyPair struct {
	issuer *Issuer
	keys   Keys
}

func newKeys(t *testing.T) keyPair {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	issuer, err := NewIssuer(issuerName, private)
	if err != nil {
		t.Fatal(err)
	}
	id, err := signing.KeyID(private.Public())
	if err != nil {
		t.Fatal(err)
	}
	return keyPair{issuer, Keys{{ID: id, Key: private.Public()}}}
}

func sign(t *testing.T, i *Issuer, c claims) string {
	t.Helper()
	token, err := i.issue(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func TestBoundTokens(t *testing.T) {
	keys, others := newKeys(t), newKeys(t)
	foreign := newKeys(t)
	foreign.issuer.name = "https://example.com"
	podBinding := binding{pod: pod(), node: node()}
	for name, test := range map[string]struct {
		issuer    *Issuer
		binding   binding
		audiences []string
		objects   objects
		after     time.Duration
		asked     authenticator.Audiences
		tamper    func(string) string
		ignored   bool
		refused   string
	}{
		"valid":                      {binding: podBinding, objects: cluster()},
		"valid, bound to nothing":    {objects: objects{}.add("serviceaccounts", account())},
		"valid, bound to a secret":   {binding: binding{secret: secret()}, objects: cluster()},
		"valid, bound to a node":     {binding: binding{node: node()}, objects: cluster()},
		"valid, the pod's node gone": {binding: podBinding, objects: objects{}.add("serviceaccounts", account()).add("pods", pod())},
		"valid, for who asks":        {audiences: []string{"vault"}, asked: []string{"vault", "x"}, objects: cluster()},
		"within the leeway":          {objects: cluster(), after: time.Hour + 30*time.Second},
		"expired":                    {objects: cluster(), after: time.Hour + 2*time.Minute, refused: "has expired"},
		"not yet valid":              {objects: cluster(), after: -2 * time.Minute, refused: "not valid yet"},
		"another audience":           {audiences: []string{"vault"}, objects: cluster(), refused: `token audiences ["vault"] is invalid`},
		"not for who asks":           {asked: []string{"vault"}, objects: cluster(), refused: `for the target audiences ["vault"]`},
		"another issuer":             {issuer: foreign.issuer, objects: cluster(), ignored: true},
		"another key":                {issuer: others.issuer, objects: cluster(), refused: "invalid signature, no keys found"},
		"tampered with": {objects: cluster(), tamper: func(s string) string {
			parts := strings.Split(s, ".")
			return parts[0] + "." + parts[1] + "." + flip(parts[2])
		}, refused: "error in cryptographic primitive"},
		"not a JWT":               {objects: cluster(), tamper: func(string) string { return "abcdef.0123456789abcdef" }, ignored: true},
		"account gone":            {objects: objects{}, refused: `serviceaccounts "bot" not found`},
		"account recreated":       {objects: cluster().add("serviceaccounts", &corev1.ServiceAccount{ObjectMeta: meta("bot", "other")}), refused: "service account UID (other) does not match claim (bot-uid)"},
		"account being deleted":   {objects: cluster().add("serviceaccounts", deleted(account(), time.Hour)), refused: "has been deleted"},
		"pod gone":                {binding: podBinding, objects: objects{}.add("serviceaccounts", account()), refused: "service account token has been invalidated"},
		"pod recreated":           {binding: podBinding, objects: cluster().add("pods", &corev1.Pod{ObjectMeta: meta("pod", "other")}), refused: "pod UID (other) does not match service account pod ref claim (pod-uid)"},
		"pod in its grace period": {binding: podBinding, objects: cluster().add("pods", deleted(pod(), -30*time.Second))},
		"pod just past it":        {binding: podBinding, objects: cluster().add("pods", deleted(pod(), 30*time.Second))},
		"pod long past it":        {binding: podBinding, objects: cluster().add("pods", deleted(pod(), 2*time.Minute)), refused: "service account token has been invalidated"},
		"secret gone":             {binding: binding{secret: secret()}, objects: objects{}.add("serviceaccounts", account()), refused: "service account token has been invalidated"},
		"node gone":               {binding: binding{node: node()}, objects: objects{}.add("serviceaccounts", account()), refused: "service account token has been invalidated"},
		"node recreated":          {binding: binding{node: node()}, objects: cluster().add("nodes", &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node", UID: "other"}}), refused: "node UID (other) does not match service account node ref claim (node-uid)"},
	} {
		t.Run(name, func(t *testing.T) {
			issuer, audiences := keys.issuer, test.audiences
			if test.issuer != nil {
				issuer = test.issuer
			}
			if audiences == nil {
				audiences = []string{issuerName}
			}
			token := sign(t, issuer, newClaims(account(), test.binding, audiences, epoch, time.Hour, 0))
			if test.tamper != nil {
				token = test.tamper(token)
			}
			b := &bound{objects: test.objects, now: func() time.Time { return epoch.Add(test.after) }}
			ctx := t.Context()
			if test.asked != nil {
				ctx = authenticator.WithAudiences(ctx, test.asked)
			}
			response, ok, err := newVerifier([]string{issuerName}, keys.keys, []string{issuerName}, b.user).AuthenticateToken(ctx, token)
			switch {
			case test.refused != "":
				if ok || err == nil || !strings.Contains(err.Error(), test.refused) {
					t.Fatalf("got %v, %v, want refusal: %s", ok, err, test.refused)
				}
				if strings.Contains(err.Error(), token) {
					t.Error("the error tells the token")
				}
				return
			case test.ignored:
				if ok || err != nil {
					t.Fatalf("got %v, %v", ok, err)
				}
				return
			case !ok || err != nil:
				t.Fatalf("got %v, %v", ok, err)
			}
			u := response.User
			if u.GetName() != "system:serviceaccount:ns:bot" || u.GetUID() != "bot-uid" || !cmp.Equal(u.GetGroups(), []string{"system:serviceaccounts", "system:serviceaccounts:ns"}) {
				t.Errorf("user %v", u)
			}
			if len(u.GetExtra()["authentication.kubernetes.io/credential-id"]) != 1 {
				t.Error("no credential ID")
			}
			if test.binding.pod != nil && (u.GetExtra()["authentication.kubernetes.io/pod-name"][0] != "pod" || u.GetExtra()["authentication.kubernetes.io/node-name"][0] != "node") {
				t.Errorf("extra %v", u.GetExtra())
			}
		})
	}
}

func flip(s string) string {
	last := byte('A')
	if s[0] == last {
		last = 'B'
	}
	return string(last) + s[1:]
}

func TestClaims(t *testing.T) {
	keys := newKeys(t)
	c := newClaims(account(), binding{pod: pod(), node: node()}, []string{"a", "b"}, epoch, 8760*time.Hour, time.Hour)
	c.ID = "jti"
	token, err := jwt.ParseSigned(sign(t, keys.issuer, c))
	if err != nil {
		t.Fatal(err)
	}
	var raw json.RawMessage
	if err := token.Claims(keys.keys[0].Key, &raw); err != nil {
		t.Fatal(err)
	}
	const want = `{"aud":["a","b"],"exp":1798859045,"iat":1767323045,"iss":"https://kubernetes.default.svc","jti":"jti","kubernetes.io":{"namespace":"ns","node":{"name":"node","uid":"node-uid"},"pod":{"name":"pod","uid":"pod-uid"},"serviceaccount":{"name":"bot","uid":"bot-uid"},"warnafter":1767326645},"nbf":1767323045,"sub":"system:serviceaccount:ns:bot"}`
	var got any
	if err := json.Unmarshal(raw, &got); err != nil {
		t.Fatal(err)
	}
	if sorted, _ := json.Marshal(got); string(sorted) != want {
		t.Errorf("claims\n%s, want\n%s", sorted, want)
	}
	if h := token.Headers[0]; h.KeyID != keys.keys[0].ID || h.Algorithm != "ES256" {
		t.Errorf("header %+v", h)
	}
}

func TestLegacyTokens(t *testing.T) {
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := signing.NewSigner(private)
	if err != nil {
		t.Fatal(err)
	}
	token, err := jwt.Signed(signer).Claims(jwt.Claims{Issuer: legacyIssuer, Subject: "system:serviceaccount:ns:bot"}).
		Claims(legacyClaims{ServiceAccountName: "bot", ServiceAccountUID: "bot-uid", SecretName: "secret", Namespace: "ns"}).CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	holding := func(data string, labels map[string]string) *corev1.Secret {
		s := secret()
		s.Labels, s.Data = labels, map[string][]byte{corev1.ServiceAccountTokenKey: []byte(data)}
		return s
	}
	today := map[string]string{lastUsedLabel: "2026-01-02"}
	for name, test := range map[string]struct {
		objects  objects
		noLookup bool
		refused  string
		noted    bool
	}{
		"valid":                {objects: cluster().add("secrets", holding(token, today))},
		"valid, used first":    {objects: cluster().add("secrets", holding(token, nil)), noted: true},
		"valid, without look":  {objects: objects{}, noLookup: true},
		"secret gone":          {objects: objects{}.add("serviceaccounts", account()), refused: "Token has been invalidated"},
		"secret being deleted": {objects: cluster().add("secrets", deleted(holding(token, today), 0)), refused: "Token has been invalidated"},
		"another token":        {objects: cluster().add("secrets", holding(token+"x", today)), refused: "Token does not match server's copy"},
		"account recreated":    {objects: cluster().add("secrets", holding(token, today)).add("serviceaccounts", &corev1.ServiceAccount{ObjectMeta: meta("bot", "other")}), refused: "ServiceAccount UID (other) does not match claim (bot-uid)"},
		"marked invalid":       {objects: cluster().add("secrets", holding(token, map[string]string{invalidSinceLabel: "2026-01-01"})), refused: "has been marked invalid"},
	} {
		t.Run(name, func(t *testing.T) {
			client := fake.NewSimpleClientset(secret()) // NewClientset is slow: it knows managed fields
			l := &legacy{lookup: !test.noLookup, objects: test.objects, secrets: client.CoreV1(), now: func() time.Time { return epoch }}
			keys := Keys{{Key: private.Public()}}
			if keys[0].ID, err = signing.KeyID(private.Public()); err != nil {
				t.Fatal(err)
			}
			response, ok, err := newVerifier([]string{legacyIssuer}, keys, []string{issuerName}, l.user).AuthenticateToken(t.Context(), token)
			if test.refused != "" {
				if ok || err == nil || !strings.Contains(err.Error(), test.refused) || strings.Contains(err.Error(), token) {
					t.Fatalf("got %v, %v, want refusal: %s", ok, err, test.refused)
				}
				return
			}
			if !ok || err != nil || response.User.GetName() != "system:serviceaccount:ns:bot" {
				t.Fatalf("got %v, %v", ok, err)
			}
			s, err := client.CoreV1().Secrets("ns").Get(t.Context(), "secret", metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if got := s.Labels[lastUsedLabel] == "2026-01-02"; got != test.noted {
				t.Errorf("use noted: %v", got)
			}
		})
	}
}
