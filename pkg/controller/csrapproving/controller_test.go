package csrapproving

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509/pkix"
	"strings"
	"testing"

	authorizationv1 "k8s.io/api/authorization/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientset "k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/kubernetes/scheme"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/util/cert"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

func TestApproval(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	data, err := cert.MakeCSR(key, &pkix.Name{CommonName: "system:node:n", Organization: []string{"system:nodes"}}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	type request = certificatesv1.CertificateSigningRequest
	for name, tc := range map[string]struct {
		change  func(*request)
		may     string // the subresource that the sender may create
		asked   string
		message string // of the approval
		fails   string
	}{
		"a node for itself":            {may: "selfnodeclient", asked: "selfnodeclient", message: "Auto approving self kubelet client certificate after SubjectAccessReview."},
		"a node that may for all":      {may: "nodeclient", asked: "selfnodeclient nodeclient", message: "Auto approving kubelet client certificate after SubjectAccessReview."},
		"somebody for a node":          {change: func(r *request) { r.Spec.Username = "joe" }, may: "nodeclient", asked: "nodeclient", message: "Auto approving kubelet client certificate after SubjectAccessReview."},
		"somebody who may for himself": {change: func(r *request) { r.Spec.Username = "joe" }, may: "selfnodeclient", asked: "nodeclient", fails: "was not approved"},
		"nobody may":                   {asked: "selfnodeclient nodeclient", fails: "was not approved"},
		"another signer":               {change: func(r *request) { r.Spec.SignerName = "example.com/s" }, may: "nodeclient"},
		"a server":                     {change: func(r *request) { r.Spec.Usages = append(r.Spec.Usages, certificatesv1.UsageServerAuth) }, may: "nodeclient"},
		"approved already": {change: func(r *request) {
			r.Status.Conditions = append(r.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{Type: certificatesv1.CertificateApproved})
		}, may: "nodeclient"},
		"denied already": {change: func(r *request) {
			r.Status.Conditions = append(r.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{Type: certificatesv1.CertificateDenied})
		}, may: "nodeclient"},
		"issued already":                 {change: func(r *request) { r.Status.Certificate = []byte("x") }, may: "nodeclient"},
		"what cannot be read is refused": {change: func(r *request) { r.Spec.Request = []byte("x") }, may: "nodeclient", fails: "not a PEM block"},
	} {
		r := &request{ObjectMeta: metav1.ObjectMeta{Name: "r"}, Spec: certificatesv1.CertificateSigningRequestSpec{
			Request: data, Username: "system:node:n", Groups: []string{"g"}, Extra: map[string]certificatesv1.ExtraValue{"k": {"v"}},
			SignerName: certificatesv1.KubeAPIServerClientKubeletSignerName, Usages: []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageClientAuth},
		}}
		if tc.change != nil {
			tc.change(r)
		}
		var asked []string
		cs := clientset.NewClientset(r)
		cs.PrependReactor("create", "subjectaccessreviews", func(a clienttesting.Action) (bool, runtime.Object, error) {
			review := a.(clienttesting.CreateAction).GetObject().(*authorizationv1.SubjectAccessReview)
			attributes := review.Spec.ResourceAttributes
			if review.Spec.User != r.Spec.Username || len(review.Spec.Groups) != 1 || len(review.Spec.Extra["k"]) != 1 || attributes.Resource != "certificatesigningrequests" || attributes.Verb != "create" {
				t.Errorf("%s: asked %+v", name, review.Spec)
			}
			asked = append(asked, attributes.Subresource)
			review.Status.Allowed = attributes.Subresource == tc.may
			return true, review, nil
		})
		c := New(fake.NewClientBuilder().WithScheme(scheme.Scheme).WithObjects(r).Build(), cs)
		_, err := c.Reconcile(t.Context(), reconcile.Request{NamespacedName: client.ObjectKeyFromObject(r)})
		if (err != nil) != (tc.fails != "") || err != nil && !strings.Contains(err.Error(), tc.fails) {
			t.Errorf("%s: %v", name, err)
		}
		if got := strings.Join(asked, " "); got != tc.asked {
			t.Errorf("%s: asked for %q", name, got)
		}
		approved := ""
		for _, a := range cs.Actions() {
			if a.GetSubresource() == "approval" {
				conditions := a.(clienttesting.UpdateAction).GetObject().(*request).Status.Conditions
				last := conditions[len(conditions)-1]
				if last.Type != certificatesv1.CertificateApproved || last.Reason != "AutoApproved" {
					t.Errorf("%s: %+v", name, last)
				}
				approved = last.Message
			}
		}
		if approved != tc.message {
			t.Errorf("%s: approved with %q", name, approved)
		}
	}
}
