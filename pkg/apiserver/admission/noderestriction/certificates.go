package noderestriction

import (
	"context"
	"fmt"
	"strings"

	certificatesv1 "k8s.io/api/certificates/v1"
	certificatesv1beta1 "k8s.io/api/certificates/v1beta1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"github.com/leme-k8s/leme/pkg/api/certificates"
)

// admitCertificateSigningRequest lets a node ask for its own kubelet certificates
// only. Requests to other signers are for their approvers to judge.
func admitCertificateSigningRequest(node string, a admission.Attributes) error {
	if a.GetOperation() != admission.Create {
		return nil
	}
	csr, err := object[*certificatesv1.CertificateSigningRequest](a.GetObject())
	if err != nil {
		return err
	}
	if csr.Spec.SignerName != certificatesv1.KubeletServingSignerName && csr.Spec.SignerName != certificatesv1.KubeAPIServerClientKubeletSignerName {
		return nil
	}
	request, err := certificates.ParseRequest(csr.Spec.Request)
	if err != nil {
		return admission.NewForbidden(a, fmt.Errorf("unable to parse csr: %w", err))
	}
	if want := "system:node:" + node; request.Subject.CommonName != want {
		return admission.NewForbidden(a, fmt.Errorf("can only create a node CSR with CN=%s", want))
	}
	return nil
}

// admitPodCertificateRequest lets a node ask for the certificates of its own pods,
// as these are now.
func (p *Plugin) admitPodCertificateRequest(ctx context.Context, node string, a admission.Attributes) error {
	if a.GetOperation() != admission.Create {
		return nil
	}
	if a.GetSubresource() != "" {
		return admission.NewForbidden(a, fmt.Errorf("unexpected PodCertificateRequest subresource %q", a.GetSubresource()))
	}
	r, err := object[*certificatesv1beta1.PodCertificateRequest](a.GetObject())
	if err != nil {
		return err
	}
	refuse := func(format string, args ...any) error { return admission.NewForbidden(a, fmt.Errorf(format, args...)) }
	namespace := a.GetNamespace()
	if string(r.Spec.NodeName) != node {
		return refuse("PodCertificateRequest.Spec.NodeName=%q, which is not the requesting node %q", r.Spec.NodeName, node)
	}
	pod, err := p.pods.Pods(namespace).Get(r.Spec.PodName)
	if err != nil {
		return refuse("while retrieving pod named in the PodCertificateRequest: %w", err)
	}
	name := namespace + "/" + pod.Name
	if pod.UID != r.Spec.PodUID {
		return refuse("PodCertificateRequest for pod %q contains pod UID (%q) which differs from running pod %q", name, r.Spec.PodUID, pod.UID)
	}
	if pod.Spec.NodeName != node {
		return refuse("pod %q is not running on node %q", name, node)
	}
	if _, mirror := pod.Annotations[corev1.MirrorPodAnnotationKey]; mirror {
		return refuse("pod %q is a mirror pod", name)
	}
	if pod.Spec.ServiceAccountName != r.Spec.ServiceAccountName {
		return refuse("PodCertificateRequest for pod %q contains serviceAccountName (%q) that differs from running pod (%q)", name, r.Spec.ServiceAccountName, pod.Spec.ServiceAccountName)
	}
	account, err := p.accounts.ServiceAccounts(namespace).Get(r.Spec.ServiceAccountName)
	if err != nil {
		return refuse("while retrieving service account named in the PodCertificateRequest: %w", err)
	}
	if account.UID != r.Spec.ServiceAccountUID {
		return refuse("PodCertificateRequest for pod %q names service account UID %q, which differs from the running service account (%q)", name, r.Spec.ServiceAccountUID, account.UID)
	}
	live, err := p.nodes.Get(node)
	if err != nil {
		return refuse("while retrieving node named in the PodCertificateRequest: %w", err)
	}
	if live.UID != r.Spec.NodeUID {
		return refuse("PodCertificateRequest for pod %q names node UID %q, inconsistent with the running node (%q)", name, r.Spec.NodeUID, live.UID)
	}

	for _, v := range pod.Spec.Volumes {
		if v.Projected == nil {
			continue
		}
		for _, source := range v.Projected.Sources {
			if source.PodCertificate != nil && source.PodCertificate.SignerName == r.Spec.SignerName {
				return nil
			}
		}
	}
	// An administrator may let nodes ask without a volume, per signer and account.
	decision, _, err := p.authorizer.Authorize(ctx, authorizer.AttributesRecord{
		User: a.GetUserInfo(), Verb: "request-serviceaccounts-podcertificate-signer", APIGroup: certificatesv1.GroupName, APIVersion: "v1",
		Resource: strings.ReplaceAll(r.Spec.SignerName, "/", ":"), Namespace: namespace, Name: r.Spec.ServiceAccountName, ResourceRequest: true,
	})
	if err == nil && decision == authorizer.DecisionAllow {
		return nil
	}
	return refuse("pod %q does not mount a podCertificate projected volume for signer %q", name, r.Spec.SignerName)
}
