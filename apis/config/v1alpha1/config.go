package v1alpha1

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/validation"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

// Components are the names that Cluster.Components may use.
var Components = []string{"kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy"}

// MaxNodes is how many nodes a cluster on one machine has at most.
const MaxNodes = 100

// Parse reads the file's content: strictly, so that a misspelt field is an error
// and not a default. It neither defaults nor validates.
func Parse(data []byte) (*Cluster, error) {
	var c Cluster
	asJSON, err := yaml.YAMLToJSONStrict(data)
	if err != nil {
		return nil, err
	}
	strict, err := json.UnmarshalStrict(asJSON, &c)
	if err := errors.Join(append(strict, err)...); err != nil {
		return nil, err
	}
	if c.APIVersion != GroupVersion || c.Kind != Kind {
		return nil, fmt.Errorf("want apiVersion: %s and kind: %s, found %q and %q", GroupVersion, Kind, c.APIVersion, c.Kind)
	}
	return &c, nil
}

// Default fills in what does not depend on what is free on the machine.
func (c *Cluster) Default() error {
	c.APIVersion, c.Kind = GroupVersion, Kind
	setDefault(&c.Name, "leme")
	setDefault(&c.DataDir, "/var/lib/leme")
	setDefault(&c.Networking.DNSDomain, "cluster.local")
	if c.Node.Name == "" {
		host, err := os.Hostname()
		if err != nil {
			return fmt.Errorf("node.name: reading the host's name: %w", err)
		}
		c.Node.Name = strings.ToLower(strings.TrimSpace(host))
	}
	for _, p := range []*string{&c.DataDir, &c.RuntimeDir, &c.ImagesDir} {
		if *p == "" {
			continue
		}
		abs, err := filepath.Abs(*p)
		if err != nil {
			return err
		}
		*p = abs
	}
	return nil
}

func setDefault(s *string, value string) {
	if *s == "" {
		*s = value
	}
}

// maxDataDir keeps the paths of unix sockets below the data directory within the
// kernel's 108 bytes: the longest are <dataDir>/run/s/ and 64 digits.
const maxDataDir = 35

// Validate reports every field that is wrong.
func (c *Cluster) Validate() error {
	var errs field.ErrorList
	for _, msg := range utilvalidation.IsDNS1123Label(c.Name) {
		errs = append(errs, field.Invalid(field.NewPath("name"), c.Name, msg))
	}
	switch {
	case len(c.DataDir) > maxDataDir:
		errs = append(errs, field.Invalid(field.NewPath("dataDir"), c.DataDir, fmt.Sprintf("must have at most %d characters, for the paths of the sockets in it", maxDataDir)))
	case strings.ContainsAny(c.DataDir, " \t\n\"':,"):
		errs = append(errs, field.Invalid(field.NewPath("dataDir"), c.DataDir, "must not contain spaces, quotes, colons or commas"))
	case c.DataDir == "/":
		errs = append(errs, field.Invalid(field.NewPath("dataDir"), c.DataDir, "must be a directory of the cluster's own"))
	}
	errs = append(errs, c.Networking.validate(field.NewPath("networking"))...)
	errs = append(errs, c.Etcd.validate(field.NewPath("etcd"))...)
	for name, component := range c.Components {
		path := field.NewPath("components").Key(name)
		if !slices.Contains(Components, name) {
			errs = append(errs, field.NotSupported(path, name, Components))
		}
		for i, a := range component.ExtraArgs {
			if a.Name == "" || strings.HasPrefix(a.Name, "-") || strings.Contains(a.Name, "=") {
				errs = append(errs, field.Invalid(path.Child("extraArgs").Index(i).Child("name"), a.Name, "must be a flag's name without dashes and value"))
			}
		}
	}
	errs = append(errs, c.Node.validate(field.NewPath("node"))...)
	if c.Nodes < 0 || c.Nodes > MaxNodes {
		errs = append(errs, field.Invalid(field.NewPath("nodes"), c.Nodes, fmt.Sprintf("must be from 1 to %d", MaxNodes)))
	}
	return errs.ToAggregate()
}

func (n *Networking) validate(path *field.Path) field.ErrorList {
	var errs field.ErrorList
	pods, podErrs := prefix(path.Child("podCIDR"), n.PodCIDR, 24)
	services, serviceErrs := prefix(path.Child("serviceCIDR"), n.ServiceCIDR, 28)
	errs = append(append(errs, podErrs...), serviceErrs...)
	if pods.IsValid() && services.IsValid() && pods.Overlaps(services) {
		errs = append(errs, field.Invalid(path.Child("serviceCIDR"), n.ServiceCIDR, "overlaps with podCIDR"))
	}
	nodes, nodeErrs := prefix(path.Child("nodeCIDR"), n.NodeCIDR, 28)
	errs = append(errs, nodeErrs...)
	for _, other := range []netip.Prefix{pods, services} {
		if nodes.IsValid() && other.IsValid() && nodes.Overlaps(other) {
			errs = append(errs, field.Invalid(path.Child("nodeCIDR"), n.NodeCIDR, fmt.Sprintf("overlaps with %s", other)))
		}
	}
	for _, msg := range utilvalidation.IsDNS1123Subdomain(n.DNSDomain) {
		errs = append(errs, field.Invalid(path.Child("dnsDomain"), n.DNSDomain, msg))
	}
	if n.APIServerPort != 0 {
		for _, msg := range utilvalidation.IsValidPortNum(n.APIServerPort) {
			errs = append(errs, field.Invalid(path.Child("apiServerPort"), n.APIServerPort, msg))
		}
	}
	if ip := net.ParseIP(n.NodeIP); n.NodeIP != "" && (ip.To4() == nil || ip.IsLoopback() || ip.IsUnspecified()) {
		errs = append(errs, field.Invalid(path.Child("nodeIP"), n.NodeIP, "must be an IPv4 address of this machine, and not of its loopback"))
	}
	return errs
}

// prefix parses an IPv4 range of at least the size of bits; an empty one is valid.
func prefix(path *field.Path, value string, bits int) (netip.Prefix, field.ErrorList) {
	if value == "" {
		return netip.Prefix{}, nil
	}
	p, err := netip.ParsePrefix(value)
	switch {
	case err != nil:
		return netip.Prefix{}, field.ErrorList{field.Invalid(path, value, "must be a range such as 10.96.0.0/16")}
	case !p.Addr().Is4():
		return netip.Prefix{}, field.ErrorList{field.Invalid(path, value, "must be a range of IPv4 addresses")}
	case p != p.Masked():
		return netip.Prefix{}, field.ErrorList{field.Invalid(path, value, fmt.Sprintf("must begin with its first address: %s", p.Masked()))}
	case p.Bits() > bits || p.Bits() < 8:
		return netip.Prefix{}, field.ErrorList{field.Invalid(path, value, fmt.Sprintf("must have a prefix length from 8 to %d", bits))}
	}
	return p, nil
}

func (e *Etcd) validate(path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, s := range e.Servers {
		if u, err := url.Parse(s); err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
			errs = append(errs, field.Invalid(path.Child("servers").Index(i), s, "must be a URL such as https://10.0.0.1:2379"))
		}
	}
	if len(e.Servers) == 0 && e.CAFile+e.CertFile+e.KeyFile != "" {
		errs = append(errs, field.Required(path.Child("servers"), "caFile, certFile and keyFile are for etcd servers that run already"))
	}
	if (e.CertFile == "") != (e.KeyFile == "") {
		errs = append(errs, field.Required(path.Child("keyFile"), "certFile and keyFile go together"))
	}
	return errs
}

func (n *Node) validate(path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for _, msg := range validation.NameIsDNSSubdomain(n.Name, false) {
		errs = append(errs, field.Invalid(path.Child("name"), n.Name, msg))
	}
	errs = append(errs, metav1validation.ValidateLabels(n.Labels, path.Child("labels"))...)
	effects := []corev1.TaintEffect{corev1.TaintEffectNoSchedule, corev1.TaintEffectPreferNoSchedule, corev1.TaintEffectNoExecute}
	for i, t := range n.Taints {
		p := path.Child("taints").Index(i)
		errs = append(errs, metav1validation.ValidateLabelName(t.Key, p.Child("key"))...)
		if !slices.Contains(effects, t.Effect) {
			errs = append(errs, field.NotSupported(p.Child("effect"), t.Effect, effects))
		}
	}
	return errs
}
