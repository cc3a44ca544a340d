package proxy

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/klog/v2"
	configv1alpha1 "k8s.io/kube-proxy/config/v1alpha1"
)

// sysctl is a kernel setting that the proxy wants; atLeast leaves a higher value alone.
type sysctl struct {
	name    string
	value   int
	atLeast bool
}

// conntrackSysctls are the settings of connection tracking that a configuration asks
// for. Zero leaves a setting as it is.
func conntrackSysctls(c *configv1alpha1.KubeProxyConntrackConfiguration, cores int) []sysctl {
	var out []sysctl
	if highest := max(int(*c.MaxPerCore)*cores, int(*c.Min)); *c.MaxPerCore > 0 {
		out = append(out, sysctl{"nf_conntrack_max", highest, true})
	}
	timeout := func(name string, d *metav1.Duration) {
		if d != nil && d.Duration > 0 {
			out = append(out, sysctl{name, int(d.Duration / time.Second), false})
		}
	}
	timeout("nf_conntrack_tcp_timeout_established", c.TCPEstablishedTimeout)
	timeout("nf_conntrack_tcp_timeout_close_wait", c.TCPCloseWaitTimeout)
	timeout("nf_conntrack_udp_timeout", &c.UDPTimeout)
	timeout("nf_conntrack_udp_timeout_stream", &c.UDPStreamTimeout)
	if c.TCPBeLiberal {
		out = append(out, sysctl{"nf_conntrack_tcp_be_liberal", 1, false})
	}
	return out
}

// setConntrack writes the settings. In a network namespace of its own a proxy may not
// change them; the host's then hold, and that is logged once.
func setConntrack(ctx context.Context, c *configv1alpha1.KubeProxyConntrackConfiguration) {
	for _, s := range conntrackSysctls(c, runtime.NumCPU()) {
		path := filepath.Join("/proc/sys/net/netfilter", s.name)
		data, err := os.ReadFile(path)
		if err == nil {
			now, convErr := strconv.Atoi(strings.TrimSpace(string(data)))
			if convErr == nil && (now == s.value || s.atLeast && now > s.value) {
				continue
			}
			err = os.WriteFile(path, []byte(strconv.Itoa(s.value)), 0o644)
		}
		if err != nil {
			klog.FromContext(ctx).Info("Leaving a kernel setting as it is", "sysctl", s.name, "wanted", s.value, "reason", err)
		}
	}
}
