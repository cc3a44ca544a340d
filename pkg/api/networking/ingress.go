package networking

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"

	"github.com/leme-k8s/leme/pkg/api/rules"
)

// ingressClassAnnotation named the class of an Ingress before it had a field for it.
const ingressClassAnnotation = "kubernetes.io/ingress.class"

// ValidateIngress says what is wrong with a new Ingress.
func ValidateIngress(i *networkingv1.Ingress) field.ErrorList {
	errs := rules.Namespaced(&i.ObjectMeta, apivalidation.NameIsDNSSubdomain)
	errs = append(errs, validateIngressSpec(&i.Spec, nil)...)
	if class, ok := i.Annotations[ingressClassAnnotation]; ok && i.Spec.IngressClassName != nil && *i.Spec.IngressClassName != class {
		errs = append(errs, field.Invalid(field.NewPath("annotations").Child(ingressClassAnnotation), class, "must match `ingressClassName` when both are specified"))
	}
	return errs
}

// ValidateIngressUpdate says what is wrong with an update of an Ingress.
func ValidateIngressUpdate(i, old *networkingv1.Ingress) field.ErrorList {
	errs := rules.MetaUpdate(&i.ObjectMeta, &old.ObjectMeta)
	return append(errs, validateIngressSpec(&i.Spec, &old.Spec)...)
}

func validateIngressSpec(spec, old *networkingv1.IngressSpec) field.ErrorList {
	var errs field.ErrorList
	if len(spec.Rules) == 0 && spec.DefaultBackend == nil {
		errs = append(errs, field.Invalid(specPath, spec.Rules, "either `defaultBackend` or `rules` must be specified"))
	}
	if spec.DefaultBackend != nil {
		errs = append(errs, validateBackend(spec.DefaultBackend, specPath.Child("defaultBackend"))...)
	}
	errs = append(errs, rules.Each(spec.Rules, specPath.Child("rules"), validateIngressRule)...)
	known := knownSecrets(old)
	for i := range spec.TLS {
		errs = append(errs, validateIngressTLS(&spec.TLS[i], known, specPath.Child("tls").Index(i))...)
	}
	if class := spec.IngressClassName; class != nil {
		errs = append(errs, rules.Messages(specPath.Child("ingressClassName"), *class, apivalidation.NameIsDNSSubdomain(*class, false))...)
	}
	return errs
}

// knownSecrets are the names that are stored already, of which some may be refused today.
func knownSecrets(spec *networkingv1.IngressSpec) map[string]bool {
	known := map[string]bool{}
	if spec != nil {
		for _, tls := range spec.TLS {
			known[tls.SecretName] = true
		}
	}
	return known
}

func validateIngressTLS(tls *networkingv1.IngressTLS, known map[string]bool, p *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, host := range tls.Hosts {
		errs = append(errs, validateHost(host, p.Child("hosts").Index(i))...)
	}
	if tls.SecretName != "" && !known[tls.SecretName] {
		errs = append(errs, rules.Messages(p.Child("secretName"), tls.SecretName, apivalidation.NameIsDNSSubdomain(tls.SecretName, false))...)
	}
	return errs
}

func validateHost(host string, p *field.Path) field.ErrorList {
	if strings.Contains(host, "*") {
		return rules.Messages(p, host, validation.IsWildcardDNS1123Subdomain(host))
	}
	return rules.Messages(p, host, validation.IsDNS1123Subdomain(host))
}

func validateIngressRule(r *networkingv1.IngressRule, p *field.Path) field.ErrorList {
	var errs field.ErrorList
	if r.Host != "" {
		if netutils.ParseIPSloppy(r.Host) != nil {
			errs = append(errs, field.Invalid(p.Child("host"), r.Host, "must be a DNS name, not an IP address"))
		}
		errs = append(errs, validateHost(r.Host, p.Child("host"))...)
	}
	if r.HTTP == nil {
		return errs
	}
	paths := p.Child("http", "paths")
	if len(r.HTTP.Paths) == 0 {
		errs = append(errs, field.Required(paths, ""))
	}
	return append(errs, rules.Each(r.HTTP.Paths, paths, validateHTTPPath)...)
}

func validateHTTPPath(h *networkingv1.HTTPIngressPath, p *field.Path) field.ErrorList {
	if h.PathType == nil {
		return field.ErrorList{field.Required(p.Child("pathType"), "pathType must be specified")}
	}
	errs := validateBackend(&h.Backend, p.Child("backend"))
	path := p.Child("path")
	switch *h.PathType {
	case networkingv1.PathTypeExact, networkingv1.PathTypePrefix:
		if !strings.HasPrefix(h.Path, "/") {
			errs = append(errs, field.Invalid(path, h.Path, "must be an absolute path"))
		}
		for _, sequence := range []string{"//", "/./", "/../", "%2f", "%2F"} {
			if strings.Contains(h.Path, sequence) {
				errs = append(errs, field.Invalid(path, h.Path, "must not contain '"+sequence+"'"))
			}
		}
		for _, suffix := range []string{"/..", "/."} {
			if strings.HasSuffix(h.Path, suffix) {
				errs = append(errs, field.Invalid(path, h.Path, "cannot end with '"+suffix+"'"))
			}
		}
	case networkingv1.PathTypeImplementationSpecific:
		if h.Path != "" && !strings.HasPrefix(h.Path, "/") {
			errs = append(errs, field.Invalid(path, h.Path, "must be an absolute path"))
		}
	default:
		errs = append(errs, rules.OneOf(*h.PathType, p.Child("pathType"),
			networkingv1.PathTypeExact, networkingv1.PathTypeImplementationSpecific, networkingv1.PathTypePrefix)...)
	}
	return errs
}

func validateBackend(b *networkingv1.IngressBackend, p *field.Path) field.ErrorList {
	switch {
	case b.Service != nil && b.Resource != nil:
		return field.ErrorList{field.Invalid(p, "", "cannot set both resource and service backends")}
	case b.Resource != nil:
		return validateResourceBackend(b.Resource, p.Child("resource"))
	case b.Service == nil:
		return field.ErrorList{field.Invalid(p, "", "resource or service backend is required")}
	}
	var errs field.ErrorList
	service := p.Child("service")
	if b.Service.Name == "" {
		errs = append(errs, field.Required(service.Child("name"), ""))
	} else {
		errs = append(errs, rules.Messages(service.Child("name"), b.Service.Name, apivalidation.NameIsDNSLabel(b.Service.Name, false))...)
	}
	port := b.Service.Port
	switch {
	case port.Name != "" && port.Number != 0:
		errs = append(errs, field.Invalid(p, "", "cannot set both port name & port number"))
	case port.Name != "":
		errs = append(errs, rules.Messages(service.Child("port", "name"), port.Name, validation.IsValidPortName(port.Name))...)
	case port.Number != 0:
		errs = append(errs, rules.Messages(service.Child("port", "number"), port.Number, validation.IsValidPortNum(int(port.Number)))...)
	default:
		errs = append(errs, field.Required(p, "port name or number is required"))
	}
	return errs
}

func validateResourceBackend(r *corev1.TypedLocalObjectReference, p *field.Path) field.ErrorList {
	var errs field.ErrorList
	if r.APIGroup != nil {
		errs = append(errs, rules.Messages(p.Child("apiGroup"), *r.APIGroup, validation.IsDNS1123Subdomain(*r.APIGroup))...)
	}
	errs = append(errs, validateSegment(r.Kind, true, p.Child("kind"))...)
	return append(errs, validateSegment(r.Name, true, p.Child("name"))...)
}

// ValidateIngressStatusUpdate says what is wrong with an update of the status of an Ingress.
func ValidateIngressStatusUpdate(i, old *networkingv1.Ingress) field.ErrorList {
	errs := rules.MetaUpdate(&i.ObjectMeta, &old.ObjectMeta)
	// Addresses in a form that is refused today may be stored already.
	var known []string
	for _, ingress := range old.Status.LoadBalancer.Ingress {
		known = append(known, ingress.IP)
	}
	for i, ingress := range i.Status.LoadBalancer.Ingress {
		p := field.NewPath("status", "loadBalancer", "ingress").Index(i)
		if ingress.IP != "" {
			errs = append(errs, validation.IsValidIPForLegacyField(p.Child("ip"), ingress.IP, true, known)...)
		}
		if ingress.Hostname == "" {
			continue
		}
		if netutils.ParseIPSloppy(ingress.Hostname) != nil {
			errs = append(errs, field.Invalid(p.Child("hostname"), ingress.Hostname, "must be a DNS name, not an IP address"))
		}
		errs = append(errs, rules.Messages(p.Child("hostname"), ingress.Hostname, validation.IsDNS1123Subdomain(ingress.Hostname))...)
	}
	return errs
}

const maxControllerName = 250

func setIngressClass(c *networkingv1.IngressClass) {
	if c.Spec.Parameters != nil {
		rules.SetPtr(&c.Spec.Parameters.Scope, networkingv1.IngressClassParametersReferenceScopeCluster)
	}
}

// ValidateIngressClass says what is wrong with a new IngressClass.
func ValidateIngressClass(c *networkingv1.IngressClass) field.ErrorList {
	errs := rules.ClusterScoped(&c.ObjectMeta, apivalidation.NameIsDNSSubdomain)
	p := specPath.Child("controller")
	if c.Spec.Controller == "" {
		errs = append(errs, field.Required(p, ""))
	} else {
		errs = append(errs, validation.IsDomainPrefixedPath(p, c.Spec.Controller)...)
	}
	if len(c.Spec.Controller) > maxControllerName {
		errs = append(errs, field.TooLong(p, "" /*unused*/, maxControllerName))
	}
	return append(errs, validateClassParameters(c.Spec.Parameters, specPath.Child("parameters"))...)
}

// ValidateIngressClassUpdate says what is wrong with an update of an IngressClass.
func ValidateIngressClassUpdate(c, old *networkingv1.IngressClass) field.ErrorList {
	errs := rules.MetaUpdate(&c.ObjectMeta, &old.ObjectMeta)
	errs = append(errs, rules.Immutable(c.Spec.Controller, old.Spec.Controller, specPath.Child("controller"))...)
	return append(errs, ValidateIngressClass(c)...)
}

func validateClassParameters(r *networkingv1.IngressClassParametersReference, p *field.Path) field.ErrorList {
	if r == nil {
		return nil
	}
	var errs field.ErrorList
	if r.APIGroup != nil {
		errs = append(errs, rules.Messages(p.Child("apiGroup"), *r.APIGroup, validation.IsDNS1123Subdomain(*r.APIGroup))...)
	}
	errs = append(errs, validateSegment(r.Kind, true, p.Child("kind"))...)
	errs = append(errs, validateSegment(r.Name, true, p.Child("name"))...)
	if r.Scope == nil {
		return append(errs, field.Required(p.Child("scope"), ""))
	}
	namespace := p.Child("namespace")
	switch *r.Scope {
	case networkingv1.IngressClassParametersReferenceScopeCluster:
		if r.Namespace != nil {
			errs = append(errs, field.Forbidden(namespace, "`parameters.scope` is set to 'Cluster'"))
		}
	case networkingv1.IngressClassParametersReferenceScopeNamespace:
		if r.Namespace == nil {
			errs = append(errs, field.Required(namespace, "`parameters.scope` is set to 'Namespace'"))
		} else {
			errs = append(errs, rules.Messages(namespace, *r.Namespace, apivalidation.ValidateNamespaceName(*r.Namespace, false))...)
		}
	default:
		errs = append(errs, rules.OneOf(*r.Scope, p.Child("scope"),
			networkingv1.IngressClassParametersReferenceScopeCluster, networkingv1.IngressClassParametersReferenceScopeNamespace)...)
	}
	return errs
}
