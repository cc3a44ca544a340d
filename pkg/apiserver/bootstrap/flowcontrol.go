package bootstrap

import (
	"context"
	"fmt"
	"strconv"

	"golang.org/x/sync/errgroup"
	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/apis/flowcontrol/bootstrap"
	"k8s.io/client-go/kubernetes"
)

// flowControlManager owns the fields that the server writes.
const flowControlManager = "api-priority-and-fairness-config-producer-v1"

// FlowControl keeps the FlowSchemas and PriorityLevelConfigurations by which a server
// shares itself out: those without which it could not, and those that are suggested,
// unless an administrator has changed them.
func FlowControl() Keeper {
	return Keeper{"priority-and-fairness-config-producer", func(ctx context.Context, client kubernetes.Interface) error {
		api := client.FlowcontrolV1()
		levels, err := api.PriorityLevelConfigurations().List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		schemas, err := api.FlowSchemas().List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		// Schemas refer to levels.
		if err := keepFlowControl(ctx, api.PriorityLevelConfigurations(), planLevels(levels.Items)); err != nil {
			return fmt.Errorf("PriorityLevelConfigurations: %w", err)
		}
		if err := keepFlowControl(ctx, api.FlowSchemas(), planSchemas(schemas.Items)); err != nil {
			return fmt.Errorf("FlowSchemas: %w", err)
		}
		return nil
	}}
}

// flowControlPlan is what has to be done to objects of a kind.
type flowControlPlan[T metav1.Object] struct{ create, update, remove []T }

func planLevels(existing []flowcontrolv1.PriorityLevelConfiguration) flowControlPlan[*flowcontrolv1.PriorityLevelConfiguration] {
	all := make([]*flowcontrolv1.PriorityLevelConfiguration, len(existing))
	for i := range existing {
		all[i] = &existing[i]
	}
	return planFlowControl(all, bootstrap.MandatoryPriorityLevelConfigurations, bootstrap.SuggestedPriorityLevelConfigurations,
		func(c, wanted *flowcontrolv1.PriorityLevelConfiguration) bool {
			spec := *wanted.Spec.DeepCopy()
			// How much the exempt level lends is up to administrators.
			if c.Name == flowcontrolv1.PriorityLevelConfigurationNameExempt && c.Spec.Exempt != nil {
				spec.Exempt = c.Spec.Exempt
			}
			changed := !equality.Semantic.DeepEqual(c.Spec, spec)
			c.Spec = spec
			return changed
		})
}

func planSchemas(existing []flowcontrolv1.FlowSchema) flowControlPlan[*flowcontrolv1.FlowSchema] {
	all := make([]*flowcontrolv1.FlowSchema, len(existing))
	for i := range existing {
		all[i] = &existing[i]
	}
	return planFlowControl(all, bootstrap.MandatoryFlowSchemas, bootstrap.SuggestedFlowSchemas, func(f, wanted *flowcontrolv1.FlowSchema) bool {
		changed := !equality.Semantic.DeepEqual(f.Spec, wanted.Spec)
		f.Spec = *wanted.Spec.DeepCopy()
		return changed
	})
}

// planFlowControl decides what happens to the existing objects. setSpec gives an
// object the spec of another and reports whether it had a different one.
func planFlowControl[T interface {
	metav1.Object
	DeepCopy() T
}](existing, mandatory, suggested []T, setSpec func(obj, wanted T) bool) flowControlPlan[T] {
	var plan flowControlPlan[T]
	byName := map[string]T{}
	for _, obj := range existing {
		byName[obj.GetName()] = obj
	}
	keep := func(wanted T, always bool) {
		current, ok := byName[wanted.GetName()]
		if !ok {
			created := wanted.DeepCopy()
			setAutoUpdate(created, true)
			plan.create = append(plan.create, created)
			return
		}
		delete(byName, wanted.GetName())
		auto, known := autoUpdate(current)
		switch {
		case always:
			auto = true
		case !known: // whoever has written the spec twice means it
			auto = current.GetGeneration() == 1
		}
		updated := current.DeepCopy()
		changed := setAutoUpdate(updated, auto)
		if auto && setSpec(updated, wanted) {
			changed = true
		}
		if changed {
			plan.update = append(plan.update, updated)
		}
	}
	for _, wanted := range mandatory {
		keep(wanted, true)
	}
	for _, wanted := range suggested {
		keep(wanted, false)
	}
	// What an older or newer version of the server kept.
	for _, obj := range existing {
		_, unknown := byName[obj.GetName()]
		if auto, _ := autoUpdate(obj); auto && unknown {
			plan.remove = append(plan.remove, obj)
		}
	}
	return plan
}

// autoUpdate reports whether the server, not an administrator, decides about obj,
// and whether obj says so at all.
func autoUpdate(obj metav1.Object) (yes, known bool) {
	yes, err := strconv.ParseBool(obj.GetAnnotations()[flowcontrolv1.AutoUpdateAnnotationKey])
	return yes, err == nil
}

func setAutoUpdate(obj metav1.Object, yes bool) (changed bool) {
	if was, known := autoUpdate(obj); known && was == yes {
		return false
	}
	annotations := obj.GetAnnotations()
	if annotations == nil {
		annotations = map[string]string{}
	}
	annotations[flowcontrolv1.AutoUpdateAnnotationKey] = strconv.FormatBool(yes)
	obj.SetAnnotations(annotations)
	return true
}

// flowControlClient is a client for one kind.
type flowControlClient[T any] interface {
	Create(ctx context.Context, obj T, o metav1.CreateOptions) (T, error)
	Update(ctx context.Context, obj T, o metav1.UpdateOptions) (T, error)
	Delete(ctx context.Context, name string, o metav1.DeleteOptions) error
}

// keepFlowControl carries out a plan, all at once: on a new cluster it makes 19
// objects while somebody waits for the server. What others do at the same time is no error.
func keepFlowControl[T metav1.Object](ctx context.Context, client flowControlClient[T], plan flowControlPlan[T]) error {
	var group errgroup.Group
	for _, obj := range plan.create {
		group.Go(func() error {
			_, err := client.Create(ctx, obj, metav1.CreateOptions{FieldManager: flowControlManager})
			return ignore(err, apierrors.IsAlreadyExists)
		})
	}
	for _, obj := range plan.update {
		group.Go(func() error {
			_, err := client.Update(ctx, obj, metav1.UpdateOptions{FieldManager: flowControlManager})
			return ignore(err, apierrors.IsConflict, apierrors.IsNotFound)
		})
	}
	for _, obj := range plan.remove {
		group.Go(func() error {
			uid, version := obj.GetUID(), obj.GetResourceVersion()
			err := client.Delete(ctx, obj.GetName(), metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid, ResourceVersion: &version}})
			return ignore(err, apierrors.IsConflict, apierrors.IsNotFound)
		})
	}
	return group.Wait()
}

func ignore(err error, harmless ...func(error) bool) error {
	for _, is := range harmless {
		if is(err) {
			return nil
		}
	}
	return err
}
