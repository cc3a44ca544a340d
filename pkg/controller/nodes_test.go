package controller_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509/pkix"
	"fmt"
	"slices"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/cert"
	"k8s.io/utils/ptr"
)

func testNodeNotReady(t *testing.T, shared *cluster) {
	c := shared.in(t)
	node := func() *corev1.Node {
		n, err := c.cs.CoreV1().Nodes().Get(t.Context(), "n1", metav1.GetOptions{})
		c.must(err)
		return n
	}
	hasTaint := func(effect corev1.TaintEffect, want bool) {
		t.Helper()
		c.eventually(fmt.Sprint(effect, want), func(context.Context) (bool, string) {
			n := node()
			return slices.ContainsFunc(n.Spec.Taints, func(t corev1.Taint) bool {
				return t.Key == corev1.TaintNodeNotReady && t.Effect == effect
			}) == want, fmt.Sprint(n.Spec.Taints)
		})
	}
	c.eventually("pod addresses", func(context.Context) (bool, string) { return len(node().Spec.PodCIDRs) == 1, "none" })
	pod := func(name string, tolerate *int64) {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: template("x", nil).Spec}
		p.Spec.NodeName = "n1"
		p.Spec.Tolerations = []corev1.Toleration{{Key: corev1.TaintNodeNotReady, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: tolerate}}
		_, err := c.cs.CoreV1().Pods(c.ns).Create(t.Context(), p, metav1.CreateOptions{})
		c.must(err)
	}
	pod("patient", nil)
	pod("hasty", ptr.To[int64](1))
	labels := map[string]string{"app": "agent"}
	_, err := c.cs.AppsV1().DaemonSets(c.ns).Create(t.Context(), &appsv1.DaemonSet{
		ObjectMeta: metav1.ObjectMeta{Name: "agent"},
		Spec:       appsv1.DaemonSetSpec{Selector: &metav1.LabelSelector{MatchLabels: labels}, Template: template("v1", labels)},
	}, metav1.CreateOptions{})
	c.must(err)
	c.eventually("the pods, the daemon's included", func(ctx context.Context) (bool, string) {
		list, err := c.cs.CoreV1().Pods(c.ns).List(ctx, metav1.ListOptions{FieldSelector: "spec.nodeName=n1,status.phase=Running"})
		c.must(err)
		return len(list.Items) == 3, fmt.Sprint(len(list.Items))
	})
	hasTaint(corev1.TaintEffectNoExecute, false)
	c.nodes.SetReady(t, "n1", corev1.ConditionFalse)
	hasTaint(corev1.TaintEffectNoSchedule, true)
	hasTaint(corev1.TaintEffectNoExecute, true)
	c.eventually("the eviction", func(ctx context.Context) (bool, string) {
		_, err := c.cs.CoreV1().Pods(c.ns).Get(ctx, "hasty", metav1.GetOptions{})
		return apierrors.IsNotFound(err), fmt.Sprint(err)
	})
	_, err = c.cs.CoreV1().Pods(c.ns).Get(t.Context(), "patient", metav1.GetOptions{})
	c.must(err)
	c.nodes.SetReady(t, "n1", corev1.ConditionTrue)
	hasTaint(corev1.TaintEffectNoExecute, false)
	hasTaint(corev1.TaintEffectNoSchedule, false)
}

func testCertificates(t *testing.T, shared *cluster) {
	c := shared.in(t)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	c.must(err)
	data, err := cert.MakeCSR(key, &pkix.Name{CommonName: "system:node:n1", Organization: []string{"system:nodes"}}, nil, nil)
	c.must(err)
	r, err := c.cs.CertificatesV1().CertificateSigningRequests().Create(t.Context(), &certificatesv1.CertificateSigningRequest{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "csr-"},
		Spec: certificatesv1.CertificateSigningRequestSpec{
			Request: data, SignerName: certificatesv1.KubeAPIServerClientKubeletSignerName,
			Usages: []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageClientAuth},
		},
	}, metav1.CreateOptions{})
	c.must(err)
	c.eventually("a certificate", func(ctx context.Context) (bool, string) {
		r, err = c.cs.CertificatesV1().CertificateSigningRequests().Get(ctx, r.Name, metav1.GetOptions{})
		c.must(err)
		return len(r.Status.Certificate) > 0, fmt.Sprintf("%+v", r.Status)
	})
	certs, err := cert.ParseCertsPEM(r.Status.Certificate)
	c.must(err)
	if certs[0].Subject.CommonName != "system:node:n1" {
		t.Errorf("issued to %s", certs[0].Subject)
	}
}

// A request that has been denied for long goes.
func testOldRequests(t *testing.T, shared *cluster) {
	c := shared.in(t)
	requests := c.cs.CertificatesV1().CertificateSigningRequests()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	c.must(err)
	data, err := cert.MakeCSR(key, &pkix.Name{CommonName: "mike"}, nil, nil)
	c.must(err)
	for name, ago := range map[string]time.Duration{"denied": time.Minute, "denied-long-ago": 2 * time.Hour} {
		r, err := requests.Create(t.Context(), &certificatesv1.CertificateSigningRequest{
			ObjectMeta: metav1.ObjectMeta{Name: c.ns + "-" + name},
			Spec:       certificatesv1.CertificateSigningRequestSpec{Request: data, SignerName: "example.com/s", Usages: []certificatesv1.KeyUsage{certificatesv1.UsageClientAuth}},
		}, metav1.CreateOptions{})
		c.must(err)
		r.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{{
			Type: certificatesv1.CertificateDenied, Status: corev1.ConditionTrue, Reason: "No", LastUpdateTime: metav1.NewTime(time.Now().Add(-ago)),
		}}
		_, err = requests.UpdateApproval(t.Context(), r.Name, r, metav1.UpdateOptions{})
		c.must(err)
	}
	c.eventually("the end of the old one", func(ctx context.Context) (bool, string) {
		_, err := requests.Get(ctx, c.ns+"-denied-long-ago", metav1.GetOptions{})
		return apierrors.IsNotFound(err), fmt.Sprint(err)
	})
	_, err = requests.Get(t.Context(), c.ns+"-denied", metav1.GetOptions{})
	c.must(err)
}

func testAggregatedRoles(t *testing.T, shared *cluster) {
	c := shared.in(t)
	roles := c.cs.RbacV1().ClusterRoles()
	own := []rbacv1.PolicyRule{{APIGroups: []string{"x"}, Resources: []string{"y"}, Verbs: []string{"get"}}}
	selector := metav1.LabelSelector{MatchLabels: map[string]string{"to": c.ns}}
	sum := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: c.ns + "-sum"}, Rules: own, AggregationRule: &rbacv1.AggregationRule{ClusterRoleSelectors: []metav1.LabelSelector{selector}}}
	_, err := roles.Create(t.Context(), sum, metav1.CreateOptions{})
	c.must(err)
	rules := func(what string, want []rbacv1.PolicyRule) {
		t.Helper()
		c.eventually(what, func(ctx context.Context) (bool, string) {
			r, err := roles.Get(ctx, sum.Name, metav1.GetOptions{})
			c.must(err)
			return equality.Semantic.DeepEqual(r.Rules, want), fmt.Sprint(r.Rules)
		})
	}
	part := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: c.ns + "-part", Labels: selector.MatchLabels}, Rules: []rbacv1.PolicyRule{{NonResourceURLs: []string{"/z"}, Verbs: []string{"get"}}}}
	rules("the rules of a sum of nothing", own)
	_, err = roles.Create(t.Context(), part, metav1.CreateOptions{})
	c.must(err)
	rules("the rules of a sum", part.Rules)
	c.must(roles.Delete(t.Context(), part.Name, metav1.DeleteOptions{}))
	rules("the rules of a sum of nothing any more", nil)
	c.eventually("the rules of admin", func(ctx context.Context) (bool, string) {
		r, err := c.cs.RbacV1().ClusterRoles().Get(ctx, "admin", metav1.GetOptions{})
		c.must(err)
		return len(r.Rules) > 10, fmt.Sprint(len(r.Rules))
	})
}
