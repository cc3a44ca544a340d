package controller_test

import (
	"context"
	"fmt"
	"testing"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func testAccountTokens(t *testing.T, shared *cluster) {
	c := shared.in(t)
	secrets, accounts := c.cs.CoreV1().Secrets(c.ns), c.cs.CoreV1().ServiceAccounts(c.ns)
	_, err := accounts.Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "bot"}}, metav1.CreateOptions{})
	c.must(err)
	token := func(name, account string) *corev1.Secret {
		return &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{corev1.ServiceAccountNameKey: account}},
			Type:       corev1.SecretTypeServiceAccountToken,
		}
	}
	_, err = secrets.Create(t.Context(), token("mine", "bot"), metav1.CreateOptions{})
	c.must(err)
	_, err = secrets.Create(t.Context(), token("nobodys", "nobody"), metav1.CreateOptions{})
	c.must(err)
	c.eventually("a token", func(ctx context.Context) (bool, string) {
		s, err := secrets.Get(ctx, "mine", metav1.GetOptions{})
		c.must(err)
		return len(s.Data) == 3 && len(s.Data["token"]) > 0, fmt.Sprint(len(s.Data))
	})
	gone := func(what, name string) {
		t.Helper()
		c.eventually(what, func(ctx context.Context) (bool, string) {
			_, err := secrets.Get(ctx, name, metav1.GetOptions{})
			return apierrors.IsNotFound(err), fmt.Sprint(err)
		})
	}
	gone("the token of no one to go", "nobodys")
	c.must(accounts.Delete(t.Context(), "bot", metav1.DeleteOptions{}))
	gone("the token to go with its account", "mine")
}

func testTrustBundle(t *testing.T, shared *cluster) {
	c := shared.in(t)
	bundles := c.cs.CertificatesV1().ClusterTrustBundles()
	ca := c.cfg.CAData
	published := func(what string) *certificatesv1.ClusterTrustBundle {
		t.Helper()
		var found *certificatesv1.ClusterTrustBundle
		c.eventually(what, func(ctx context.Context) (bool, string) {
			l, err := bundles.List(ctx, metav1.ListOptions{FieldSelector: "spec.signerName=kubernetes.io/kube-apiserver-serving"})
			c.must(err)
			if len(l.Items) == 1 && l.Items[0].Spec.TrustBundle == string(ca) {
				found = &l.Items[0]
			}
			return found != nil, fmt.Sprint(len(l.Items))
		})
		return found
	}
	b := published("a bundle")
	_, err := bundles.Create(t.Context(), &certificatesv1.ClusterTrustBundle{
		ObjectMeta: metav1.ObjectMeta{Name: "kubernetes.io:kube-apiserver-serving:old"}, Spec: certificatesv1.ClusterTrustBundleSpec{SignerName: b.Spec.SignerName, TrustBundle: string(ca)},
	}, metav1.CreateOptions{})
	c.must(err)
	c.eventually("the old bundle to go", func(ctx context.Context) (bool, string) {
		_, err := bundles.Get(ctx, "kubernetes.io:kube-apiserver-serving:old", metav1.GetOptions{})
		return apierrors.IsNotFound(err), fmt.Sprint(err)
	})
	c.must(bundles.Delete(t.Context(), b.Name, metav1.DeleteOptions{}))
	published("the bundle again")
}

func testServiceCIDR(t *testing.T, shared *cluster) {
	c := shared.in(t)
	cidrs := c.cs.NetworkingV1().ServiceCIDRs()
	_, err := cidrs.Create(t.Context(), &networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: c.ns}, Spec: networkingv1.ServiceCIDRSpec{CIDRs: []string{"10.123.0.0/24"}}}, metav1.CreateOptions{})
	c.must(err)
	condition := func(what string, status metav1.ConditionStatus, reason string) {
		t.Helper()
		c.eventually(what, func(ctx context.Context) (bool, string) {
			cidr, err := cidrs.Get(ctx, c.ns, metav1.GetOptions{})
			c.must(err)
			ready := meta.FindStatusCondition(cidr.Status.Conditions, networkingv1.ServiceCIDRConditionReady)
			return ready != nil && ready.Status == status && ready.Reason == reason && len(cidr.Finalizers) == 1, fmt.Sprintf("%v %+v", cidr.Finalizers, ready)
		})
	}
	condition("a ready range", metav1.ConditionTrue, "")
	ip, err := c.cs.NetworkingV1().IPAddresses().Create(t.Context(), &networkingv1.IPAddress{
		ObjectMeta: metav1.ObjectMeta{Name: "10.123.0.9", Labels: map[string]string{networkingv1.LabelManagedBy: "ipallocator.k8s.io", networkingv1.LabelIPAddressFamily: "IPv4"}},
		Spec:       networkingv1.IPAddressSpec{ParentRef: &networkingv1.ParentReference{Resource: "services", Namespace: c.ns, Name: "s"}},
	}, metav1.CreateOptions{})
	c.must(err)
	c.must(cidrs.Delete(t.Context(), c.ns, metav1.DeleteOptions{}))
	condition("a range that is still needed", metav1.ConditionFalse, networkingv1.ServiceCIDRReasonTerminating)
	c.must(c.cs.NetworkingV1().IPAddresses().Delete(t.Context(), ip.Name, metav1.DeleteOptions{}))
	c.eventually("the range to go", func(ctx context.Context) (bool, string) {
		_, err := cidrs.Get(ctx, c.ns, metav1.GetOptions{})
		return apierrors.IsNotFound(err), fmt.Sprint(err)
	})
}
