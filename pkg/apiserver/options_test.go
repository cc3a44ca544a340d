package apiserver

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"k8s.io/apiserver/pkg/reconcilers"
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
		"an endpoint reconciler of old":  {args: "--endpoint-reconciler-type=master-count", not: "--endpoint-reconciler-type"},
		"one that there is not":          {args: "--endpoint-reconciler-type=count", want: `"count" is none of lease, master-count, none`},
		"no servers":                     {args: "--apiserver-count=0", want: "--apiserver-count should be a positive number, but value '0' provided"},
		"peers without certificate":      {args: "--peer-ca-file=" + certFile, want: "--peer-ca-file needs --proxy-client-cert-file and --proxy-client-key-file"},
		"a lease for too short a time":   {args: "--coordinated-leadership-lease-duration=10s", want: "--coordinated-leadership-lease-duration must be greater than --coordinated-leadership-renew-deadline"},
		"a deadline that is too short":   {args: "--coordinated-leadership-renew-deadline=2s", want: "--coordinated-leadership-renew-deadline must be greater than --coordinated-leadership-retry-period"},
		"metrics of a version of old":    {args: "--show-hidden-metrics-for-version=1.35", want: "showHiddenMetricsForVersion: Invalid value: \"1.35\": must be omitted or have the value '1.36'"},
		"metrics of the version before":  {args: "--show-hidden-metrics-for-version=1.36", not: "Metrics"},
		"labels of no metric":            {args: "--allow-metric-labels=a=b", want: "allowListMapping"},
		"no metric's name":               {args: "--disabled-metrics=a-b", want: "disabledMetrics"},
		"no file of labels":              {args: "--allow-metric-labels-manifest=/nowhere", want: "allowListMappingManifest"},
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
	on := map[string]bool{}
	g := gates{library, on}
	if err := g.Set("WatchList=false,UserNamespacesSupport=true"); err != nil {
		t.Error(err)
	}
	if library.Enabled("WatchList") {
		t.Error("WatchList is not switched off")
	}
	if err := g.Set("APIServerIdentity=false,WatchList=true"); err == nil || !strings.Contains(err.Error(), "APIServerIdentity") {
		t.Errorf("a gate that the library knows and that the server does not heed: %v", err)
	}
	if err := g.Set("GenericWorkload=true,TopologyAwareWorkloadScheduling=true"); err != nil || !on["GenericWorkload"] {
		t.Errorf("a gate that lets more in: %v, %v", err, on)
	}
	if err := g.Set("GenericWorkload=false"); err == nil || !strings.Contains(err.Error(), "TopologyAwareWorkloadScheduling is enabled, but depends on features that are disabled: [GenericWorkload]") {
		t.Errorf("a gate without which another cannot be on: %v", err)
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

// TestFlagsOfInstallers wants every flag to be known that kubeadm, kind and envtest set, and
// those that change nothing; and no others.
func TestFlagsOfInstallers(t *testing.T) {
	parse := func(flags ...string) (*Options, error) {
		o := NewOptions()
		fs := pflag.NewFlagSet("kube-apiserver", pflag.ContinueOnError)
		fs.SetOutput(io.Discard)
		o.AddFlags(fs)
		return o, fs.Parse(flags)
	}
	for name, flags := range map[string]string{
		"kubeadm": `--advertise-address=192.0.2.1 --allow-privileged=true --authorization-mode=Node,RBAC --client-ca-file=/pki/ca.crt --enable-admission-plugins=NodeRestriction
			--enable-bootstrap-token-auth=true --etcd-cafile=/pki/etcd/ca.crt --etcd-certfile=/pki/apiserver-etcd-client.crt --etcd-keyfile=/pki/apiserver-etcd-client.key
			--etcd-servers=https://127.0.0.1:2379 --kubelet-client-certificate=/pki/kubelet.crt --kubelet-client-key=/pki/kubelet.key
			--kubelet-preferred-address-types=InternalIP,ExternalIP,Hostname --proxy-client-cert-file=/pki/front.crt --proxy-client-key-file=/pki/front.key
			--requestheader-allowed-names=front-proxy-client --requestheader-client-ca-file=/pki/front-ca.crt --requestheader-extra-headers-prefix=X-Remote-Extra-
			--requestheader-group-headers=X-Remote-Group --requestheader-username-headers=X-Remote-User --secure-port=6443 --service-account-issuer=https://kubernetes.default.svc
			--service-account-key-file=/pki/sa.pub --service-account-signing-key-file=/pki/sa.key --service-cluster-ip-range=10.96.0.0/12
			--tls-cert-file=/pki/apiserver.crt --tls-private-key-file=/pki/apiserver.key`,
		"kind": `--runtime-config=api/all=true --feature-gates=UserNamespacesSupport=true --audit-log-path=/var/log/audit.log --audit-policy-file=/policy.yaml
			--admission-control-config-file=/admission.yaml --encryption-provider-config=/encryption.yaml --oidc-issuer-url=https://example.com --oidc-client-id=kubernetes`,
		"envtest": `--advertise-address=127.0.0.1 --allow-privileged=true --authorization-mode=RBAC --bind-address=127.0.0.1 --cert-dir=/tmp/certs --client-ca-file=/tmp/ca.crt
			--disable-admission-plugins=ServiceAccount --etcd-servers=http://127.0.0.1:2379 --secure-port=1234 --service-account-issuer=https://127.0.0.1:1234/
			--service-account-key-file=/tmp/sa.crt --service-account-signing-key-file=/tmp/sa.key --service-cluster-ip-range=10.0.0.0/24`,
		"of old": `--apiserver-count=3 --kubelet-read-only-port=10255 --kubelet-port=10250 --enable-logs-handler=false --coordinated-leadership-lease-duration=15s
			--coordinated-leadership-renew-deadline=10s --coordinated-leadership-retry-period=2s --admission-control=AlwaysAdmit`,
	} {
		if _, err := parse(strings.Fields(flags)...); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := parse("--insecure-port=8080"); err == nil {
		t.Error("a flag that there is no more is accepted")
	}
	if o, err := parse("--aggregator-reject-forwarding-redirect=false"); err != nil || o.AggregatorRejectsRedirects {
		t.Errorf("--aggregator-reject-forwarding-redirect=false: %t, %v", o.AggregatorRejectsRedirects, err)
	}
}

func TestPeerAddress(t *testing.T) {
	for want, a := range map[string]reconcilers.PeerAdvertiseAddress{
		"[2001:db8::1]:443": {},
		"192.0.2.1:7443":    {PeerAdvertiseIP: "192.0.2.1", PeerAdvertisePort: "7443"},
	} {
		if got := (PeerOptions{Advertise: a}).address(net.ParseIP("2001:db8::1"), "443"); got != want {
			t.Errorf("%+v: %s, want %s", a, got, want)
		}
	}
}
