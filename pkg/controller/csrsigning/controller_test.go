package csrsigning

import (
	"testing"

	certificatesv1 "k8s.io/api/certificates/v1"
)

func TestUsagesOfClients(t *testing.T) {
	for want, usages := range map[string][]certificatesv1.KeyUsage{
		"": {certificatesv1.UsageDigitalSignature, certificatesv1.UsageClientAuth},
		"invalid usage for client certificate: server auth":          {certificatesv1.UsageServerAuth},
		"missing required usage for client certificate: client auth": {certificatesv1.UsageKeyEncipherment},
	} {
		got := ""
		if err := validate(certificatesv1.KubeAPIServerClientSignerName, nil, usages); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%v: %q, want %q", usages, got, want)
		}
	}
}
