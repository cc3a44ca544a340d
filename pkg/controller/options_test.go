package controller

import (
	"cmp"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

func TestSelectControllers(t *testing.T) {
	for _, c := range []struct {
		flag          string
		with, without string
		err           string
	}{
		{"*", "deployment-controller", "bootstrap-signer-controller", ""},
		{"*,bootstrapsigner,tokencleaner", "bootstrap-signer-controller", "", ""},
		{"*,-deployment", "replicaset-controller", "deployment-controller", ""},
		{"deployment-controller", "deployment-controller", "replicaset-controller", ""},
		{"*,nothing", "", "", `"nothing" is not a controller`},
		{"*,-selinux-warning-controller", "deployment-controller", "selinux-warning-controller", ""},
		{"*,selinux-warning-controller", "selinux-warning-controller", "token-cleaner-controller", ""},
		{"storage-version-gc,-podgroup-protection-controller", "storageversion-garbage-collector-controller", "podgroup-protection-controller", ""},
	} {
		got, err := selectControllers(strings.Split(c.flag, ","))
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: %v", c.flag, err)
			}
			continue
		}
		if err != nil || !got.Has(c.with) || got.Has(c.without) {
			t.Errorf("%s: %v, %v", c.flag, got, err)
		}
	}
}

func TestNamesAreUnique(t *testing.T) {
	seen := map[string]bool{}
	for _, e := range entries {
		for _, name := range []string{e.Name, e.Alias} {
			if name != "" && seen[name] {
				t.Errorf("%s is there twice", name)
			}
			seen[name] = true
		}
	}
}

// What has a name and nothing else cannot be switched on.
func TestNamesAlone(t *testing.T) {
	for _, e := range entries {
		if e.New != nil || e.Gate == "" {
			continue
		}
		if _, err := resolveGates(map[string]bool{e.Gate: true}); err == nil {
			t.Errorf("%s: its gate %s can be switched on", e.Name, e.Gate)
		}
	}
}

// Who events are from is looked at by people and by tools: the names are the original's.
func TestSourcesOfEvents(t *testing.T) {
	want := map[string]string{
		"deployment-controller": "deployment-controller", "replicaset-controller": "replicaset-controller", "replicationcontroller-controller": "replication-controller",
		"daemonset-controller": "daemonset-controller", "statefulset-controller": "statefulset-controller", "job-controller": "job-controller",
		"cronjob-controller": "cronjob-controller", "disruption-controller": "controllermanager", "horizontal-pod-autoscaler-controller": "horizontal-pod-autoscaler",
		"persistentvolume-binder-controller": "persistentvolume-controller", "persistentvolume-attach-detach-controller": "attachdetach-controller",
		"persistentvolume-expander-controller": "volume_expand", "ephemeral-volume-controller": "ephemeral_volume", "endpoints-controller": "endpoint-controller",
		"endpointslice-controller": "endpoint-slice-controller", "endpointslice-mirroring-controller": "endpoint-slice-mirroring-controller",
		"service-cidr-controller": "service-cidr-controller", "garbage-collector-controller": "garbage-collector-controller", "node-lifecycle-controller": "node-controller",
		"taint-eviction-controller": "taint-eviction-controller", "device-taint-eviction-controller": "device-taint-eviction-controller",
		"resourceclaim-controller": "resource_claim", "node-ipam-controller": "cidrAllocator",
	}
	for _, e := range entries {
		if source, ok := want[e.Name]; ok && cmp.Or(e.Source, e.Identity) != source {
			t.Errorf("events of %s are from %q, want %q", e.Name, cmp.Or(e.Source, e.Identity), source)
		}
	}
}

// What kubeadm and kind set must be there; what is wrong must name its flag.
func TestFlags(t *testing.T) {
	for _, c := range []struct{ args, err string }{
		{"--allocate-node-cidrs=true --authentication-kubeconfig=/etc/x --authorization-kubeconfig=/etc/x --bind-address=127.0.0.1 " +
			"--client-ca-file=/etc/ca --cluster-cidr=10.244.0.0/16 --cluster-name=k --cluster-signing-cert-file=/etc/ca --cluster-signing-key-file=/etc/key " +
			"--controllers=*,bootstrapsigner,tokencleaner --enable-hostpath-provisioner=true --kubeconfig=/etc/x --leader-elect=true --requestheader-client-ca-file=/etc/ca " +
			"--root-ca-file=/etc/ca --service-account-private-key-file=/etc/key --service-cluster-ip-range=10.96.0.0/16 --use-service-account-credentials=true", ""},
		{"--allocate-node-cidrs", "--cluster-cidr"},
		{"--allocate-node-cidrs --cluster-cidr=10.0.0.0/8 --node-cidr-mask-size=28", "--node-cidr-mask-size"},
		{"--allocate-node-cidrs --cluster-cidr=10.0.0.0/16,10.1.0.0/16", "different IP families"},
		{"--allocate-node-cidrs --cluster-cidr=10.244.0.0/16,fd00:10::/56", ""},
		{"--controllers=foo", "--controllers"},
		{"--cluster-signing-cert-file=/etc/ca", "--cluster-signing-key-file"},
		{"--leader-elect-resource-lock=endpoints", "--leader-elect-resource-lock"},
		{"--max-endpoints-per-slice=0", "--max-endpoints-per-slice"},
		{"--concurrent-job-syncs=0", "--concurrent-job-syncs"},
		{"--concurrent-cron-job-syncs=7", ""},
		{"--feature-gates=AllAlpha=false", ""},
		{"--feature-gates=PodDeletionCost=false,kube:MaxUnavailableStatefulSet=false", ""},
		{"--feature-gates=AllAlpha=true", "cannot set feature gate AllAlpha"},
		{"--feature-gates=NoSuchGate=true", "unrecognized feature gate: NoSuchGate"},
	} {
		o := NewOptions()
		fs := pflag.NewFlagSet("", pflag.ContinueOnError)
		o.AddFlags(fs)
		if err := fs.Parse(strings.Fields(c.args)); err != nil {
			t.Errorf("%s: %v", c.args, err)
			continue
		}
		err := o.Validate()
		if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %v", c.args, err)
		}
	}
}
