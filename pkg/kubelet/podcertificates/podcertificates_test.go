package podcertificates

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"strings"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/record"
	testingclock "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"

	"github.com/leme-k8s/leme/pkg/component/componenttest"
)

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func TestNext(t *testing.T) {
	have := Credential{Chain: []byte("x")}
	for name, test := range map[string]struct {
		state state
		want  step
		says  string
	}{
		"new":                  {state{}, ask, ""},
		"asked":                {state{waiting: true}, wait, ""},
		"refused":              {state{refused: context.Canceled}, wait, ""},
		"fresh":                {state{have: have, renew: epoch.Add(time.Second), ends: epoch.Add(time.Hour)}, use, ""},
		"due":                  {state{have: have, renew: epoch, ends: epoch.Add(time.Hour)}, ask, ""},
		"due, asked":           {state{have: have, renew: epoch, ends: epoch.Add(time.Hour), waiting: true}, wait, ""},
		"overdue":              {state{have: have, renew: epoch.Add(-11 * time.Minute), ends: epoch.Add(time.Hour), waiting: true}, wait, "CertificateOverdueForRefresh"},
		"overdue, was said":    {state{have: have, renew: epoch.Add(-time.Hour), ends: epoch.Add(time.Hour), waiting: true, complained: overdue}, wait, ""},
		"expired":              {state{have: have, renew: epoch.Add(-time.Hour), ends: epoch.Add(-time.Second), complained: overdue}, ask, "CertificateExpired"},
		"expired, of a sudden": {state{have: have, renew: epoch.Add(-time.Hour), ends: epoch.Add(-time.Second)}, ask, "CertificateOverdueForRefresh CertificateExpired"},
	} {
		t.Run(name, func(t *testing.T) {
			var said []string
			for range 2 {
				test.state.complain(epoch, func(reason, _ string) { said = append(said, reason) })
			}
			if got := test.state.next(epoch); got != test.want || strings.Join(said, " ") != test.says {
				t.Errorf("%s, said %q; want %s, %q", got, said, test.want, test.says)
			}
		})
	}
}

func TestNewKey(t *testing.T) {
	for _, keyType := range []string{"RSA3072", "ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519"} {
		key, proof, err := newKey(keyType)
		if err != nil {
			t.Fatal(err)
		}
		request, err := x509.ParseCertificateRequest(proof)
		if err == nil {
			err = request.CheckSignature()
		}
		if err != nil {
			t.Errorf("%s: the proof proves nothing: %v", keyType, err)
		}
		block, rest := pem.Decode(key)
		if block == nil || len(rest) > 0 {
			t.Fatalf("%s: the key is no PEM", keyType)
		}
		if _, err := x509.ParsePKCS8PrivateKey(block.Bytes); err != nil || block.Type != "PRIVATE KEY" {
			t.Errorf("%s: %v", keyType, err)
		}
	}
	if _, _, err := newKey("DSA"); err == nil {
		t.Error("a key of an unknown type")
	}
}

// TestCredential takes a certificate from the first request through its renewal to a refusal.
func TestCredential(t *testing.T) {
	client := fake.NewClientset(&v1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "sa", UID: "sa-uid"}})
	clock := testingclock.NewFakePassiveClock(epoch)
	changed := make(chan types.UID, 10)
	recorder := record.NewFakeRecorder(10)
	m := New(t.Context(), Config{
		Client: client, NodeName: "node", Recorder: recorder, Clock: clock, Changed: func(uid types.UID) { changed <- uid },
		Node: func(context.Context) (*v1.Node, error) {
			return &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node", UID: "node-uid"}}, nil
		},
	})
	pod := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "p", UID: "uid"}, Spec: v1.PodSpec{ServiceAccountName: "sa"}}
	p := &v1.PodCertificateProjection{
		SignerName: "example.com/s", KeyType: "ED25519", MaxExpirationSeconds: ptr.To[int32](3600), UserAnnotations: map[string]string{"a/b": "c"},
	}
	get := func() (Credential, time.Time, error) { return m.Credential(t.Context(), pod, "v", 1, p) }
	// open returns the newest request, which the fake names after nothing, once it is watched.
	open := func() *certificatesv1.PodCertificateRequest {
		t.Helper()
		componenttest.Eventually(t, "the request is watched", func() bool {
			verbs := map[string]int{}
			for _, a := range client.Actions() {
				verbs[a.GetVerb()]++
			}
			return verbs["watch"] == verbs["create"]
		})
		list, err := client.CertificatesV1().PodCertificateRequests("n").List(t.Context(), metav1.ListOptions{})
		if err != nil || len(list.Items) != 1 {
			t.Fatalf("%d requests: %v", len(list.Items), err)
		}
		return &list.Items[0]
	}
	noticed := func(what string) {
		t.Helper()
		select {
		case <-changed:
		case <-time.After(20 * time.Second):
			t.Fatal(what + " goes unnoticed")
		}
	}
	answer := func(condition string, renew time.Time) {
		t.Helper()
		r := open()
		r.Status.Conditions = []metav1.Condition{{Type: condition, Reason: "Because", Message: "so it is"}}
		r.Status.CertificateChain = "words\n" + string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Headers: map[string]string{"a": "b"}, Bytes: []byte(renew.String())}))
		r.Status.BeginRefreshAt, r.Status.NotAfter = ptr.To(metav1.NewTime(renew)), ptr.To(metav1.NewTime(renew.Add(time.Hour)))
		if _, err := client.CertificatesV1().PodCertificateRequests("n").UpdateStatus(t.Context(), r, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		noticed("the answer")
		if err := client.CertificatesV1().PodCertificateRequests("n").Delete(t.Context(), r.Name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
	}

	for range 2 { // asking twice makes one request
		if _, _, err := get(); err == nil || !strings.Contains(err.Error(), "not issued yet") {
			t.Fatalf("before it is issued: %v", err)
		}
	}
	spec := open().Spec
	if spec.PodUID != "uid" || spec.ServiceAccountUID != "sa-uid" || spec.NodeUID != "node-uid" || spec.NodeName != "node" || *spec.MaxExpirationSeconds != 3600 || spec.UnverifiedUserAnnotations["a/b"] != "c" {
		t.Errorf("asked for %+v", spec)
	}
	if err := client.CertificatesV1().PodCertificateRequests("n").Delete(t.Context(), open().Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	noticed("that the request was deleted")
	if _, _, err := get(); err == nil || !strings.Contains(err.Error(), "not issued yet") {
		t.Fatalf("asked anew: %v", err)
	}
	answer(certificatesv1.PodCertificateRequestConditionTypeIssued, epoch.Add(time.Hour))
	first, renew, err := get()
	if err != nil || strings.Contains(string(first.Chain), "words") || strings.Contains(string(first.Chain), "a: b") || len(first.Key) == 0 {
		t.Fatalf("%s: %v", first.Chain, err)
	}
	if renew.Before(epoch.Add(time.Hour)) || renew.After(epoch.Add(time.Hour+5*time.Minute)) {
		t.Errorf("renewed at %s", renew)
	}

	clock.SetTime(renew)
	if same, again, err := get(); err != nil || string(same.Chain) != string(first.Chain) || !again.Equal(renew.Add(time.Minute)) {
		t.Errorf("while it is renewed: %v, asked again at %s", err, again)
	}
	answer(certificatesv1.PodCertificateRequestConditionTypeIssued, epoch.Add(2*time.Hour))
	second, renew, err := get()
	if err != nil || string(second.Chain) == string(first.Chain) || string(second.Key) == string(first.Key) {
		t.Errorf("renewed: %v", err)
	}

	clock.SetTime(renew)
	if _, _, err := get(); err != nil {
		t.Error(err)
	}
	answer(certificatesv1.PodCertificateRequestConditionTypeDenied, epoch)
	if _, _, err := get(); err == nil || !strings.Contains(err.Error(), `reason="Because"`) {
		t.Errorf("refused: %v", err)
	}
	if e := <-recorder.Events; !strings.Contains(e, "Warning Denied") {
		t.Errorf("event %q", e)
	}

	m.Forget("uid")
	if _, _, err := get(); err == nil || !strings.Contains(err.Error(), "not issued yet") {
		t.Errorf("a new start: %v", err)
	}
}
