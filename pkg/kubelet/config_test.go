package kubelet

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"
	kubeletconfig "k8s.io/kubelet/config/v1beta1"
)

func options(t *testing.T, file string, args ...string) (*kubeletconfig.KubeletConfiguration, error) {
	t.Helper()
	o := NewOptions()
	fs := pflag.NewFlagSet("kubelet", pflag.ContinueOnError)
	o.AddFlags(fs)
	if file != "" {
		path := filepath.Join(t.TempDir(), "config.yaml")
		if err := os.WriteFile(path, []byte("apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n"+file), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, "--config="+path)
	}
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	return o.Config()
}

func TestConfig(t *testing.T) {
	c, err := options(t, "maxPods: 7\nclusterDNS: [10.96.0.10]\nserializeImagePulls: false\n",
		"--max-pods=9", "--fail-swap-on=false", "--seccomp-default", "--eviction-hard=memory.available<1Gi,nodefs.available<5%",
		"--register-with-taints=a=b:NoSchedule", "--feature-gates=AllAlpha=false", "--node-labels=x=y", "--runtime-cgroups=/system.slice/containerd.service")
	if err != nil {
		t.Fatal(err)
	}
	switch {
	case c.MaxPods != 9:
		t.Errorf("a flag must win over the file: maxPods is %d", c.MaxPods)
	case *c.FailSwapOn || !*c.SeccompDefault || *c.SerializeImagePulls:
		t.Error("booleans are not what they were set to")
	case c.EvictionHard["memory.available"] != "1Gi" || c.EvictionHard["nodefs.available"] != "5%":
		t.Errorf("evictionHard: %v", c.EvictionHard)
	case len(c.RegisterWithTaints) != 1 || c.RegisterWithTaints[0].Value != "b":
		t.Errorf("taints: %v", c.RegisterWithTaints)
	case c.ClusterDNS[0] != "10.96.0.10" || c.Port != 10250 || *c.HealthzPort != 10248 || c.PodLogsDir != "/var/log/pods":
		t.Error("defaults or file are not there")
	}
}

func TestBadConfig(t *testing.T) {
	for name, tc := range map[string]struct {
		file string
		args []string
		want string
	}{
		"unknown field":  {file: "maxPod: 7\n", want: "maxPod"},
		"unknown flag":   {args: []string{"--no-such-flag"}, want: "no-such-flag"},
		"bad number":     {args: []string{"--max-pods=many"}, want: "max-pods"},
		"bad taint":      {args: []string{"--register-with-taints=a=b"}, want: "key=value:effect"},
		"bad DNS":        {file: "clusterDNS: [nowhere]\n", want: "clusterDNS"},
		"not available":  {file: "cpuManagerPolicy: static\n", want: "cpuManagerPolicy"},
		"read-only port": {args: []string{"--read-only-port=10255"}, want: "readOnlyPort"},
		"no cgroup":      {args: []string{"--enforce-node-allocatable=pods,kube-reserved"}, want: "kubeReservedCgroup"},
		"gone":           {args: []string{"--pod-infra-container-image=pause"}, want: "unknown flag"},
		"feature gate":   {file: "featureGates: {AllAlpha: true}\n", want: "featureGates: cannot set feature gate AllAlpha to true"},
		"lonely gate":    {args: []string{"--feature-gates=DRAWorkloadResourceClaims=true"}, want: "depends on features that are disabled: [GenericWorkload]"},
		"unknown gate":   {args: []string{"--feature-gates=A=true"}, want: "unrecognized feature gate: A"},
		"system's logs":  {file: "enableSystemLogQuery: true\n", want: "enableSystemLogQuery"},
		"hairpin":        {file: "hairpinMode: maybe\n", want: "hairpinMode"},
		"bad back-off":   {file: "crashLoopBackOff: {maxContainerRestartPeriod: 1h}\n", want: "crashLoopBackOff.maxContainerRestartPeriod"},
	} {
		if _, err := options(t, tc.file, tc.args...); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want an error about %q", name, err, tc.want)
		}
	}
}

// What kubeadm writes: zeros stand for defaults, and none of it is idle or refused.
const kubeadms = `authentication: {anonymous: {enabled: false}, webhook: {cacheTTL: 0s, enabled: true}, x509: {clientCAFile: /etc/kubernetes/pki/ca.crt}}
authorization: {mode: Webhook, webhook: {cacheAuthorizedTTL: 0s, cacheUnauthorizedTTL: 0s}}
cgroupDriver: systemd
clusterDNS: [10.96.0.10]
clusterDomain: cluster.local
containerRuntimeEndpoint: ""
cpuManagerReconcilePeriod: 0s
crashLoopBackOff: {}
evictionPressureTransitionPeriod: 0s
fileCheckFrequency: 0s
healthzBindAddress: 127.0.0.1
healthzPort: 10248
httpCheckFrequency: 0s
imageMaximumGCAge: 0s
imageMinimumGCAge: 0s
logging: {flushFrequency: 0, options: {json: {infoBufferSize: "0"}, text: {infoBufferSize: "0"}}, verbosity: 0}
memorySwap: {}
nodeStatusReportFrequency: 0s
nodeStatusUpdateFrequency: 0s
rotateCertificates: true
runtimeRequestTimeout: 0s
shutdownGracePeriod: 0s
shutdownGracePeriodCriticalPods: 0s
staticPodPath: /etc/kubernetes/manifests
streamingConnectionIdleTimeout: 0s
syncFrequency: 0s
volumeStatsAggPeriod: 0s
`

func TestWithoutEffect(t *testing.T) {
	for name, tc := range map[string]struct {
		file string
		want string // fields
	}{
		"defaults":  {},
		"kubeadm's": {file: kubeadms},
		"kind's":    {file: "cgroupDriver: cgroupfs\ncgroupRoot: /kubelet\nfailSwapOn: false\nimageGCHighThresholdPercent: 100\nevictionHard: {nodefs.available: 0%}\n"},
		"periods":   {file: "syncFrequency: 2m\nfileCheckFrequency: 1s\n", want: "fileCheckFrequency syncFrequency"},
		"logging":   {file: "logging: {verbosity: 4}\n", want: "logging"},
	} {
		c, err := options(t, tc.file)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := strings.Join(slices.Sorted(maps.Keys(withoutEffect(c))), " "); got != tc.want {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// TestFlagsFit parses every flag of the configuration once, so that none points at a field that cannot be set.
func TestFlagsFit(t *testing.T) {
	for _, f := range configFlags {
		field := f.field(&kubeletconfig.KubeletConfiguration{})
		err := parseInto(field, "1")
		if err != nil && strings.Contains(err.Error(), "no flag can set") {
			t.Errorf("--%s: %v", f.name, err)
		}
	}
}
