package csr

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"net"
	"net/url"
	"testing"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
)

func TestValidate(t *testing.T) {
	type request = x509.CertificateRequest
	node := func(change ...func(*request)) *request {
		r := &request{Subject: pkix.Name{CommonName: "system:node:n", Organization: []string{"system:nodes"}}}
		for _, f := range change {
			f(r)
		}
		return r
	}
	named := func(r *request) { r.DNSNames = []string{"n"} }
	const sign, encipher, client, server = certificatesv1.UsageDigitalSignature, certificatesv1.UsageKeyEncipherment, certificatesv1.UsageClientAuth, certificatesv1.UsageServerAuth
	type usages = []certificatesv1.KeyUsage
	for name, tc := range map[string]struct {
		request *request
		usages  usages
		client  bool
		server  bool
	}{
		"a client":                     {request: node(), usages: usages{sign, client}, client: true},
		"a client with an RSA key":     {request: node(), usages: usages{sign, encipher, client}, client: true},
		"a server":                     {request: node(named), usages: usages{sign, server}, server: true},
		"a server by address":          {request: node(func(r *request) { r.IPAddresses = []net.IP{net.IPv4(1, 2, 3, 4)} }), usages: usages{encipher, sign, server}, server: true},
		"both":                         {request: node(named), usages: usages{sign, client, server}},
		"without signatures":           {request: node(), usages: usages{encipher, client}},
		"not of the nodes":             {request: node(func(r *request) { r.Subject.Organization = nil }), usages: usages{sign, client}},
		"of the nodes and others":      {request: node(func(r *request) { r.Subject.Organization = append(r.Subject.Organization, "system:masters") }), usages: usages{sign, client}},
		"no node":                      {request: node(func(r *request) { r.Subject.CommonName = "mike" }), usages: usages{sign, client}},
		"a client with an address":     {request: node(func(r *request) { r.EmailAddresses = []string{"a@b"} }), usages: usages{sign, client}},
		"a server with a URI":          {request: node(named, func(r *request) { r.URIs = []*url.URL{{Host: "h"}} }), usages: usages{sign, server}},
		"a server that has no address": {request: node(), usages: usages{sign, server}},
	} {
		if err := ValidateKubeletClient(tc.request, tc.usages); (err == nil) != tc.client {
			t.Errorf("%s, as a client: %v", name, err)
		}
		if err := ValidateKubeletServing(tc.request, tc.usages); (err == nil) != tc.server {
			t.Errorf("%s, as a server: %v", name, err)
		}
	}
}

func TestIsApproved(t *testing.T) {
	type conditions []certificatesv1.CertificateSigningRequestCondition
	for name, tc := range map[string]struct {
		conditions conditions
		want       bool
	}{
		"pending":                {},
		"approved":               {conditions{{Type: certificatesv1.CertificateApproved, Status: corev1.ConditionTrue}}, true},
		"approved, as once said": {conditions{{Type: certificatesv1.CertificateApproved}}, true},
		"not approved":           {conditions{{Type: certificatesv1.CertificateApproved, Status: corev1.ConditionFalse}}, false},
		"denied as well":         {conditions{{Type: certificatesv1.CertificateApproved}, {Type: certificatesv1.CertificateDenied}}, false},
	} {
		if got := IsApproved(&certificatesv1.CertificateSigningRequest{Status: certificatesv1.CertificateSigningRequestStatus{Conditions: tc.conditions}}); got != tc.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

func TestParse(t *testing.T) {
	for _, data := range []string{"", "x", "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n", "-----BEGIN CERTIFICATE REQUEST-----\neA==\n-----END CERTIFICATE REQUEST-----\n"} {
		if _, err := Parse([]byte(data)); err == nil {
			t.Errorf("%q is a request", data)
		}
	}
}
