package noderestriction

import (
	"context"
	"errors"
	"fmt"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	csitranslation "k8s.io/csi-translation-lib"
	"k8s.io/klog/v2"
)

// admitToken lets a node have tokens that are bound to its own pods, for the
// audiences that these pods' volumes ask for.
func (p *Plugin) admitToken(ctx context.Context, node string, a admission.Attributes) error {
	request, err := object[*authenticationv1.TokenRequest](a.GetObject())
	if err != nil {
		return err
	}
	ref := request.Spec.BoundObjectRef
	if ref == nil || ref.APIVersion != "v1" || ref.Kind != "Pod" || ref.Name == "" {
		return admission.NewForbidden(a, errors.New("node requested token not bound to a pod"))
	}
	if ref.UID == "" {
		return admission.NewForbidden(a, errors.New("node requested token with a pod binding without a uid"))
	}
	pod, err := p.pods.Pods(a.GetNamespace()).Get(ref.Name)
	if apierrors.IsNotFound(err) {
		return err
	} else if err != nil {
		return admission.NewForbidden(a, err)
	}
	if ref.UID != pod.UID {
		return admission.NewForbidden(a, fmt.Errorf("the UID in the bound object reference (%s) does not match the UID in record. The object might have been deleted and then recreated", ref.UID))
	}
	if pod.Spec.NodeName != node {
		return admission.NewForbidden(a, errors.New("node requested token bound to a pod scheduled on a different node"))
	}
	return p.admitAudience(ctx, pod, request, a)
}

func (p *Plugin) admitAudience(ctx context.Context, pod *corev1.Pod, request *authenticationv1.TokenRequest, a admission.Attributes) error {
	if len(request.Spec.Audiences) > 1 {
		return admission.NewForbidden(a, errors.New("node may only request 0 or 1 audiences"))
	}
	audience := ""
	if len(request.Spec.Audiences) == 1 {
		audience = request.Spec.Audiences[0]
	}
	found, err := p.asksFor(ctx, pod, audience)
	if err != nil {
		return admission.NewForbidden(a, fmt.Errorf("error validating audience %q: %w", audience, err))
	}
	if found {
		return nil
	}
	decision, _, err := p.authorizer.Authorize(ctx, authorizer.AttributesRecord{
		User: a.GetUserInfo(), Verb: "request-serviceaccounts-token-audience", Namespace: a.GetNamespace(),
		APIVersion: "v1", Resource: audience, Name: a.GetName(), ResourceRequest: true,
	})
	if err != nil {
		return admission.NewForbidden(a, fmt.Errorf("error validating audience %q: %w", audience, err))
	}
	if decision != authorizer.DecisionAllow {
		return admission.NewForbidden(a, fmt.Errorf("%s is not authorized to request tokens for audience %q", a.GetUserInfo().GetName(), audience))
	}
	return nil
}

// asksFor tells whether one of the pod's volumes needs a token for the audience:
// a projected token, or a CSI driver that wants its pods' tokens.
func (p *Plugin) asksFor(ctx context.Context, pod *corev1.Pod, audience string) (bool, error) {
	var errs []error
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		if v.Projected != nil {
			for _, source := range v.Projected.Sources {
				if source.ServiceAccountToken != nil && source.ServiceAccountToken.Audience == audience {
					return true, nil
				}
			}
		}
		driver, err := p.driver(ctx, pod, v)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if driver == "" {
			continue
		}
		d, err := p.drivers.Get(driver)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for _, t := range d.Spec.TokenRequests {
			if t.Audience == audience {
				return true, nil
			}
		}
	}
	return false, errors.Join(errs...)
}

// driver names the CSI driver that provides the volume; "" if none does.
func (p *Plugin) driver(ctx context.Context, pod *corev1.Pod, v *corev1.Volume) (string, error) {
	translator := csitranslation.New()
	var claimName string
	switch {
	case v.CSI != nil:
		return v.CSI.Driver, nil
	case v.PersistentVolumeClaim != nil:
		claimName = v.PersistentVolumeClaim.ClaimName
	case v.Ephemeral != nil:
		claimName = pod.Name + "-" + v.Name
	case translator.IsInlineMigratable(v):
		pv, err := translator.TranslateInTreeInlineVolumeToCSI(klog.FromContext(ctx), v, pod.Namespace)
		if err != nil {
			return "", err
		}
		return csiDriver(pv), nil
	default:
		return "", nil
	}
	claim, err := p.claims.PersistentVolumeClaims(pod.Namespace).Get(claimName)
	if err != nil {
		return "", err
	}
	if claim.Spec.VolumeName == "" {
		return "", nil
	}
	pv, err := p.volumes.Get(claim.Spec.VolumeName)
	if err != nil {
		return "", err
	}
	if translator.IsPVMigratable(pv) {
		if pv, err = translator.TranslateInTreePVToCSI(klog.FromContext(ctx), pv); err != nil {
			return "", err
		}
	}
	return csiDriver(pv), nil
}

func csiDriver(pv *corev1.PersistentVolume) string {
	if pv.Spec.CSI == nil {
		return ""
	}
	return pv.Spec.CSI.Driver
}
