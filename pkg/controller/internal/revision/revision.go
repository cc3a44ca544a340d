// Package revision keeps the history of an object's pod template in
// ControllerRevisions, as DaemonSets and StatefulSets do.
package revision

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/apimachinery/pkg/util/sets"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// HashLabel tells which version of a template a pod belongs to, and of a DaemonSet also a
// revision. The value is a hash for a DaemonSet, and a revision's name for a StatefulSet.
const HashLabel = appsv1.ControllerRevisionHashLabelKey

// ErrCollision says that another revision has the name; the owner is to count it in
// its status and try again.
var ErrCollision = errors.New("a different revision has the name")

// Patch returns what a revision stores of an owner: the patch that puts the template
// back. Its bytes are compared, so they must never change for the same template.
func Patch(t *corev1.PodTemplateSpec) ([]byte, error) {
	raw, err := json.Marshal(t)
	if err != nil {
		return nil, fmt.Errorf("encoding the template: %w", err)
	}
	var template map[string]any
	if err := json.Unmarshal(raw, &template); err != nil {
		return nil, fmt.Errorf("encoding the template: %w", err)
	}
	template["$patch"] = "replace"
	return json.Marshal(map[string]any{"spec": map[string]any{"template": template}})
}

// Template returns the pod template that a revision stores.
func Template(data []byte) (*corev1.PodTemplateSpec, error) {
	var patch struct {
		Spec struct {
			Template corev1.PodTemplateSpec `json:"template"`
		} `json:"spec"`
	}
	if err := json.Unmarshal(data, &patch); err != nil {
		return nil, fmt.Errorf("decoding a revision's template: %w", err)
	}
	return &patch.Spec.Template, nil
}

// DataHash names what a revision of a StatefulSet stores.
func DataHash(data []byte, collisions int32) string {
	h := fnv.New32()
	h.Write(data)
	fmt.Fprint(h, collisions)
	return rand.SafeEncodeString(fmt.Sprint(h.Sum32()))
}

// History is what is known of an owner's revisions.
type History struct {
	Client client.Client
	Live   client.Reader
	Owner  client.Object
	Kind   schema.GroupVersionKind
	// Label is the one that a revision carries its hash in.
	Label string
	// Same, if it is given, says whether what two revisions store means the same although
	// the bytes differ, as it may when an older version wrote one of them.
	Same func(a, b []byte) bool
	// All are its revisions, the oldest first.
	All []*appsv1.ControllerRevision
}

// Sort brings revisions into order.
func Sort(all []*appsv1.ControllerRevision) {
	slices.SortStableFunc(all, func(a, b *appsv1.ControllerRevision) int {
		return cmp.Or(cmp.Compare(a.Revision, b.Revision), a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
	})
}

// Current returns the revision with data, making it the latest, or creates it under
// the name that hash gives it.
func (h *History) Current(ctx context.Context, data []byte, hash string, templateLabels map[string]string) (*appsv1.ControllerRevision, error) {
	Sort(h.All)
	if n := len(h.All); n > 0 && bytes.Equal(h.All[n-1].Data.Raw, data) {
		return h.All[n-1], nil
	}
	latest := int64(0)
	var same []*appsv1.ControllerRevision
	for _, r := range h.All {
		latest = max(latest, r.Revision)
		if bytes.Equal(r.Data.Raw, data) || h.Same != nil && h.Same(r.Data.Raw, data) {
			same = append(same, r)
		}
	}
	if len(same) > 0 {
		current := same[len(same)-1]
		if current.Revision < latest {
			current.Revision = latest + 1
			if err := h.Client.Update(ctx, current); err != nil {
				return nil, fmt.Errorf("renewing revision %s: %w", current.Name, err)
			}
			Sort(h.All)
		}
		return current, nil
	}
	r := &appsv1.ControllerRevision{
		ObjectMeta: metav1.ObjectMeta{
			Name: h.Owner.GetName() + "-" + hash, Namespace: h.Owner.GetNamespace(),
			Labels:          labels.Merge(templateLabels, labels.Set{h.Label: hash}),
			Annotations:     h.Owner.GetAnnotations(),
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(h.Owner, h.Kind)},
		},
		Data:     runtime.RawExtension{Raw: data},
		Revision: latest + 1,
	}
	err := h.Client.Create(ctx, r)
	if apierrors.IsAlreadyExists(err) {
		got := &appsv1.ControllerRevision{}
		if err := h.Live.Get(ctx, client.ObjectKeyFromObject(r), got); err != nil {
			return nil, fmt.Errorf("getting revision %s: %w", r.Name, err)
		}
		ref := metav1.GetControllerOf(got)
		if !bytes.Equal(got.Data.Raw, data) || ref != nil && ref.UID != h.Owner.GetUID() {
			return nil, ErrCollision
		}
		r, err = got, nil
		if ref == nil { // an orphan that the cache does not know to be one yet
			if err := h.stillThere(ctx); err != nil {
				return nil, fmt.Errorf("adopting revision %s: %w", r.Name, err)
			}
			r.OwnerReferences = append(r.OwnerReferences, *metav1.NewControllerRef(h.Owner, h.Kind))
			if err := h.Client.Update(ctx, r); err != nil {
				return nil, fmt.Errorf("adopting revision %s: %w", r.Name, err)
			}
		}
	}
	if err != nil {
		return nil, fmt.Errorf("creating revision %s: %w", r.Name, err)
	}
	h.All = append(h.All, r)
	return r, nil
}

// stillThere returns an error if the owner is being deleted or gone: it adopts nothing then.
func (h *History) stillThere(ctx context.Context) error {
	fresh := h.Owner.DeepCopyObject().(client.Object)
	if err := h.Live.Get(ctx, client.ObjectKeyFromObject(h.Owner), fresh); err != nil {
		return err
	}
	if fresh.GetUID() != h.Owner.GetUID() || fresh.GetDeletionTimestamp() != nil {
		return errors.New("its owner is being deleted")
	}
	return nil
}

// Trim deletes the oldest revisions that no one uses, but for the last limit ones.
func (h *History) Trim(ctx context.Context, limit int, used sets.Set[string]) error {
	var unused []*appsv1.ControllerRevision
	for _, r := range h.All {
		if !used.Has(r.Labels[HashLabel]) && !used.Has(r.Name) {
			unused = append(unused, r)
		}
	}
	for _, r := range unused[:max(0, len(unused)-limit)] {
		if err := h.Client.Delete(ctx, r, client.Preconditions{UID: &r.UID}); client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("deleting old revision %s: %w", r.Name, err)
		}
	}
	return nil
}
