package csrcleaner

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

var now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func certificate(t *testing.T, until time.Time) []byte {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: until.Add(-time.Hour), NotAfter: until}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func TestCleaner(t *testing.T) {
	type conditions []certificatesv1.CertificateSigningRequestCondition
	valid, expired := certificate(t, now.Add(24*time.Hour)), certificate(t, now.Add(-time.Minute))
	is := func(kind certificatesv1.RequestConditionType, ago time.Duration) certificatesv1.CertificateSigningRequestCondition {
		return certificatesv1.CertificateSigningRequestCondition{Type: kind, LastUpdateTime: metav1.NewTime(now.Add(-ago))}
	}
	const approved, denied, failed = certificatesv1.CertificateApproved, certificatesv1.CertificateDenied, certificatesv1.CertificateFailed
	for name, tc := range map[string]struct {
		age         time.Duration
		conditions  conditions
		certificate []byte
		left        time.Duration // until it is deleted, if it is not
		kept        bool          // for ever
	}{
		"pending":                       {age: 5 * time.Hour, left: 19 * time.Hour},
		"pending for long":              {age: 25 * time.Hour},
		"approved":                      {age: time.Minute, conditions: conditions{is(approved, 5*time.Hour)}, left: 19 * time.Hour},
		"approved, never signed":        {age: time.Minute, conditions: conditions{is(approved, 25*time.Hour)}},
		"approved late":                 {age: 25 * time.Hour, conditions: conditions{is(approved, time.Hour)}, left: 23 * time.Hour},
		"issued":                        {age: time.Minute, conditions: conditions{is(approved, 50*time.Minute)}, certificate: valid, left: 10 * time.Minute},
		"issued late":                   {age: 25 * time.Hour, conditions: conditions{is(approved, 50*time.Minute)}, certificate: valid, left: 10 * time.Minute},
		"issued long ago":               {age: time.Minute, conditions: conditions{is(approved, 2*time.Hour)}, certificate: valid},
		"issued, expired":               {age: time.Minute, conditions: conditions{is(approved, 50*time.Minute)}, certificate: expired},
		"issued long ago, not readable": {age: time.Minute, conditions: conditions{is(approved, 2*time.Hour)}, certificate: []byte("x")},
		"denied":                        {age: time.Minute, conditions: conditions{is(denied, 50*time.Minute)}, left: 10 * time.Minute},
		"denied long ago":               {age: time.Minute, conditions: conditions{is(denied, 2*time.Hour)}},
		"failed":                        {age: time.Minute, conditions: conditions{is(approved, 2*time.Hour), is(failed, 50*time.Minute)}, left: 10 * time.Minute},
		"failed long ago":               {age: time.Minute, conditions: conditions{is(approved, 2*time.Hour), is(failed, 2*time.Hour)}},
		"somebody's condition":          {age: 5 * time.Hour, conditions: conditions{is("example.com/seen", 2*time.Hour)}, left: 19 * time.Hour},
		"denied, nobody knows when":     {age: 25 * time.Hour, conditions: conditions{{Type: denied}}, kept: true},
	} {
		r := &certificatesv1.CertificateSigningRequest{ObjectMeta: metav1.ObjectMeta{Name: "r", CreationTimestamp: metav1.NewTime(now.Add(-tc.age))}}
		r.Status.Conditions, r.Status.Certificate = tc.conditions, tc.certificate
		c := fake.NewClientBuilder().WithScheme(scheme.Scheme).WithObjects(r).Build()
		result, err := (&Controller{client: c, clock: clocktesting.NewFakePassiveClock(now)}).Reconcile(t.Context(), reconcile.Request{NamespacedName: client.ObjectKeyFromObject(r)})
		if err != nil || result.RequeueAfter != tc.left {
			t.Errorf("%s: again in %v, %v", name, result.RequeueAfter, err)
		}
		gone := apierrors.IsNotFound(c.Get(t.Context(), client.ObjectKeyFromObject(r), r))
		if gone != (tc.left == 0 && !tc.kept) {
			t.Errorf("%s: gone: %t", name, gone)
		}
	}
}
