package apiserver

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	utilfeature "k8s.io/apiserver/pkg/util/feature"

	"github.com/leme-k8s/leme/pkg/component"
)

// TestBadFlags wants each flag that is wrong, or that asks for what there is not, named.
func TestBadFlags(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, data []byte) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	cert, key, err := component.SelfSigned("client")
	if err != nil {
		t.Fatal(err)
	}
	_, otherKey, err := component.SelfSigned("other")
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile, otherFile := write("client.crt", cert), write("client.key", key), write("other.key", otherKey)

	for name, c := range map[string]struct{ args, want, not string }{
		"client certificate for others":  {args: "--proxy-client-cert-file=" + certFile + " --proxy-client-key-file=" + keyFile, not: "--proxy-client"},
		"without its key":                {args: "--proxy-client-cert-file=" + certFile, want: "--proxy-client-cert-file and --proxy-client-key-file go together"},
		"with another's key":             {args: "--proxy-client-cert-file=" + certFile + " --proxy-client-key-file=" + otherFile, want: "--proxy-client-cert-file, --proxy-client-key-file: tls: private key does not match"},
		"a file that is not there":       {args: "--kubelet-client-certificate=/nowhere --kubelet-client-key=" + keyFile, want: "--kubelet-client-certificate, --kubelet-client-key: open /nowhere"},
		"a gate that is as by default":   {args: "--feature-gates=UserNamespacesSupport=true", not: "--feature-gates"},
		"a gate that is not":             {args: "--feature-gates=UserNamespacesSupport=false", want: "--feature-gates, --emulated-version: cannot set feature gate UserNamespacesSupport to false"},
		"a gate that nobody knows":       {args: "--feature-gates=NoSuchGate=true", want: "unrecognized feature gate: NoSuchGate"},
		"an endpoint reconciler of old":  {args: "--endpoint-reconciler-type=master-count", want: "--endpoint-reconciler-type"},
		"node port outside of its range": {args: "--kubernetes-service-node-port=80", want: "--kubernetes-service-node-port"},
		"a range without addresses":      {args: "--service-cluster-ip-range=10.0.0.0/31", want: "--service-cluster-ip-range"},
	} {
		// Etcd and the keys of service accounts are missing, so there is an error in any case.
		_, err := component.New(t.Context(), "kube-apiserver", NewOptions(), strings.Fields(c.args))
		if err == nil {
			t.Fatalf("%s: no error", name)
		}
		if !strings.Contains(err.Error(), c.want) || c.not != "" && strings.Contains(err.Error(), c.not) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestGates(t *testing.T) {
	library := utilfeature.DefaultMutableFeatureGate.DeepCopy()
	g := gates{library}
	if err := g.Set("WatchList=false,UserNamespacesSupport=true"); err != nil {
		t.Error(err)
	}
	if library.Enabled("WatchList") {
		t.Error("WatchList is not switched off")
	}
	if err := g.Set("APIServerIdentity=false,WatchList=true"); err == nil || !strings.Contains(err.Error(), "APIServerIdentity") {
		t.Errorf("a gate that the library knows and that the server does not heed: %v", err)
	}
	if err := g.Set("WatchList=perhaps"); err == nil {
		t.Error("no error for a value that is none")
	}
	for _, line := range g.KnownFeatures() {
		if strings.HasPrefix(line, "APIServerIdentity=") {
			t.Errorf("--help lists %s", line)
		}
	}
}
