// Package group makes the PodGroups that the pods of Jobs are scheduled in, behind the feature gate WorkloadWithJob: what a
// Job says about it becomes a Workload, from whose template the group is made. A Job that another object controls may be
// left a template of that object's Workload instead.
package group

import (
	"context"
	"fmt"
	"hash/fnv"
	"slices"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/client-go/tools/record"
	"k8s.io/component-helpers/scheduling/schedulingv1/workloadbuilder"
	"k8s.io/klog/v2"
	"k8s.io/utils/dump"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/leme-k8s/leme/pkg/api/batch"
	"github.com/leme-k8s/leme/pkg/controller/internal/borrow"
	cacheindex "github.com/leme-k8s/leme/pkg/controller/internal/index"
)

var kind = batchv1.SchemeGroupVersion.WithKind("Job")

// Groups are the groups of the pods of Jobs.
type Groups struct {
	client client.Client
	events record.EventRecorder
}

// New returns the groups that are read and written by c.
func New(c client.Client, events record.EventRecorder) *Groups {
	return &Groups{client: c, events: events}
}

// Watch has Jobs looked at when what their groups are made from changes.
func (g *Groups) Watch(b *builder.Builder) {
	b.Owns(&schedulingv1beta1.Workload{}, builder.WithPredicates(specChanged())).
		Owns(&schedulingv1beta1.PodGroup{}, builder.WithPredicates(specChanged())).
		Watches(&schedulingv1beta1.Workload{}, handler.EnqueueRequestsFromMapFunc(g.delegates), builder.WithPredicates(specChanged()))
}

// templateAnnotation names the template, in the Workload of the object that controls a Job, that the Job's group is made from.
const templateAnnotation = "scheduling.k8s.io/group-template-name"

// source is where a Job's group comes from.
type source struct {
	// of is what the Workload says that it is for: the Job, or the object that controls it.
	of schedulingv1beta1.TypedLocalObjectReference
	// own says that the Workload is the Job's.
	own bool
	// template is the one to take from a Workload that is not.
	template string
}

// sourceOf returns nil for a Job whose pods' group, if they have one, is somebody else's affair.
func sourceOf(job *batchv1.Job) *source {
	if g := job.Spec.Template.Spec.SchedulingGroup; job.DeletionTimestamp != nil || g != nil && g.PodGroupName != nil {
		return nil
	}
	parent := metav1.GetControllerOfNoCopy(job)
	if parent == nil {
		return &source{own: true, of: schedulingv1beta1.TypedLocalObjectReference{APIGroup: kind.Group, Kind: kind.Kind, Name: job.Name}}
	}
	template := job.Annotations[templateAnnotation]
	gv, err := schema.ParseGroupVersion(parent.APIVersion)
	if template == "" || err != nil {
		return nil
	}
	return &source{template: template, of: schedulingv1beta1.TypedLocalObjectReference{APIGroup: gv.Group, Kind: parent.Kind, Name: parent.Name}}
}

// templateOf returns the template of a Workload that a Job's group is made from, or nil if it is not there. A Workload of the Job's own has one and no more.
func (s *source) templateOf(w *schedulingv1beta1.Workload) (*schedulingv1beta1.PodGroupTemplate, error) {
	templates := w.Spec.PodGroupTemplates
	if s.own && len(templates) != 1 {
		return nil, fmt.Errorf("workload %s has %d templates of groups, where one is supported", w.Name, len(templates))
	}
	for i := range templates {
		if s.own || templates[i].Name == s.template {
			return &templates[i], nil
		}
	}
	return nil, nil
}

// untouched reports whether a Job has never run: groups are only made for pods that come first.
func untouched(job *batchv1.Job, pods int) bool {
	s := &job.Status
	return pods == 0 && s.StartTime == nil && s.Succeeded == 0 && s.Failed == 0 &&
		!slices.ContainsFunc(s.Conditions, func(c batchv1.JobCondition) bool { return c.Type == batchv1.JobSuspended })
}

// Of returns the name of the PodGroup that new pods of a Job, which has so many already, belong to. It is empty if they belong to none. The group, and the
// Workload that it is made from, are made before the first pod, and follow the size of the gang.
func (g *Groups) Of(ctx context.Context, job *batchv1.Job, pods int) (string, error) {
	s := sourceOf(job)
	if s == nil {
		return "", nil
	}
	mayMake := untouched(job, pods)
	w, err := g.workload(ctx, job, s, mayMake)
	if w == nil || err != nil {
		return "", err
	}
	template, err := s.templateOf(w)
	if template == nil || err != nil {
		return "", err
	}
	found, err := cacheindex.Controlled[schedulingv1beta1.PodGroup](ctx, g.client, job.Namespace, job.UID)
	if err != nil {
		return "", fmt.Errorf("listing PodGroups: %w", err)
	}
	found = slices.DeleteFunc(found, func(g *schedulingv1beta1.PodGroup) bool {
		ref := g.Spec.WorkloadRef
		return ref == nil || ref.WorkloadName != w.Name || ref.TemplateName != template.Name
	})
	switch {
	case len(found) > 1:
		klog.FromContext(ctx).Info("The Job has more than one PodGroup; its pods are scheduled one by one", "job", klog.KObj(job))
		return "", nil
	case len(found) == 1:
		group := found[0].DeepCopy()
		return group.Name, g.resize(ctx, group, &group.Spec.SchedulingPolicy, template.SchedulingPolicy.Gang)
	case !mayMake:
		return "", nil
	}
	return g.makeGroup(ctx, job, s, w, template.Name)
}

// workload returns the Workload of a Job's group, or nil if there is none, or no single one.
func (g *Groups) workload(ctx context.Context, job *batchv1.Job, s *source, mayMake bool) (*schedulingv1beta1.Workload, error) {
	var found []*schedulingv1beta1.Workload
	var err error
	if s.own {
		found, err = cacheindex.Controlled[schedulingv1beta1.Workload](ctx, g.client, job.Namespace, job.UID)
	} else {
		found, err = borrow.List[schedulingv1beta1.Workload](ctx, g.client, client.InNamespace(job.Namespace))
	}
	if err != nil {
		return nil, fmt.Errorf("listing Workloads: %w", err)
	}
	found = slices.DeleteFunc(found, func(w *schedulingv1beta1.Workload) bool {
		return w.Spec.ControllerRef == nil || *w.Spec.ControllerRef != s.of
	})
	switch {
	case len(found) > 1:
		klog.FromContext(ctx).Info("There is more than one Workload for the Job; its pods are scheduled one by one", "job", klog.KObj(job))
		return nil, nil
	case len(found) == 0 && (!s.own || !mayMake):
		return nil, nil
	}
	if !s.own {
		return found[0], nil
	}
	wanted, err := newWorkload(job)
	if err != nil {
		return nil, fmt.Errorf("building the Workload: %w", err)
	}
	if len(found) == 0 {
		return wanted, g.make(ctx, job, wanted, "Workload")
	}
	w := found[0].DeepCopy()
	if len(w.Spec.PodGroupTemplates) == 1 {
		return w, g.resize(ctx, w, &w.Spec.PodGroupTemplates[0].SchedulingPolicy, wanted.Spec.PodGroupTemplates[0].SchedulingPolicy.Gang)
	}
	return w, nil
}

// newWorkload returns the Workload that says what the Job does about the scheduling of its pods.
func newWorkload(job *batchv1.Job) (*schedulingv1beta1.Workload, error) {
	o := batch.WorkloadOptions()
	o.Namespace, o.Name, o.Owner = job.Namespace, workloadName(job.Name, job.UID), metav1.NewControllerRef(job, kind)
	return workloadbuilder.NewBuilder(batch.Workload(&job.Spec, job.Name+"-pgt-0", field.NewPath("spec", "scheduling")), o).BuildWorkload()
}

// makeGroup makes the group of a Job's pods from a template.
func (g *Groups) makeGroup(ctx context.Context, job *batchv1.Job, s *source, w *schedulingv1beta1.Workload, template string) (string, error) {
	b := workloadbuilder.NewBuilderFromExistingWorkload(w, workloadbuilder.BuildOptions{Owner: metav1.NewControllerRef(job, kind)})
	group, err := b.NewPodGroup(groupName(w.Name, template), template)
	if err != nil {
		return "", fmt.Errorf("building the PodGroup: %w", err)
	}
	if s.own {
		group.OwnerReferences = append(group.OwnerReferences, metav1.OwnerReference{APIVersion: schedulingv1beta1.SchemeGroupVersion.String(), Kind: "Workload", Name: w.Name, UID: w.UID})
	}
	return group.Name, g.make(ctx, job, group, "PodGroup")
}

// make creates what is called so, and tells of it.
func (g *Groups) make(ctx context.Context, job *batchv1.Job, o client.Object, called string) error {
	name := o.GetName()
	switch err := g.client.Create(ctx, o); {
	case apierrors.IsAlreadyExists(err): // the cache does not show it yet, or it is somebody else's
		return fmt.Errorf("creating the %s: %w", called, err)
	case err != nil:
		g.events.Eventf(job, corev1.EventTypeWarning, "Failed"+called+"Create", "Failed to create %s for Job %s: %v", called, job.Name, err)
		return fmt.Errorf("creating the %s: %w", called, err)
	}
	g.events.Eventf(job, corev1.EventTypeNormal, called+"Created", "Created %s %s for Job %s", called, name, job.Name)
	return nil
}

// resize gives o, whose policy that is, the size of the gang.
func (g *Groups) resize(ctx context.Context, o client.Object, policy *schedulingv1beta1.PodGroupSchedulingPolicy, gang *schedulingv1beta1.GangSchedulingPolicy) error {
	if policy.Gang == nil || gang == nil || policy.Gang.MinCount == gang.MinCount {
		return nil
	}
	before := o.DeepCopyObject().(client.Object)
	policy.Gang.MinCount = gang.MinCount
	if err := g.client.Patch(ctx, o, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})); err != nil {
		return fmt.Errorf("updating the size of the gang in %T %s: %w", o, o.GetName(), err)
	}
	return nil
}

// The names are the original's, since either manager may find what the other has made.

func workloadName(job string, uid types.UID) string {
	suffix := "-" + hash(dump.ForHash(uid))
	return job[:min(len(job), validation.DNS1123SubdomainMaxLength-len(suffix))] + suffix
}

// groupName shortens the Workload's name if it has to: that of a template is short.
func groupName(workload, template string) string {
	suffix := "-" + template + "-" + hash(workload+template)
	return workload[:min(len(workload), validation.DNS1123SubdomainMaxLength-len(suffix))] + suffix
}

func hash(s string) string {
	h := fnv.New32a()
	h.Write([]byte(s))
	return rand.SafeEncodeString(fmt.Sprint(h.Sum32()))
}

// specChanged keeps a Job from being looked at whenever the scheduler has said something of its group.
func specChanged() predicate.Predicate {
	return predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
		switch was := e.ObjectOld.(type) {
		case *schedulingv1beta1.Workload:
			return !equality.Semantic.DeepEqual(was.Spec, e.ObjectNew.(*schedulingv1beta1.Workload).Spec)
		case *schedulingv1beta1.PodGroup:
			return !equality.Semantic.DeepEqual(was.Spec, e.ObjectNew.(*schedulingv1beta1.PodGroup).Spec)
		}
		return true
	}}
}

// delegates returns the Jobs whose groups are made from a Workload of the object that controls them.
func (g *Groups) delegates(ctx context.Context, o client.Object) []reconcile.Request {
	ref := o.(*schedulingv1beta1.Workload).Spec.ControllerRef
	if ref == nil || ref.APIGroup == kind.Group && ref.Kind == kind.Kind {
		return nil
	}
	var list batchv1.JobList
	if err := g.client.List(ctx, &list, client.InNamespace(o.GetNamespace()), client.UnsafeDisableDeepCopy, client.DisableReadYourWritesConsistency); err != nil {
		klog.FromContext(ctx).Error(err, "Listing Jobs")
		return nil
	}
	var reqs []reconcile.Request
	for i := range list.Items {
		if s := sourceOf(&list.Items[i]); s != nil && s.of == *ref {
			reqs = append(reqs, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&list.Items[i])})
		}
	}
	return reqs
}
