package statefulset

import (
	"context"
	"errors"
	"fmt"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/leme-k8s/leme/pkg/controller/internal/pods"
)

// isClaimOf reports whether a claim is one that set would make.
func isClaimOf(set *appsv1.StatefulSet, name string) bool {
	return slices.ContainsFunc(set.Spec.VolumeClaimTemplates, func(t corev1.PersistentVolumeClaim) bool {
		if len(name) <= len(t.Name) || name[:len(t.Name)+1] != t.Name+"-" {
			return false
		}
		_, ok := ordinalOf(set, name[len(t.Name)+1:])
		return ok
	})
}

// act carries out a plan and returns how many of its steps were done. With ordered management it
// stops at the first that fails.
func (c *Controller) act(ctx context.Context, in *input, p plan) (done int, err error) {
	for _, phase := range p {
		n := 0
		if in.ordered() {
			for n < len(phase) && err == nil {
				if err = c.do(ctx, in, phase[n]); err == nil {
					n++
				}
			}
		} else {
			n, err = pods.SlowStart(len(phase), func(i int) error { return c.do(ctx, in, phase[i]) })
		}
		done += n
		if err != nil {
			return done, err
		}
	}
	return done, nil
}

func (c *Controller) do(ctx context.Context, in *input, s step) error {
	var err error
	switch s.verb {
	case create:
		_, ownErr := c.own(ctx, in, s.member)
		err = errors.Join(c.createClaims(ctx, in, s.member), ownErr)
		if err == nil {
			err = c.client.Create(ctx, s.pod)
		}
		if apierrors.IsAlreadyExists(err) { // of someone else, or not yet seen: no news
			return fmt.Errorf("creating pod %s: %w", s.pod.Name, err)
		}
	case repair:
		return c.repair(ctx, in, s.member)
	case replace:
		s.verb, err = remove, c.delete(ctx, s.pod)
	case remove:
		err = c.delete(ctx, s.pod)
	}
	return c.tell(in.set, s, err)
}

func (c *Controller) delete(ctx context.Context, p *corev1.Pod) error {
	return client.IgnoreNotFound(c.client.Delete(ctx, p, client.Preconditions{UID: &p.UID}))
}

// named is what events call what is done.
var named = map[verb]string{create: "Create", repair: "Update", remove: "Delete"}

// tell makes an event of what has been done to a pod and returns err.
func (c *Controller) tell(set *appsv1.StatefulSet, s step, err error) error {
	if err == nil {
		c.events.Eventf(set, corev1.EventTypeNormal, "Successful"+named[s.verb], "%s Pod %s in StatefulSet %s successful", named[s.verb], s.pod.Name, set.Name)
		return nil
	}
	if !pods.IsNamespaceTerminating(err) && !apierrors.IsConflict(err) {
		c.events.Eventf(set, corev1.EventTypeWarning, "Failed"+named[s.verb], "%s Pod %s in StatefulSet %s failed error: %s", named[s.verb], s.pod.Name, set.Name, err)
	}
	return fmt.Errorf("%s pod %s: %w", s.verb, s.pod.Name, err)
}

// createClaims creates the claims of a pod that do not exist.
func (c *Controller) createClaims(ctx context.Context, in *input, m *member) error {
	set := in.set
	var errs []error
	for _, want := range newClaims(set, m.ordinal) {
		if have := in.claims[want.Name]; have != nil {
			if have.DeletionTimestamp != nil {
				errs = append(errs, fmt.Errorf("pvc %s is being deleted", want.Name))
			}
			continue
		}
		want.OwnerReferences, _ = retain(set, m.pod, m.ordinal, want)
		err := c.client.Create(ctx, want)
		if apierrors.IsAlreadyExists(err) {
			continue
		}
		if err == nil {
			c.events.Eventf(set, corev1.EventTypeNormal, "SuccessfulCreate", "Create Claim %s Pod %s in StatefulSet %s success", want.Name, m.pod.Name, set.Name)
			continue
		}
		if !pods.IsNamespaceTerminating(err) {
			c.events.Eventf(set, corev1.EventTypeWarning, "FailedCreate", "Create Claim %s for Pod %s in StatefulSet %s failed error: %s", want.Name, m.pod.Name, set.Name, err)
		}
		errs = append(errs, fmt.Errorf("creating claim %s: %w", want.Name, err))
	}
	return errors.Join(errs...)
}

// own gives the claims of a pod the owners that the retention policy wants, and returns whether
// they had others.
func (c *Controller) own(ctx context.Context, in *input, m *member) (changed bool, err error) {
	var errs []error
	for _, want := range newClaims(in.set, m.ordinal) {
		have := in.claims[want.Name]
		if have == nil {
			continue
		}
		refs, other := retain(in.set, m.pod, m.ordinal, have)
		if !other {
			continue
		}
		changed = true
		have = have.DeepCopy()
		have.OwnerReferences = refs
		if err := c.client.Update(ctx, have); err != nil {
			errs = append(errs, fmt.Errorf("updating the owners of claim %s: %w", have.Name, err))
		}
	}
	return changed, errors.Join(errs...)
}

// repair gives a pod back its identity and its claims. One that is to go needs only the claims
// to know it.
func (c *Controller) repair(ctx context.Context, in *input, m *member) error {
	if in.isSurplus(m) {
		_, err := c.own(ctx, in, m)
		return err
	}
	createErr := c.createClaims(ctx, in, m)
	owned, err := c.own(ctx, in, m)
	if err = errors.Join(createErr, err); err != nil {
		return c.tell(in.set, step{repair, m}, err)
	}
	if identified(m.pod) && mounted(in.set, m.pod, m.ordinal) {
		if owned {
			return c.tell(in.set, step{repair, m}, nil)
		}
		return nil
	}
	p := m.pod.DeepCopy()
	identify(p, m.ordinal)
	mount(in.set, p, m.ordinal)
	return c.tell(in.set, step{repair, m}, c.client.Update(ctx, p))
}
