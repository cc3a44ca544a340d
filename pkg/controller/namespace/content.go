package namespace

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sort"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/metadata"
	"k8s.io/utils/ptr"
)

// content deletes what namespaces hold.
type content struct {
	discovery discovery.DiscoveryInterface
	metadata  metadata.Interface
}

// leftover is what is still in a namespace after an attempt to empty it, and why.
type leftover struct {
	objects    map[schema.GroupVersionResource]int
	finalizers map[string]int
	discovery  []error
	parsing    []error
	deletion   []error
}

func (l *leftover) empty() bool {
	return len(l.objects) == 0 && len(l.discovery) == 0 && len(l.parsing) == 0 && len(l.deletion) == 0
}

func (l *leftover) err() error {
	return errors.Join(slices.Concat(l.discovery, l.parsing, l.deletion)...)
}

var podsResource = corev1.SchemeGroupVersion.WithResource("pods")

// clear deletes everything in ns and returns what has not gone yet. Pods go first,
// and nothing else before they are gone: they may need the rest to end well.
func (c content) clear(ctx context.Context, ns *corev1.Namespace, now time.Time) (*leftover, error) {
	left := &leftover{objects: map[schema.GroupVersionResource]int{}, finalizers: map[string]int{}}
	lists, err := c.discovery.ServerPreferredNamespacedResources()
	if err != nil {
		if lists == nil {
			return nil, fmt.Errorf("discovering resources: %w", err)
		}
		left.discovery = append(left.discovery, err)
	}
	lists = discovery.FilteredBy(discovery.SupportsAllVerbs{Verbs: []string{"delete"}}, lists)
	type resource struct {
		schema.GroupVersionResource
		verbs sets.Set[string]
	}
	var resources []resource
	for _, l := range lists {
		gv, err := schema.ParseGroupVersion(l.GroupVersion)
		if err != nil {
			left.parsing = append(left.parsing, err)
			continue
		}
		for _, r := range l.APIResources {
			resources = append(resources, resource{gv.WithResource(r.Name), sets.New(r.Verbs...)})
		}
	}
	// Pods first, then by name: the same order each time.
	sort.SliceStable(resources, func(i, j int) bool {
		a, b := resources[i].GroupVersionResource, resources[j].GroupVersionResource
		if (a == podsResource) != (b == podsResource) {
			return a == podsResource
		}
		return a.String() < b.String()
	})
	for _, r := range resources {
		if err := c.clearResource(ctx, ns, r.GroupVersionResource, r.verbs, left, now); err != nil {
			left.deletion = append(left.deletion, err)
		}
		if r.GroupVersionResource == podsResource && (left.objects[podsResource] > 0 || len(left.deletion) > 0) {
			break
		}
	}
	return left, nil
}

// clearResource deletes the objects of one kind. One look suffices when there are none.
func (c content) clearResource(ctx context.Context, ns *corev1.Namespace, r schema.GroupVersionResource, verbs sets.Set[string], left *leftover, now time.Time) error {
	objects := c.metadata.Resource(r).Namespace(ns.Name)
	if !verbs.Has("list") {
		if !verbs.Has("deletecollection") {
			return nil
		}
		return ignoreUnsupported(objects.DeleteCollection(ctx, background(), metav1.ListOptions{}), r)
	}
	list, err := objects.List(ctx, metav1.ListOptions{})
	if err != nil {
		return ignoreUnsupported(err, r)
	}
	if len(list.Items) == 0 {
		return nil
	}
	if verbs.Has("deletecollection") {
		err = objects.DeleteCollection(ctx, background(), metav1.ListOptions{})
	}
	if !verbs.Has("deletecollection") || apierrors.IsMethodNotSupported(err) {
		err = nil
		for i := range list.Items {
			if e := objects.Delete(ctx, list.Items[i].Name, background()); e != nil && !apierrors.IsNotFound(e) {
				err = errors.Join(err, e)
			}
		}
	}
	if err := ignoreUnsupported(err, r); err != nil {
		return err
	}
	if list, err = objects.List(ctx, metav1.ListOptions{}); err != nil {
		return ignoreUnsupported(err, r)
	}
	if overdue(list.Items, ns.DeletionTimestamp.Time, now) {
		return fmt.Errorf("unexpected items still remain in namespace: %s for gvr: %v", ns.Name, r)
	}
	if len(list.Items) > 0 {
		left.objects[r] = len(list.Items)
	}
	for i := range list.Items {
		for _, f := range list.Items[i].Finalizers {
			left.finalizers[f]++
		}
	}
	return nil
}

// overdue reports whether there are objects that should be gone: nothing holds them, and the time
// that they are given to end well is over.
func overdue(objects []metav1.PartialObjectMetadata, deleted, now time.Time) bool {
	grace := time.Duration(0)
	for i := range objects {
		if len(objects[i].Finalizers) > 0 {
			return false
		}
		grace = max(grace, time.Duration(ptr.Deref(objects[i].DeletionGracePeriodSeconds, 0))*time.Second)
	}
	return len(objects) > 0 && !now.Before(deleted.Add(grace))
}

func background() metav1.DeleteOptions {
	p := metav1.DeletePropagationBackground
	return metav1.DeleteOptions{PropagationPolicy: &p}
}

// ignoreUnsupported forgives what discovery promised and the server does not do.
func ignoreUnsupported(err error, r schema.GroupVersionResource) error {
	if err == nil || apierrors.IsNotFound(err) || apierrors.IsMethodNotSupported(err) {
		return nil
	}
	return fmt.Errorf("deleting %s: %w", r.GroupResource(), err)
}

// conditions returns the conditions of a namespace of which left is left. All five
// are always there: their absence would say that nobody has looked.
func conditions(old []corev1.NamespaceCondition, left *leftover, now time.Time) []corev1.NamespaceCondition {
	type fact struct {
		kind                           corev1.NamespaceConditionType
		holds                          bool
		reason, message                string
		reasonOtherwise, otherwiseText string
	}
	var kinds, finalizers []string
	gvrs := slices.SortedFunc(maps.Keys(left.objects), func(a, b schema.GroupVersionResource) int {
		return strings.Compare(a.GroupResource().String(), b.GroupResource().String())
	})
	for _, r := range gvrs {
		kinds = append(kinds, fmt.Sprintf("%s.%s has %d resource instances", r.Resource, r.Group, left.objects[r]))
	}
	for _, f := range slices.Sorted(maps.Keys(left.finalizers)) {
		finalizers = append(finalizers, fmt.Sprintf("%s in %d resource instances", f, left.finalizers[f]))
	}
	text := func(errs []error) string {
		if err := errors.Join(errs...); err != nil {
			return err.Error()
		}
		return ""
	}
	facts := []fact{
		{corev1.NamespaceDeletionDiscoveryFailure, len(left.discovery) > 0, "DiscoveryFailed", "Discovery failed for some groups, " + fmt.Sprint(len(left.discovery)) + " failing: " + text(left.discovery),
			"ResourcesDiscovered", "All resources successfully discovered"},
		{corev1.NamespaceDeletionGVParsingFailure, len(left.parsing) > 0, "GroupVersionParsingFailed", text(left.parsing),
			"ParsedGroupVersions", "All legacy kube types successfully parsed"},
		{corev1.NamespaceDeletionContentFailure, len(left.deletion) > 0, "ContentDeletionFailed", "Failed to delete all resource types, " + fmt.Sprint(len(left.deletion)) + " remaining: " + text(left.deletion),
			"ContentDeleted", "All content successfully deleted, may be waiting on finalization"},
		{corev1.NamespaceContentRemaining, len(left.objects) > 0, "SomeResourcesRemain", "Some resources are remaining: " + strings.Join(kinds, ", "),
			"ContentRemoved", "All content successfully removed"},
		{corev1.NamespaceFinalizersRemaining, len(left.finalizers) > 0, "SomeFinalizersRemain", "Some content in the namespace has finalizers remaining: " + strings.Join(finalizers, ", "),
			"ContentHasNoFinalizers", "All content-preserving finalizers finished"},
	}
	conds := slices.Clone(old)
	for _, f := range facts {
		c := corev1.NamespaceCondition{Type: f.kind, Status: corev1.ConditionFalse, Reason: f.reasonOtherwise, Message: f.otherwiseText, LastTransitionTime: metav1.NewTime(now)}
		if f.holds {
			c.Status, c.Reason, c.Message = corev1.ConditionTrue, f.reason, f.message
		}
		i := slices.IndexFunc(conds, func(o corev1.NamespaceCondition) bool { return o.Type == f.kind })
		if i < 0 {
			conds = append(conds, c)
			continue
		}
		if conds[i].Status == c.Status {
			c.LastTransitionTime = conds[i].LastTransitionTime
		}
		conds[i] = c
	}
	return conds
}
