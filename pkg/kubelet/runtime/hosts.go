package runtime

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
)

const etcHosts = "/etc/hosts"

// HostName is the host name of a pod's containers, and the domain that its fully
// qualified name has (empty if none).
func HostName(pod *v1.Pod, clusterDomain string) (name, domain string, err error) {
	name = pod.Name
	if override := pod.Spec.HostnameOverride; override != nil {
		return *override, "", nil
	}
	if pod.Spec.Hostname != "" {
		name = pod.Spec.Hostname
	}
	// Linux keeps 64 bytes for a host name; a longer pod name is cut as a label may be.
	if len(name) > validation.DNS1123LabelMaxLength {
		name = strings.TrimRight(name[:validation.DNS1123LabelMaxLength], "-.")
	}
	if pod.Spec.Subdomain != "" {
		domain = fmt.Sprintf("%s.%s.svc.%s", pod.Spec.Subdomain, pod.Namespace, clusterDomain)
	}
	return name, domain, nil
}

// kernelHostName is what the kernel shall answer in the pod.
func kernelHostName(pod *v1.Pod, clusterDomain string) (string, error) {
	name, domain, err := HostName(pod, clusterDomain)
	if err != nil || domain == "" || pod.Spec.SetHostnameAsFQDN == nil || !*pod.Spec.SetHostnameAsFQDN {
		return name, err
	}
	const most = 64
	if fqdn := name + "." + domain; len(fqdn) <= most {
		return fqdn, nil
	}
	return "", fmt.Errorf("failed to construct FQDN from pod hostname and cluster domain, FQDN %s.%s is too long (%d characters is the max, %d characters requested)",
		name, domain, most, len(name)+1+len(domain))
}

// hostsFile writes the pod's /etc/hosts below its directory and returns its path.
func hostsFile(dir string, pod *v1.Pod, ips []string, clusterDomain string) (string, error) {
	var b strings.Builder
	if pod.Spec.HostNetwork {
		own, err := os.ReadFile(etcHosts)
		if err != nil {
			return "", fmt.Errorf("reading the node's hosts file: %w", err)
		}
		b.WriteString("# Kubernetes-managed hosts file (host network).\n")
		b.Write(own)
	} else {
		name, domain, err := HostName(pod, clusterDomain)
		if err != nil {
			return "", err
		}
		b.WriteString("# Kubernetes-managed hosts file.\n" +
			"127.0.0.1\tlocalhost\n" +
			"::1\tlocalhost ip6-localhost ip6-loopback\n" +
			"fe00::0\tip6-localnet\n" +
			"fe00::0\tip6-mcastprefix\n" +
			"fe00::1\tip6-allnodes\n" +
			"fe00::2\tip6-allrouters\n")
		for _, ip := range ips {
			if domain != "" {
				fmt.Fprintf(&b, "%s\t%s.%s\t%s\n", ip, name, domain, name)
			} else {
				fmt.Fprintf(&b, "%s\t%s\n", ip, name)
			}
		}
	}
	if len(pod.Spec.HostAliases) > 0 {
		b.WriteString("\n# Entries added by HostAliases.\n")
		for _, alias := range pod.Spec.HostAliases {
			fmt.Fprintf(&b, "%s\t%s\n", alias.IP, strings.Join(alias.Hostnames, "\t"))
		}
	}
	path := filepath.Join(dir, "etc-hosts")
	if old, err := os.ReadFile(path); err == nil && string(old) == b.String() {
		return path, nil
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return "", fmt.Errorf("making the pod's directory: %w", err)
	}
	// Containers bind this very file, so it is written in place.
	if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
		return "", fmt.Errorf("writing the pod's hosts file: %w", err)
	}
	// The umask must not hide it from the pod's users.
	return path, os.Chmod(path, 0o644)
}
