package service

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"
	"k8s.io/utils/ptr"

	"github.com/leme-k8s/leme/pkg/api/core"
)

// setFamilies decides which IP families s is to have, and under which policy, on a
// cluster that has the given families, the preferred one first.
func setFamilies(s, old *corev1.Service, cluster []corev1.IPFamily) error {
	if s.Spec.Type == corev1.ServiceTypeExternalName || old != nil && keepsPreferDualStack(s, old) {
		return nil
	}
	spec := &s.Spec
	selectorless := core.Headless(s) && len(spec.Selector) == 0
	if spec.IPFamilyPolicy == nil {
		spec.IPFamilyPolicy = ptr.To(defaultPolicy(old, selectorless))
	}
	single := *spec.IPFamilyPolicy == corev1.IPFamilyPolicySingleStack

	var errs field.ErrorList
	if old != nil {
		errs = append(errs, shrink(s, old, single)...)
	}
	if wrong := core.ValidateServiceAddresses(s, old); len(wrong) > 0 {
		return invalid(s, append(errs, wrong...))
	}
	errs = append(errs, checkPolicy(spec, single)...)
	errs = append(errs, inferFamilies(spec, cluster)...)
	if len(errs) == 0 && !selectorless {
		errs = append(errs, checkCluster(spec, cluster)...)
	}
	if len(errs) > 0 {
		return invalid(s, errs)
	}
	if len(spec.IPFamilies) == 0 {
		spec.IPFamilies = []corev1.IPFamily{cluster[0]}
	}
	// A Service without endpoints of our own making may have addresses that this
	// cluster does not give out.
	if !single && len(spec.IPFamilies) == 1 && (len(cluster) == 2 || selectorless) {
		spec.IPFamilies = append(spec.IPFamilies, other(spec.IPFamilies[0]))
	}
	return nil
}

func defaultPolicy(old *corev1.Service, selectorless bool) corev1.IPFamilyPolicy {
	switch {
	case old != nil && old.Spec.IPFamilyPolicy != nil:
		return *old.Spec.IPFamilyPolicy
	case selectorless:
		return corev1.IPFamilyPolicyRequireDualStack
	}
	return corev1.IPFamilyPolicySingleStack
}

// keepsPreferDualStack reports whether a Service that prefers two families is left
// as it is: it does not gain or lose one because the cluster did.
func keepsPreferDualStack(s, old *corev1.Service) bool {
	prefer := func(p *corev1.IPFamilyPolicy) bool { return ptr.Deref(p, "") == corev1.IPFamilyPolicyPreferDualStack }
	return s.Spec.Type == old.Spec.Type && prefer(s.Spec.IPFamilyPolicy) && prefer(old.Spec.IPFamilyPolicy) &&
		core.SameClusterIPs(s, old) && slices.Equal(s.Spec.IPFamilies, old.Spec.IPFamilies)
}

// shrink gives up the second address when the policy says so, and refuses to do so
// when it does not.
func shrink(s, old *corev1.Service, single bool) field.ErrorList {
	spec, was := &s.Spec, &old.Spec
	if single {
		if core.SameClusterIPs(s, old) && len(spec.ClusterIPs) > 1 {
			spec.ClusterIPs = spec.ClusterIPs[:1]
		}
		if slices.Equal(spec.IPFamilies, was.IPFamilies) && len(spec.IPFamilies) > 1 {
			spec.IPFamilies = spec.IPFamilies[:1]
		}
		return nil
	}
	var errs field.ErrorList
	path := field.NewPath("spec", "ipFamilyPolicy")
	if n := len(spec.ClusterIPs); n > 0 && n < len(was.ClusterIPs) {
		errs = append(errs, field.Invalid(path, spec.IPFamilyPolicy, "must be 'SingleStack' to release the secondary cluster IP"))
	}
	if n := len(spec.IPFamilies); n > 0 && n < len(was.IPFamilies) {
		errs = append(errs, field.Invalid(path, spec.IPFamilyPolicy, "must be 'SingleStack' to release the secondary IP family"))
	}
	return errs
}

func checkPolicy(spec *corev1.ServiceSpec, single bool) field.ErrorList {
	var errs field.ErrorList
	path := field.NewPath("spec", "ipFamilyPolicy")
	if single && len(spec.ClusterIPs) == 2 {
		errs = append(errs, field.Invalid(path, spec.IPFamilyPolicy, "must be 'RequireDualStack' or 'PreferDualStack' when multiple cluster IPs are specified"))
	}
	if single && len(spec.IPFamilies) == 2 {
		errs = append(errs, field.Invalid(path, spec.IPFamilyPolicy, "must be 'RequireDualStack' or 'PreferDualStack' when multiple IP families are specified"))
	}
	return errs
}

// inferFamilies adds the families of the cluster IPs that the client names.
func inferFamilies(spec *corev1.ServiceSpec, cluster []corev1.IPFamily) field.ErrorList {
	var errs field.ErrorList
	for i := len(spec.IPFamilies); i < len(spec.ClusterIPs) && spec.ClusterIPs[0] != corev1.ClusterIPNone; i++ {
		family := familyOf(spec.ClusterIPs[i])
		if !slices.Contains(cluster, family) {
			errs = append(errs, field.Invalid(field.NewPath("spec", "clusterIPs").Index(i), spec.ClusterIPs, fmt.Sprintf("%s is not configured on this cluster", family)))
			continue
		}
		spec.IPFamilies = append(spec.IPFamilies, family)
	}
	return errs
}

// checkCluster refuses what the cluster does not have.
func checkCluster(spec *corev1.ServiceSpec, cluster []corev1.IPFamily) field.ErrorList {
	var errs field.ErrorList
	if *spec.IPFamilyPolicy == corev1.IPFamilyPolicyRequireDualStack && len(cluster) < 2 {
		errs = append(errs, field.Invalid(field.NewPath("spec", "ipFamilyPolicy"), spec.IPFamilyPolicy, "this cluster is not configured for dual-stack services"))
	}
	for i, family := range spec.IPFamilies {
		if !slices.Contains(cluster, family) {
			errs = append(errs, field.Invalid(field.NewPath("spec", "ipFamilies").Index(i), family, "not configured on this cluster"))
		}
	}
	return errs
}

func familyOf(ip string) corev1.IPFamily {
	if netutils.IsIPv6String(ip) {
		return corev1.IPv6Protocol
	}
	return corev1.IPv4Protocol
}

func other(f corev1.IPFamily) corev1.IPFamily {
	if f == corev1.IPv4Protocol {
		return corev1.IPv6Protocol
	}
	return corev1.IPv4Protocol
}

func invalid(s *corev1.Service, errs field.ErrorList) error {
	return apierrors.NewInvalid(corev1.SchemeGroupVersion.WithKind("Service").GroupKind(), s.Name, errs)
}
