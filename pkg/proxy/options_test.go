package proxy

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestConfigurationFile(t *testing.T) {
	for name, c := range map[string]struct {
		file string
		err  string
		idle string // fields without effect
	}{
		"kubeadm's": {file: `bindAddress: 0.0.0.0
bindAddressHardFail: false
clientConnection: {acceptContentTypes: "", burst: 0, contentType: "", kubeconfig: /var/lib/kube-proxy/kubeconfig.conf, qps: 0}
clusterCIDR: 10.244.0.0/16
configSyncPeriod: 0s
conntrack: {maxPerCore: null, min: null, tcpBeLiberal: false, tcpCloseWaitTimeout: null, tcpEstablishedTimeout: null, udpStreamTimeout: 0s, udpTimeout: 0s}
detectLocal: {bridgeInterface: "", interfaceNamePrefix: ""}
detectLocalMode: ""
enableProfiling: false
healthzBindAddress: ""
hostnameOverride: ""
iptables: {localhostNodePorts: null, masqueradeAll: false, masqueradeBit: null, minSyncPeriod: 0s, syncPeriod: 0s}
ipvs: {excludeCIDRs: null, minSyncPeriod: 0s, scheduler: "", strictARP: false, syncPeriod: 0s, tcpFinTimeout: 0s, tcpTimeout: 0s, udpTimeout: 0s}
logging: {flushFrequency: 0, options: {json: {infoBufferSize: "0"}, text: {infoBufferSize: "0"}}, verbosity: 0}
metricsBindAddress: ""
mode: ""
nftables: {masqueradeAll: false, masqueradeBit: null, minSyncPeriod: 0s, syncPeriod: 0s}
nodePortAddresses: null
oomScoreAdj: null
portRange: ""
showHiddenMetricsForVersion: ""
winkernel: {enableDSR: false, forwardHealthCheckVip: false, networkName: "", rootHnsEndpointName: "", sourceVip: ""}
`},
		"intervals":      {file: "configSyncPeriod: 1m\nnftables: {syncPeriod: 1m}\n", idle: "configSyncPeriod nftables.syncPeriod"},
		"one family":     {file: "bindAddress: 192.0.2.1\n", idle: "bindAddress"},
		"logging":        {file: "logging: {format: json}\n", idle: "logging"},
		"another mode":   {file: "mode: ipvs\n", err: "mode: Unsupported value"},
		"no address":     {file: "bindAddress: here\n", err: "bindAddress: Invalid value"},
		"hidden metrics": {file: "showHiddenMetricsForVersion: \"1.36\"\n", err: "showHiddenMetricsForVersion: Forbidden"},
		"score":          {file: "oomScoreAdj: 2000\n", err: "oomScoreAdj: Invalid value"},
		"a gate":         {file: "featureGates: {AllBeta: true}\n", err: "featureGates: Invalid value"},
		"a gate heeded":  {file: "featureGates: {NativeHistograms: false}\n"},
		"unknown field":  {file: "modes: nftables\n", err: "modes"},
	} {
		path := filepath.Join(t.TempDir(), "config.yaml")
		if err := os.WriteFile(path, []byte("apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n"+c.file), 0o600); err != nil {
			t.Fatal(err)
		}
		config, err := loadConfig(path)
		if err == nil {
			err = validate(config).ToAggregate()
		}
		if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil {
			continue
		}
		if got := strings.Join(slices.Sorted(maps.Keys(withoutEffect(config))), " "); got != c.idle {
			t.Errorf("%s: %q", name, got)
		}
	}
}
