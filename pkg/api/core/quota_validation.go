package core

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

var (
	podScoped = sets.New(
		corev1.ResourcePods, corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceRequestsCPU, corev1.ResourceRequestsMemory,
		corev1.ResourceLimitsCPU, corev1.ResourceLimitsMemory,
	)
	// scopedResources are what a quota can limit within each scope.
	scopedResources = map[corev1.ResourceQuotaScope]sets.Set[corev1.ResourceName]{
		corev1.ResourceQuotaScopeTerminating:               podScoped,
		corev1.ResourceQuotaScopeNotTerminating:            podScoped,
		corev1.ResourceQuotaScopeBestEffort:                sets.New(corev1.ResourcePods),
		corev1.ResourceQuotaScopeNotBestEffort:             podScoped,
		corev1.ResourceQuotaScopePriorityClass:             podScoped,
		corev1.ResourceQuotaScopeCrossNamespacePodAffinity: podScoped,
		corev1.ResourceQuotaScopeVolumeAttributesClass:     sets.New(corev1.ResourcePersistentVolumeClaims, corev1.ResourceRequestsStorage),
	}
	conflictingScopes = [][2]corev1.ResourceQuotaScope{
		{corev1.ResourceQuotaScopeBestEffort, corev1.ResourceQuotaScopeNotBestEffort},
		{corev1.ResourceQuotaScopeTerminating, corev1.ResourceQuotaScopeNotTerminating},
	}
)

func isQuotaResource(n corev1.ResourceName) bool {
	return quotaResources.Has(n) || isHugePages(n) || strings.HasPrefix(string(n), corev1.ResourceRequestsHugePagesPrefix)
}

// ValidateResourceQuota says what is wrong with a new ResourceQuota.
func ValidateResourceQuota(quota *corev1.ResourceQuota) field.ErrorList {
	var r report
	r.objectMeta(quota, true, apivalidation.NameIsDNSSubdomain, metaPath)
	r.quotaSpec(&quota.Spec)
	return r.errs
}

func (r *report) quotaSpec(spec *corev1.ResourceQuotaSpec) {
	r.quotaAmounts(spec.Hard, specPath.Child("hard"))
	r.scopes(spec.Scopes, spec.Scopes, spec.Hard, false, specPath.Child("scopes"))
	r.scopeSelector(spec.ScopeSelector, spec.Hard, specPath.Child("scopeSelector", "matchExpressions"))
}

// ValidateResourceQuotaUpdate says what is wrong with an update of a ResourceQuota,
// whose scopes are fixed.
func ValidateResourceQuotaUpdate(quota, old *corev1.ResourceQuota) field.ErrorList {
	var r report
	r.objectMetaUpdate(quota, old, metaPath)
	r.quotaSpec(&quota.Spec)
	r.invalidIf(!sets.New(quota.Spec.Scopes...).Equal(sets.New(old.Spec.Scopes...)), specPath.Child("scopes"), quota.Spec.Scopes, apivalidation.FieldImmutableErrorMsg)
	return r.errs
}

// ValidateResourceQuotaStatusUpdate says what is wrong with an update of the
// status of a ResourceQuota.
func ValidateResourceQuotaStatusUpdate(quota, old *corev1.ResourceQuota) field.ErrorList {
	var r report
	r.objectMetaUpdate(quota, old, metaPath)
	p := field.NewPath("status")
	r.requireIf(quota.ResourceVersion == "", metaPath.Child("resourceVersion"), "")
	r.quotaAmounts(quota.Status.Hard, p.Child("hard"))
	r.quotaAmounts(quota.Status.Used, p.Child("used"))
	return r.errs
}

func (r *report) quotaAmounts(list corev1.ResourceList, p *field.Path) {
	for n, q := range ordered(list) {
		at := p.Key(string(n))
		r.resourceName(n, at)
		r.invalidIf(!strings.Contains(string(n), "/") && !isQuotaResource(n), at, n, "must be a standard resource for quota")
		r.quantity(n, q, at)
	}
}

// scopes validates scopes, written as shown, of a quota on the resources in hard.
func (r *report) scopes(scopes []corev1.ResourceQuotaScope, shown any, hard corev1.ResourceList, inSelector bool, p *field.Path) {
	if len(scopes) == 0 {
		return
	}
	set := sets.New(scopes...)
	for _, scope := range scopes {
		allowed, known := scopedResources[scope]
		if !known {
			if inSelector {
				r.invalid(p.Child("scopeName"), scope, "unsupported scope")
			} else {
				r.invalid(p, shown, "unsupported scope")
			}
		}
		for n := range ordered(hard) {
			r.invalidIf(known && isQuotaResource(n) && !allowed.Has(n), p, shown, "unsupported scope applied to resource")
		}
	}
	for _, pair := range conflictingScopes {
		r.invalidIf(set.HasAll(pair[0], pair[1]), p, shown, "conflicting scopes")
	}
}

func (r *report) scopeSelector(s *corev1.ScopeSelector, hard corev1.ResourceList, p *field.Path) {
	if s == nil {
		return
	}
	var scopes []corev1.ResourceQuotaScope
	for _, e := range s.MatchExpressions {
		scopes = append(scopes, e.ScopeName)
		switch e.ScopeName {
		case corev1.ResourceQuotaScopePriorityClass, corev1.ResourceQuotaScopeVolumeAttributesClass:
		case corev1.ResourceQuotaScopeTerminating, corev1.ResourceQuotaScopeNotTerminating, corev1.ResourceQuotaScopeBestEffort,
			corev1.ResourceQuotaScopeNotBestEffort, corev1.ResourceQuotaScopeCrossNamespacePodAffinity:
			r.invalidIf(e.Operator != corev1.ScopeSelectorOpExists, p.Child("operator"), e.Operator,
				"must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, "+
					"ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity")
		}
		switch e.Operator {
		case corev1.ScopeSelectorOpIn, corev1.ScopeSelectorOpNotIn:
			r.requireIf(len(e.Values) == 0, p.Child("values"), "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector")
		case corev1.ScopeSelectorOpExists, corev1.ScopeSelectorOpDoesNotExist:
			r.invalidIf(len(e.Values) > 0, p.Child("values"), e.Values, "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector")
		default:
			r.invalid(p.Child("operator"), e.Operator, "not a valid selector operator")
		}
	}
	r.scopes(scopes, goNames{s}, hard, true, p)
}

var limitTypes = []corev1.LimitType{corev1.LimitTypePod, corev1.LimitTypeContainer, corev1.LimitTypePersistentVolumeClaim}

// ValidateLimitRange says what is wrong with a new LimitRange.
func ValidateLimitRange(lr *corev1.LimitRange) field.ErrorList {
	var r report
	r.objectMeta(lr, true, apivalidation.NameIsDNSSubdomain, metaPath)
	seen := duplicates[corev1.LimitType]{}
	for i := range lr.Spec.Limits {
		item, p := &lr.Spec.Limits[i], specPath.Child("limits").Index(i)
		if r.invalid(p.Child("type"), item.Type, validation.IsQualifiedName(string(item.Type))...) && !isQualified(string(item.Type)) {
			r.invalidIf(!slices.Contains(limitTypes, item.Type), p.Child("type"), item.Type, "must be a standard limit type or fully qualified")
		}
		seen.check(&r, item.Type, p.Child("type"))
		r.limitItem(item, p)
	}
	return r.errs
}

// ValidateLimitRangeUpdate says what is wrong with an update of a LimitRange.
func ValidateLimitRangeUpdate(lr, old *corev1.LimitRange) field.ErrorList {
	var r report
	r.objectMetaUpdate(lr, old, metaPath)
	r.merge(ValidateLimitRange(lr))
	return r.errs
}

func (r *report) limitItem(item *corev1.LimitRangeItem, p *field.Path) {
	names := sets.New[corev1.ResourceName]()
	collect := func(list corev1.ResourceList, at *field.Path) {
		for n := range ordered(list) {
			names.Insert(n)
			if item.Type == corev1.LimitTypePod || item.Type == corev1.LimitTypeContainer {
				r.containerResourceName(n, at.Key(string(n)))
			} else {
				r.resourceName(n, at.Key(string(n)))
			}
		}
	}
	collect(item.Max, p.Child("max"))
	collect(item.Min, p.Child("min"))
	if item.Type == corev1.LimitTypePod {
		r.forbidIf(len(item.Default) > 0, p.Child("default"), "may not be specified when `type` is 'Pod'")
		r.forbidIf(len(item.DefaultRequest) > 0, p.Child("defaultRequest"), "may not be specified when `type` is 'Pod'")
	} else {
		collect(item.Default, p.Child("default"))
		collect(item.DefaultRequest, p.Child("defaultRequest"))
	}
	if item.Type == corev1.LimitTypePersistentVolumeClaim {
		_, hasMin := item.Min[corev1.ResourceStorage]
		_, hasMax := item.Max[corev1.ResourceStorage]
		r.requireIf(!hasMin && !hasMax, p.Child("limits"), "either minimum or maximum storage value is required, but neither was provided")
	}
	collect(item.MaxLimitRequestRatio, p.Child("maxLimitRequestRatio"))
	for _, n := range sets.List(names) {
		r.limit(item, n, p)
	}
}

// limit validates that the limits of one resource are in order: the minimum, what
// is requested and limited by default, the maximum.
func (r *report) limit(item *corev1.LimitRangeItem, n corev1.ResourceName, p *field.Path) {
	get := func(list corev1.ResourceList) *resource.Quantity {
		if q, ok := list[n]; ok {
			return &q
		}
		return nil
	}
	low, high, limit, request, ratio := get(item.Min), get(item.Max), get(item.Default), get(item.DefaultRequest), get(item.MaxLimitRequestRatio)
	if item.Type == corev1.LimitTypePod {
		limit, request = nil, nil
	}
	order := func(a, b, shown *resource.Quantity, at, aName, bName string) {
		if a != nil && b != nil && a.Cmp(*b) > 0 {
			r.invalid(p.Child(at).Key(string(n)), shown.String(), fmt.Sprintf("%s value %s is greater than %s value %s", aName, a.String(), bName, b.String()))
		}
	}
	order(low, high, low, "min", "min", "max")
	order(low, request, request, "defaultRequest", "min", "default request")
	order(request, high, request, "defaultRequest", "default request", "max")
	order(request, limit, request, "defaultRequest", "default request", "default limit")
	order(low, limit, low, "default", "min", "default")
	order(limit, high, high, "default", "default", "max")
	if ratio != nil {
		at := p.Child("maxLimitRequestRatio").Key(string(n))
		r.invalidIf(ratio.Cmp(resource.MustParse("1")) < 0, at, ratio.String(), fmt.Sprintf("ratio %s is less than 1", ratio.String()))
		if low != nil && high != nil {
			whole := high.AsApproximateFloat64() / low.AsApproximateFloat64()
			r.invalidIf(ratio.AsApproximateFloat64() > whole, at, ratio.String(), fmt.Sprintf("ratio %s is greater than max/min = %f", ratio.String(), whole))
		}
	}
	if !canOvercommit(n) && limit != nil && request != nil && !apiequality.Semantic.DeepEqual(*limit, *request) {
		r.invalid(p.Child("default").Key(string(n)), limit.String(), fmt.Sprintf("default value %s must equal to defaultRequest value %s in %s", limit.String(), request.String(), n))
	}
}
