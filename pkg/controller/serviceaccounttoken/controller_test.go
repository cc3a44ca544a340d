package serviceaccounttoken

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"testing"

	"gopkg.in/go-jose/go-jose.v2/jwt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestFill(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c, err := New(nil, nil, key, []byte("ca"))
	if err != nil {
		t.Fatal(err)
	}
	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "token"}}
	sa := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "bot", UID: "u"}}
	if changed, err := c.fill(s, sa); !changed || err != nil {
		t.Fatal(changed, err)
	}
	if string(s.Data["ca.crt"]) != "ca" || string(s.Data["namespace"]) != "ns" || s.Annotations[corev1.ServiceAccountUIDKey] != "u" {
		t.Errorf("%+v", s)
	}
	token, err := jwt.ParseSigned(string(s.Data["token"]))
	if err != nil {
		t.Fatal(err)
	}
	var public jwt.Claims
	var private legacyClaims
	if err := token.Claims(key.Public(), &public, &private); err != nil {
		t.Fatal(err)
	}
	if public.Issuer != issuer || public.Subject != "system:serviceaccount:ns:bot" || private != (legacyClaims{"ns", "token", "bot", "u"}) {
		t.Errorf("%+v %+v", public, private)
	}
	if changed, err := c.fill(s, sa); changed || err != nil {
		t.Errorf("a second time: %t, %v", changed, err)
	}
	s.Data["ca.crt"] = []byte("old")
	before := string(s.Data["token"])
	if changed, err := c.fill(s, sa); !changed || err != nil || string(s.Data["token"]) != before {
		t.Errorf("another CA: %t, %v", changed, err)
	}
}
