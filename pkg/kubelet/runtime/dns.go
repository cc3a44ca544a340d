package runtime

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// The limits of a resolv.conf that every C library accepts.
const (
	maxNameservers  = 3
	maxSearches     = 32
	maxSearchLength = 2048
)

// DNS is how the node resolves names and how the cluster does.
type DNS struct {
	ClusterDNS    []string
	ClusterDomain string
	// ResolvConf is the path of the node's file; empty to give pods nothing of it.
	ResolvConf string
}

// Config is the resolver configuration of a pod. A non-empty warning tells what had
// to be left out of it.
func (d DNS) Config(pod *v1.Pod) (config *runtimeapi.DNSConfig, warning string, err error) {
	host, err := parseResolvConf(d.ResolvConf)
	if err != nil {
		return nil, "", err
	}
	policy := pod.Spec.DNSPolicy
	if policy == v1.DNSClusterFirst && pod.Spec.HostNetwork {
		policy = v1.DNSDefault
	}
	if policy == v1.DNSClusterFirstWithHostNet {
		policy = v1.DNSClusterFirst
	}
	switch policy {
	case v1.DNSNone:
		config = &runtimeapi.DNSConfig{}
	case v1.DNSClusterFirst, "":
		if len(d.ClusterDNS) == 0 {
			warning = fmt.Sprintf("kubelet does not have ClusterDNS IP configured and cannot create Pod using %q policy. Falling back to %q policy.", v1.DNSClusterFirst, v1.DNSDefault)
			config = host
			break
		}
		config = &runtimeapi.DNSConfig{Servers: d.ClusterDNS, Options: []string{"ndots:5"}}
		if d.ClusterDomain != "" {
			config.Searches = []string{pod.Namespace + ".svc." + d.ClusterDomain, "svc." + d.ClusterDomain, d.ClusterDomain}
		}
		config.Searches = unique(append(config.Searches, host.Searches...))
	case v1.DNSDefault:
		config = host
		// A pod with an empty list of servers would ask localhost.
		if d.ResolvConf == "" {
			config = &runtimeapi.DNSConfig{Servers: []string{"127.0.0.1"}, Searches: []string{"."}}
		}
	default:
		return nil, "", fmt.Errorf("invalid DNSPolicy=%v", pod.Spec.DNSPolicy)
	}
	if extra := pod.Spec.DNSConfig; extra != nil {
		config = &runtimeapi.DNSConfig{
			Servers:  unique(append(slices.Clone(config.Servers), extra.Nameservers...)),
			Searches: unique(append(slices.Clone(config.Searches), extra.Searches...)),
			Options:  mergeOptions(config.Options, extra.Options),
		}
	}
	if limited := limit(config); limited != "" {
		warning = limited
	}
	return config, warning, nil
}

func limit(c *runtimeapi.DNSConfig) (warning string) {
	if len(c.Servers) > maxNameservers {
		c.Servers = c.Servers[:maxNameservers]
		warning = "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: " + strings.Join(c.Servers, " ")
	}
	kept, length := 0, 0
	for kept < len(c.Searches) && kept < maxSearches {
		if length += len(c.Searches[kept]) + 1; length-1 > maxSearchLength {
			break
		}
		kept++
	}
	if kept < len(c.Searches) {
		c.Searches = c.Searches[:kept]
		warning = "Search Line limits were exceeded, some search paths have been omitted, the applied search line is: " + strings.Join(c.Searches, " ")
	}
	return warning
}

// mergeOptions lets a pod's options replace those of the same name.
func mergeOptions(have []string, extra []v1.PodDNSConfigOption) []string {
	out := slices.Clone(have)
	for _, o := range extra {
		option := o.Name
		if o.Value != nil {
			option += ":" + *o.Value
		}
		if i := slices.IndexFunc(out, func(s string) bool { name, _, _ := strings.Cut(s, ":"); return name == o.Name }); i >= 0 {
			out[i] = option
		} else {
			out = append(out, option)
		}
	}
	return out
}

func unique(in []string) []string {
	out := make([]string, 0, len(in))
	for _, s := range in {
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

func parseResolvConf(path string) (*runtimeapi.DNSConfig, error) {
	config := &runtimeapi.DNSConfig{}
	if path == "" {
		return config, nil
	}
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return config, nil
	}
	if err != nil {
		return nil, fmt.Errorf("resolvConf: %w", err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		line := lines.Text()
		if i := strings.IndexAny(line, "#;"); i >= 0 {
			line = line[:i]
		}
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		switch fields[0] {
		case "nameserver":
			if len(fields) > 1 {
				config.Servers = append(config.Servers, fields[1])
			}
		case "search":
			config.Searches = nil
			for _, s := range fields[1:] {
				if s != "." {
					s = strings.TrimSuffix(s, ".")
				}
				config.Searches = append(config.Searches, s)
			}
		case "options":
			config.Options = unique(append(config.Options, fields[1:]...))
		}
	}
	return config, lines.Err()
}
