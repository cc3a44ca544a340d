package networking

import (
	"net"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"

	"github.com/leme-k8s/leme/pkg/api/rules"
)

func setNetworkPolicy(n *networkingv1.NetworkPolicy) {
	if len(n.Spec.PolicyTypes) == 0 {
		n.Spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}
		if len(n.Spec.Egress) > 0 {
			n.Spec.PolicyTypes = append(n.Spec.PolicyTypes, networkingv1.PolicyTypeEgress)
		}
	}
	for i := range n.Spec.Ingress {
		setPorts(n.Spec.Ingress[i].Ports)
	}
	for i := range n.Spec.Egress {
		setPorts(n.Spec.Egress[i].Ports)
	}
}

func setPorts(ports []networkingv1.NetworkPolicyPort) {
	for i := range ports {
		rules.SetPtr(&ports[i].Protocol, corev1.ProtocolTCP)
	}
}

// policyRules checks the rules of a policy. What is stored already in a form that
// is refused today stays valid.
type policyRules struct {
	selector metavalidation.LabelSelectorValidationOptions
	cidrs    []string
}

// ValidateNetworkPolicy says what is wrong with a new NetworkPolicy.
func ValidateNetworkPolicy(n *networkingv1.NetworkPolicy) field.ErrorList {
	errs := rules.Namespaced(&n.ObjectMeta, apivalidation.NameIsDNSSubdomain)
	return append(errs, policyRules{}.validate(&n.Spec)...)
}

// ValidateNetworkPolicyUpdate says what is wrong with an update of a NetworkPolicy.
func ValidateNetworkPolicyUpdate(n, old *networkingv1.NetworkPolicy) field.ErrorList {
	errs := rules.MetaUpdate(&n.ObjectMeta, &old.ObjectMeta)
	return append(errs, knownRules(&old.Spec).validate(&n.Spec)...)
}

func knownRules(spec *networkingv1.NetworkPolicySpec) policyRules {
	var known policyRules
	selector := func(s *metav1.LabelSelector) {
		if s != nil && metavalidation.LabelSelectorHasInvalidLabelValue(s) {
			known.selector.AllowInvalidLabelValueInSelector = true
		}
	}
	selector(&spec.PodSelector)
	peers := func(peers []networkingv1.NetworkPolicyPeer) {
		for _, peer := range peers {
			selector(peer.PodSelector)
			selector(peer.NamespaceSelector)
			if peer.IPBlock != nil {
				known.cidrs = append(append(known.cidrs, peer.IPBlock.CIDR), peer.IPBlock.Except...)
			}
		}
	}
	for _, r := range spec.Ingress {
		peers(r.From)
	}
	for _, r := range spec.Egress {
		peers(r.To)
	}
	return known
}

func (k policyRules) validate(spec *networkingv1.NetworkPolicySpec) field.ErrorList {
	errs := metavalidation.ValidateLabelSelector(&spec.PodSelector, k.selector, specPath.Child("podSelector"))
	for i, r := range spec.Ingress {
		p := specPath.Child("ingress").Index(i)
		errs = append(errs, rules.Each(r.Ports, p.Child("ports"), validatePolicyPort)...)
		errs = append(errs, rules.Each(r.From, p.Child("from"), k.validatePeer)...)
	}
	for i, r := range spec.Egress {
		p := specPath.Child("egress").Index(i)
		errs = append(errs, rules.Each(r.Ports, p.Child("ports"), validatePolicyPort)...)
		errs = append(errs, rules.Each(r.To, p.Child("to"), k.validatePeer)...)
	}
	types := specPath.Child("policyTypes")
	if len(spec.PolicyTypes) > 2 {
		return append(errs, field.Invalid(types, spec.PolicyTypes, "may not specify more than two policyTypes"))
	}
	for i, t := range spec.PolicyTypes {
		errs = append(errs, rules.OneOf(t, types.Index(i), networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress)...)
	}
	return errs
}

func validatePolicyPort(port *networkingv1.NetworkPolicyPort, p *field.Path) field.ErrorList {
	var errs field.ErrorList
	if port.Protocol != nil {
		errs = append(errs, rules.OneOf(*port.Protocol, p.Child("protocol"), corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP)...)
	}
	end := p.Child("endPort")
	switch {
	case port.Port == nil:
		if port.EndPort != nil {
			errs = append(errs, field.Invalid(end, *port.EndPort, "may not be specified when `port` is not specified"))
		}
	case port.Port.Type == intstr.String:
		if port.EndPort != nil {
			errs = append(errs, field.Invalid(end, *port.EndPort, "may not be specified when `port` is non-numeric"))
		}
		errs = append(errs, rules.Messages(p.Child("port"), port.Port.StrVal, validation.IsValidPortName(port.Port.StrVal))...)
	default:
		errs = append(errs, rules.Messages(p.Child("port"), port.Port.IntVal, validation.IsValidPortNum(int(port.Port.IntVal)))...)
		if port.EndPort != nil {
			if *port.EndPort < port.Port.IntVal {
				errs = append(errs, field.Invalid(end, *port.EndPort, "must be greater than or equal to `port`"))
			}
			errs = append(errs, rules.Messages(end, *port.EndPort, validation.IsValidPortNum(int(*port.EndPort)))...)
		}
	}
	return errs
}

func (k policyRules) validatePeer(peer *networkingv1.NetworkPolicyPeer, p *field.Path) field.ErrorList {
	var errs field.ErrorList
	selects := peer.PodSelector != nil || peer.NamespaceSelector != nil
	if peer.PodSelector != nil {
		errs = append(errs, metavalidation.ValidateLabelSelector(peer.PodSelector, k.selector, p.Child("podSelector"))...)
	}
	if peer.NamespaceSelector != nil {
		errs = append(errs, metavalidation.ValidateLabelSelector(peer.NamespaceSelector, k.selector, p.Child("namespaceSelector"))...)
	}
	if peer.IPBlock != nil {
		errs = append(errs, k.validateIPBlock(peer.IPBlock, p.Child("ipBlock"))...)
	}
	switch {
	case !selects && peer.IPBlock == nil:
		errs = append(errs, field.Required(p, "must specify a peer"))
	case selects && peer.IPBlock != nil:
		errs = append(errs, field.Forbidden(p, "may not specify both ipBlock and another peer"))
	}
	return errs
}

func (k policyRules) validateIPBlock(b *networkingv1.IPBlock, p *field.Path) field.ErrorList {
	if b.CIDR == "" {
		return field.ErrorList{field.Required(p.Child("cidr"), "")}
	}
	errs := validation.IsValidCIDRForLegacyField(p.Child("cidr"), b.CIDR, true, k.cidrs)
	_, block, err := netutils.ParseCIDRSloppy(b.CIDR)
	if err != nil {
		return errs
	}
	for i, except := range b.Except {
		e := p.Child("except").Index(i)
		errs = append(errs, validation.IsValidCIDRForLegacyField(e, except, true, k.cidrs)...)
		if _, hole, err := netutils.ParseCIDRSloppy(except); err == nil && !strictlyContains(block, hole) {
			errs = append(errs, field.Invalid(e, except, "must be a strict subset of `cidr`"))
		}
	}
	return errs
}

func strictlyContains(block, hole *net.IPNet) bool {
	bits, _ := block.Mask.Size()
	holeBits, _ := hole.Mask.Size()
	return block.Contains(hole.IP) && bits < holeBits
}

// WarningsNetworkPolicy are what the author of a NetworkPolicy should know. old is nil on creation.
func WarningsNetworkPolicy(n, _ *networkingv1.NetworkPolicy) []string {
	var warnings []string
	peers := func(peers []networkingv1.NetworkPolicyPeer, p *field.Path) {
		for i, peer := range peers {
			if peer.IPBlock == nil {
				continue
			}
			block := p.Index(i).Child("ipBlock")
			warnings = append(warnings, validation.GetWarningsForCIDR(block.Child("cidr"), peer.IPBlock.CIDR)...)
			for j, except := range peer.IPBlock.Except {
				warnings = append(warnings, validation.GetWarningsForCIDR(block.Child("except").Index(j), except)...)
			}
		}
	}
	for i, r := range n.Spec.Ingress {
		peers(r.From, specPath.Child("ingress").Index(i).Child("from"))
	}
	for i, r := range n.Spec.Egress {
		peers(r.To, specPath.Child("egress").Index(i).Child("to"))
	}
	return warnings
}
