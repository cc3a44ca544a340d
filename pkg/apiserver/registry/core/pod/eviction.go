package pod

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/util/dryrun"
	policyclient "k8s.io/client-go/kubernetes/typed/policy/v1"
	"k8s.io/client-go/util/retry"
	"k8s.io/utils/ptr"

	"github.com/leme-k8s/leme/pkg/apiserver/registry/generic"
)

// maxUnconfirmed is how many evictions a budget records before its controller has
// seen the pods go.
const maxUnconfirmed = 2000

// evictionRetry bounds what an eviction does against others at the same time.
var evictionRetry = wait.Backoff{Steps: 20, Duration: 500 * time.Millisecond, Factor: 1, Jitter: 0.1}

// eviction is pods/eviction: deletion of a pod when its disruption budget allows it.
type eviction struct {
	pods    *Store
	status  generic.StatusStore
	budgets policyclient.PodDisruptionBudgetsGetter
}

// New implements rest.Storage.
func (eviction) New() runtime.Object { return &policyv1.Eviction{} }

// Destroy implements rest.Storage.
func (eviction) Destroy() {}

// GroupVersionKind implements rest.GroupVersionKindProvider.
func (eviction) GroupVersionKind(schema.GroupVersion) schema.GroupVersionKind {
	return policyv1.SchemeGroupVersion.WithKind("Eviction")
}

// Create implements rest.NamedCreater.
func (e eviction) Create(ctx context.Context, name string, obj runtime.Object, validate rest.ValidateObjectFunc, options *metav1.CreateOptions) (runtime.Object, error) {
	request, ok := obj.(*policyv1.Eviction)
	if !ok {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("not a Eviction object: %T", obj))
	}
	if name != request.Name {
		return nil, apierrors.NewBadRequest("name in URL does not match name in Eviction object")
	}
	deletion, err := e.deleteOptions(request, options)
	if err != nil {
		return nil, err
	}
	if validate != nil {
		if err := validate(ctx, request.DeepCopy()); err != nil {
			return nil, err
		}
	}
	p, done, err := e.deleteUnguarded(ctx, name, deletion)
	if err == nil && !done {
		err = e.deleteGuarded(ctx, p, deletion)
	}
	if err != nil {
		return nil, err
	}
	return &metav1.Status{Status: metav1.StatusSuccess}, nil
}

// deleteOptions are those of the Eviction, with the dry run that the request asks for.
func (e eviction) deleteOptions(request *policyv1.Eviction, options *metav1.CreateOptions) (*metav1.DeleteOptions, error) {
	d := request.DeleteOptions
	switch {
	case d == nil:
		return &metav1.DeleteOptions{DryRun: options.DryRun}, nil
	case ptr.Deref(d.IgnoreStoreReadErrorWithClusterBreakingPotential, false):
		return nil, apierrors.NewInvalid(e.GroupVersionKind(schema.GroupVersion{}).GroupKind(), request.Name, field.ErrorList{field.Invalid(
			field.NewPath("deleteOptions", "ignoreStoreReadErrorWithClusterBreakingPotential"), true, "can not be set for pod eviction, try after removing the option")})
	case len(d.DryRun) == 0:
		d.DryRun = options.DryRun
	case len(options.DryRun) > 0 && !slices.Equal(d.DryRun, options.DryRun):
		return nil, fmt.Errorf("Non-matching dry-run options in request and content: %v and %v", options.DryRun, d.DryRun)
	}
	return d, nil
}

// deleteUnguarded deletes a pod that no budget guards, because it does not serve
// any more, or not yet. It returns the pod as it is otherwise.
func (e eviction) deleteUnguarded(ctx context.Context, name string, options *metav1.DeleteOptions) (p *corev1.Pod, done bool, err error) {
	pinned := resourceVersion(options) != nil
	err = retry.OnError(evictionRetry, func(err error) bool { return !pinned && apierrors.IsConflict(err) }, func() error {
		if p, err = get(ctx, e.pods, name); err != nil {
			return err
		}
		ended := p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed || p.DeletionTimestamp != nil
		if !ended && p.Status.Phase != corev1.PodPending {
			return nil
		}
		o := options
		if !ended && !pinned { // it must not become ready meanwhile
			o = withResourceVersion(options, p.ResourceVersion)
		}
		done = true
		return e.delete(ctx, name, o)
	})
	return p, done && err == nil, err
}

// deleteGuarded deletes a pod when its budget lets it go.
func (e eviction) deleteGuarded(ctx context.Context, p *corev1.Pod, options *metav1.DeleteOptions) error {
	budgets, err := e.budgetsOf(ctx, p)
	if err != nil {
		return err
	}
	if len(budgets) > 1 {
		return &apierrors.StatusError{ErrStatus: metav1.Status{
			Status:  metav1.StatusFailure,
			Message: "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
			Code:    500,
		}}
	}
	if len(budgets) == 0 {
		return e.delete(ctx, p.Name, options)
	}
	budget := &budgets[0]
	if !mayGoUnready(p, budget) {
		if err := e.take(ctx, budget, p.Name, dryrun.IsDryRun(options.DryRun)); err != nil {
			return err
		}
		return e.delete(ctx, p.Name, options)
	}
	// The budget was not asked because the pod is not ready: that must still be so.
	err = e.delete(ctx, p.Name, withResourceVersion(options, p.ResourceVersion))
	if apierrors.IsConflict(err) && resourceVersion(options) == nil {
		return stillProcessed(budget.Name)
	}
	return err
}

// mayGoUnready reports whether the budget lets pods go that are not ready, because
// it says so or because enough others are.
func mayGoUnready(p *corev1.Pod, budget *policyv1.PodDisruptionBudget) bool {
	if podReady(p) {
		return false
	}
	if ptr.Deref(budget.Spec.UnhealthyPodEvictionPolicy, policyv1.IfHealthyBudget) == policyv1.AlwaysAllow {
		return true
	}
	s := budget.Status
	return s.CurrentHealthy >= s.DesiredHealthy && s.DesiredHealthy > 0
}

// take counts the eviction against the budget.
func (e eviction) take(ctx context.Context, budget *policyv1.PodDisruptionBudget, pod string, dryRun bool) error {
	client := e.budgets.PodDisruptionBudgets(budget.Namespace)
	err := retry.RetryOnConflict(evictionRetry, func() error {
		if err := allows(budget); err != nil {
			return err
		}
		spend(budget, pod)
		if dryRun {
			return nil
		}
		_, err := client.UpdateStatus(ctx, budget, metav1.UpdateOptions{})
		if apierrors.IsConflict(err) {
			fresh, getErr := client.Get(ctx, budget.Name, metav1.GetOptions{})
			if getErr != nil {
				return getErr
			}
			*budget = *fresh
		}
		return err
	})
	if apierrors.IsConflict(err) {
		return apierrors.NewTimeoutError(fmt.Sprintf("couldn't update PodDisruptionBudget %q due to conflicts", budget.Name), 10)
	}
	return err
}

// allows says why the budget lets no pod go now, or nil.
func allows(budget *policyv1.PodDisruptionBudget) error {
	s := &budget.Status
	forbidden := func(reason, cause string) error {
		err := apierrors.NewForbidden(policyv1.Resource("poddisruptionbudget"), budget.Name, errors.New(reason))
		addCause(err, fmt.Sprintf("The disruption budget %s does not allow evicting pods currently: %s", budget.Name, cause))
		return err
	}
	switch {
	case s.ObservedGeneration < budget.Generation:
		return stillProcessed(budget.Name)
	case s.DisruptionsAllowed < 0:
		return forbidden("pdb disruptions allowed is negative", "pdb disruptions allowed is negative")
	case len(s.DisruptedPods) > maxUnconfirmed:
		return forbidden("DisruptedPods map too big - too many evictions not confirmed by PDB controller", "too many pending evictions not confirmed by PDB controller")
	case s.DisruptionsAllowed > 0:
		return nil
	}
	err := apierrors.NewTooManyRequests("Cannot evict pod as it would violate the pod's disruption budget.", 0)
	message := fmt.Sprintf("The disruption budget %s does not allow evicting pods currently", budget.Name)
	c := meta.FindStatusCondition(s.Conditions, policyv1.DisruptionAllowedCondition)
	explained := c != nil && c.Status == metav1.ConditionFalse && c.Message != ""
	switch {
	case explained && c.Reason == policyv1.SyncFailedReason: // the numbers are not to be trusted
		message += " because it failed sync: " + c.Message
	case s.CurrentHealthy <= s.DesiredHealthy:
		message = fmt.Sprintf("The disruption budget %s needs %d healthy pods and has %d currently", budget.Name, s.DesiredHealthy, s.CurrentHealthy)
	case explained:
		message += fmt.Sprintf(" (%s): %s", c.Reason, c.Message)
	}
	addCause(err, message)
	return err
}

// spend takes one disruption and tells the budget's controller which pod it is for,
// so that it does not count the pod until it is gone.
func spend(budget *policyv1.PodDisruptionBudget, pod string) {
	s := &budget.Status
	s.DisruptionsAllowed--
	if s.DisruptionsAllowed == 0 {
		meta.SetStatusCondition(&s.Conditions, metav1.Condition{
			Type:               policyv1.DisruptionAllowedCondition,
			Status:             metav1.ConditionFalse,
			Reason:             policyv1.InsufficientPodsReason,
			ObservedGeneration: s.ObservedGeneration,
		})
	}
	if s.DisruptedPods == nil {
		s.DisruptedPods = map[string]metav1.Time{}
	}
	s.DisruptedPods[pod] = metav1.Now()
}

func stillProcessed(budget string) error {
	err := apierrors.NewTooManyRequests("Cannot evict pod as it would violate the pod's disruption budget.", 10)
	addCause(err, fmt.Sprintf("The disruption budget %s is still being processed by the server.", budget))
	return err
}

func addCause(err *apierrors.StatusError, message string) {
	err.ErrStatus.Details.Causes = append(err.ErrStatus.Details.Causes, metav1.StatusCause{Type: policyv1.DisruptionBudgetCause, Message: message})
}

// budgetsOf returns the budgets that guard p.
func (e eviction) budgetsOf(ctx context.Context, p *corev1.Pod) ([]policyv1.PodDisruptionBudget, error) {
	list, err := e.budgets.PodDisruptionBudgets(p.Namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(list.Items, func(b policyv1.PodDisruptionBudget) bool {
		selector, err := metav1.LabelSelectorAsSelector(b.Spec.Selector)
		return err != nil || !selector.Matches(labels.Set(p.Labels))
	}), nil
}

// delete marks the pod as disrupted and deletes it.
func (e eviction) delete(ctx context.Context, name string, options *metav1.DeleteOptions) error {
	if !dryrun.IsDryRun(options.DryRun) {
		info := rest.DefaultUpdatedObjectInfo(nil, func(_ context.Context, _, old runtime.Object) (runtime.Object, error) {
			p := old.(*corev1.Pod).DeepCopy()
			if err := matches(p, options.Preconditions); err != nil {
				return nil, err
			}
			setCondition(&p.Status, corev1.PodCondition{
				Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue,
				Reason: "EvictionByEvictionAPI", Message: "Eviction API: evicting",
			})
			return p, nil
		})
		updated, _, err := e.status.Update(ctx, name, info, rest.ValidateAllObjectFunc, rest.ValidateAllObjectUpdateFunc, false, &metav1.UpdateOptions{})
		if err != nil {
			return err
		}
		if resourceVersion(options) != nil { // the update was ours
			options = withResourceVersion(options, updated.(*corev1.Pod).ResourceVersion)
		}
	}
	_, _, err := e.pods.Delete(ctx, name, rest.ValidateAllObjectFunc, options)
	return err
}

func matches(p *corev1.Pod, want *metav1.Preconditions) error {
	var problem error
	switch {
	case want == nil:
	case ptr.Deref(want.UID, "") != "" && *want.UID != p.UID:
		problem = fmt.Errorf("the UID in the precondition (%s) does not match the UID in record (%s). The object might have been deleted and then recreated", *want.UID, p.UID)
	case ptr.Deref(want.ResourceVersion, "") != "" && *want.ResourceVersion != p.ResourceVersion:
		problem = fmt.Errorf("the ResourceVersion in the precondition (%s) does not match the ResourceVersion in record (%s). The object might have been modified", *want.ResourceVersion, p.ResourceVersion)
	}
	if problem == nil {
		return nil
	}
	return apierrors.NewConflict(schema.GroupResource{Resource: "Pod"}, p.Name, problem)
}

func resourceVersion(o *metav1.DeleteOptions) *string {
	if o.Preconditions == nil {
		return nil
	}
	return o.Preconditions.ResourceVersion
}

func withResourceVersion(o *metav1.DeleteOptions, version string) *metav1.DeleteOptions {
	o = o.DeepCopy()
	if o.Preconditions == nil {
		o.Preconditions = &metav1.Preconditions{}
	}
	o.Preconditions.ResourceVersion = &version
	return o
}

var (
	_ rest.NamedCreater             = eviction{}
	_ rest.GroupVersionKindProvider = eviction{}
)
