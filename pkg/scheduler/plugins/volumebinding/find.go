package volumebinding

import (
	"cmp"
	"fmt"
	"slices"

	v1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/component-helpers/storage/ephemeral"
	"k8s.io/component-helpers/storage/volume"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/utils/ptr"

	"github.com/leme-k8s/leme/pkg/scheduler/cache"
)

const (
	reasonNoVolume     = "node(s) didn't find available persistent volumes to bind"
	reasonNodeAffinity = "node(s) didn't match PersistentVolume's node affinity"
	reasonNoSpace      = "node(s) did not have enough free storage"
	reasonVolumeGone   = "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)"
	reasonImmediate    = "pod has unbound immediate PersistentVolumeClaims"
)

// claims are those of a pod: bound ones, and those that wait for the pod's node.
type claims struct {
	bound   []*v1.PersistentVolumeClaim
	waiting []*v1.PersistentVolumeClaim // small ones first
	// volumes are those that waiting claims could be bound to, by class.
	volumes map[string][]*v1.PersistentVolume
}

// binding is a claim and a volume that it is to be bound to.
type binding struct {
	claim  *v1.PersistentVolumeClaim
	volume *v1.PersistentVolume
}

// provision is a claim that is to get a new volume, and the storage that there is for
// it, if the driver tells.
type provision struct {
	claim    *v1.PersistentVolumeClaim
	capacity *storagev1.CSIStorageCapacity
}

// plan is what a node needs to have the pod's volumes.
type plan struct {
	bindings   []binding
	provisions []provision
}

type usage struct{ requested, capacity int64 }

// usage is how much storage of each class the plan takes, out of how much.
func (p *plan) usage() map[string]usage {
	out := map[string]usage{}
	for _, b := range p.bindings {
		u := out[b.volume.Spec.StorageClassName]
		u.requested += b.claim.Spec.Resources.Requests.Storage().Value()
		u.capacity += b.volume.Spec.Capacity.Storage().Value()
		out[b.volume.Spec.StorageClassName] = u
	}
	if len(p.bindings) > 0 {
		return out
	}
	for _, n := range p.provisions {
		if n.capacity == nil || n.capacity.Capacity == nil { // it may name the largest volume only
			continue
		}
		class := volume.GetPersistentVolumeClaimClass(n.claim)
		u := out[class]
		u.requested += n.claim.Spec.Resources.Requests.Storage().Value()
		u.capacity = n.capacity.Capacity.Value() // of the class, however many claims there are
		out[class] = u
	}
	return out
}

// sort looks the pod's claims up. The pod waits for claims that are missing, lost or
// bound by somebody else.
func (p *Plugin) sort(pod *v1.Pod) (*claims, *fwk.Status) {
	c := &claims{volumes: map[string][]*v1.PersistentVolume{}}
	unresolvable := func(format string, args ...any) (*claims, *fwk.Status) {
		return nil, fwk.NewStatus(fwk.UnschedulableAndUnresolvable, fmt.Sprintf(format, args...))
	}
	immediate := false
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		name, ok := cache.ClaimName(pod, v)
		if !ok {
			continue
		}
		seen, err := p.claims.PersistentVolumeClaims(pod.Namespace).Get(name)
		switch {
		case apierrors.IsNotFound(err) && v.Ephemeral != nil:
			return unresolvable("waiting for ephemeral volume controller to create the persistentvolumeclaim %q", name)
		case err != nil:
			return unresolvable("%v", err)
		case seen.Status.Phase == v1.ClaimLost:
			return unresolvable("persistentvolumeclaim %q bound to non-existent persistentvolume %q", name, seen.Spec.VolumeName)
		case seen.DeletionTimestamp != nil:
			return unresolvable("persistentvolumeclaim %q is being deleted", name)
		}
		if v.Ephemeral != nil {
			if err := ephemeral.VolumeIsForPod(pod, seen); err != nil {
				return unresolvable("%v", err)
			}
		}
		claim := p.assumedClaims.now(seen)
		if isBound(claim) {
			c.bound = append(c.bound, claim)
			continue
		}
		delayed, err := volume.IsDelayBindingMode(claim, p.classes)
		if err != nil {
			return nil, fwk.AsStatus(err)
		}
		if delayed && claim.Spec.VolumeName == "" {
			c.waiting = append(c.waiting, claim)
		} else {
			immediate = true // or bound to a volume by its maker, which the controller completes
		}
	}
	if immediate {
		return unresolvable(reasonImmediate)
	}
	return c, p.candidates(c)
}

func isBound(claim *v1.PersistentVolumeClaim) bool {
	return claim.Spec.VolumeName != "" && metav1.HasAnnotation(claim.ObjectMeta, volume.AnnBindCompleted)
}

// candidates collects the volumes of the waiting claims' classes.
func (p *Plugin) candidates(c *claims) *fwk.Status {
	if len(c.waiting) == 0 {
		return nil
	}
	slices.SortStableFunc(c.waiting, func(a, b *v1.PersistentVolumeClaim) int {
		return cmp.Compare(a.Spec.Resources.Requests.Storage().Value(), b.Spec.Resources.Requests.Storage().Value())
	})
	for _, claim := range c.waiting {
		c.volumes[volume.GetPersistentVolumeClaimClass(claim)] = nil
	}
	all, err := p.volumes.List(labels.Everything())
	if err != nil {
		return fwk.AsStatus(err)
	}
	for _, seen := range all {
		v := p.assumedVolumes.now(seen)
		class := volume.GetPersistentVolumeClass(v)
		if _, wanted := c.volumes[class]; wanted {
			c.volumes[class] = append(c.volumes[class], v)
		}
	}
	for _, list := range c.volumes { // the same choice whatever the informer's order
		slices.SortFunc(list, func(a, b *v1.PersistentVolume) int { return cmp.Compare(a.Name, b.Name) })
	}
	return nil
}

// find says what a node needs for the claims, or why it cannot have them.
func (p *Plugin) find(c *claims, node *v1.Node) (*plan, []string, error) {
	var reasons []string
	reason, err := p.reachable(c.bound, node)
	if err != nil {
		return nil, nil, err
	}
	if reason != "" {
		reasons = append(reasons, reason)
	}
	out := &plan{}
	taken := map[string]*v1.PersistentVolume{}
	for _, claim := range c.waiting {
		if selected := claim.Annotations[volume.AnnSelectedNode]; selected != "" {
			if selected != node.Name { // a volume is being made elsewhere
				return nil, append(reasons, reasonNoVolume), nil
			}
			out.provisions = append(out.provisions, provision{claim: claim})
			continue
		}
		found, err := volume.FindMatchingVolume(claim, c.volumes[volume.GetPersistentVolumeClaimClass(claim)], node, taken, true, true)
		if err != nil {
			return nil, nil, err
		}
		if found != nil {
			taken[found.Name] = found
			out.bindings = append(out.bindings, binding{claim, found})
			continue
		}
		capacity, reason, err := p.canProvision(claim, node)
		if err != nil {
			return nil, nil, err
		}
		if reason != "" {
			return nil, append(reasons, reason), nil
		}
		out.provisions = append(out.provisions, provision{claim, capacity})
	}
	return out, reasons, nil
}

// reachable says why a node does not reach the volumes of bound claims; nothing if it does.
func (p *Plugin) reachable(bound []*v1.PersistentVolumeClaim, node *v1.Node) (string, error) {
	for _, claim := range bound {
		seen, err := p.volumes.Get(claim.Spec.VolumeName)
		if apierrors.IsNotFound(err) {
			return reasonVolumeGone, nil
		}
		if err != nil {
			return "", err
		}
		v, err := p.translated(p.assumedVolumes.now(seen))
		if err != nil {
			return "", err
		}
		if volume.CheckNodeAffinity(v, node.Labels) != nil {
			return reasonNodeAffinity, nil
		}
	}
	return "", nil
}

// translated returns a volume of an in-tree plugin as its CSI driver sees it: all of
// them are migrated.
func (p *Plugin) translated(v *v1.PersistentVolume) (*v1.PersistentVolume, error) {
	if !p.translator.IsPVMigratable(v) {
		return v, nil
	}
	return p.translator.TranslateInTreePVToCSI(klog.Background(), v)
}

// canProvision says why no volume can be made for a claim on a node; nothing if it can.
func (p *Plugin) canProvision(claim *v1.PersistentVolumeClaim, node *v1.Node) (*storagev1.CSIStorageCapacity, string, error) {
	name := volume.GetPersistentVolumeClaimClass(claim)
	class, err := p.classes.Get(name)
	if err != nil {
		return nil, "", fmt.Errorf("failed to find storage class %q", name)
	}
	if class.Provisioner == "" || class.Provisioner == volume.NotSupportedProvisioner || !allowed(class.AllowedTopologies, node) {
		return nil, reasonNoVolume, nil
	}
	driver, err := p.drivers.Get(class.Provisioner)
	if err != nil || !ptr.Deref(driver.Spec.StorageCapacity, false) {
		if apierrors.IsNotFound(err) {
			err = nil
		}
		return nil, "", err // the driver does not tell how much it has
	}
	size, ok := claim.Spec.Resources.Requests[v1.ResourceStorage]
	if !ok {
		return nil, "", nil
	}
	all, err := p.capacities.List(labels.Everything())
	if err != nil {
		return nil, "", err
	}
	for _, c := range all {
		if c.StorageClassName == class.Name && enough(c, size.Value()) && reaches(node, c) {
			return c, "", nil
		}
	}
	return nil, reasonNoSpace, nil
}

// allowed reports whether a node is in one of the topologies of a class; none allow all.
func allowed(terms []v1.TopologySelectorTerm, node *v1.Node) bool {
	return len(terms) == 0 || slices.ContainsFunc(terms, func(t v1.TopologySelectorTerm) bool {
		return len(t.MatchLabelExpressions) > 0 && !slices.ContainsFunc(t.MatchLabelExpressions, func(r v1.TopologySelectorLabelRequirement) bool {
			value, ok := node.Labels[r.Key]
			return !ok || !slices.Contains(r.Values, value)
		})
	})
}

func enough(c *storagev1.CSIStorageCapacity, size int64) bool {
	limit := c.Capacity
	if c.MaximumVolumeSize != nil {
		limit = c.MaximumVolumeSize
	}
	return limit != nil && limit.Value() >= size
}

func reaches(node *v1.Node, c *storagev1.CSIStorageCapacity) bool {
	if c.NodeTopology == nil {
		return false
	}
	selector, err := metav1.LabelSelectorAsSelector(c.NodeTopology)
	return err == nil && selector.Matches(labels.Set(node.Labels))
}
