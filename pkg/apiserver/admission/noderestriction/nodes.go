package noderestriction

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apiserver/pkg/admission"
	kubeletapis "k8s.io/kubelet/pkg/apis"
)

func (p *Plugin) admitNode(node string, a admission.Attributes) error {
	refuse := func(format string, args ...any) error {
		return admission.NewForbidden(a, fmt.Errorf("node %q "+format, append([]any{node}, args...)...))
	}
	if name := requestedName(a); name != node {
		return refuse("is not allowed to modify node %q", name)
	}
	switch a.GetOperation() {
	case admission.Create:
		o, err := object[*corev1.Node](a.GetObject())
		if err != nil {
			return err
		}
		if o.Spec.ConfigSource != nil {
			return refuse("is not allowed to create pods with a non-nil configSource")
		}
		// Taints are welcome on creation: they only keep pods away.
		if labels := forbidden(changed(nil, o.Labels)); len(labels) > 0 {
			return refuse("is not allowed to set the following labels: %s", strings.Join(labels, ", "))
		}
	case admission.Update:
		o, err := object[*corev1.Node](a.GetObject())
		if err != nil {
			return err
		}
		old, err := object[*corev1.Node](a.GetOldObject())
		if err != nil {
			return err
		}
		switch {
		case o.Spec.ConfigSource != nil && !equality.Semantic.DeepEqual(o.Spec.ConfigSource, old.Spec.ConfigSource):
			return refuse("is not allowed to update configSource to a new non-nil configSource")
		case !equality.Semantic.DeepEqual(o.Spec.Taints, old.Spec.Taints):
			return refuse("is not allowed to modify taints")
		case !equality.Semantic.DeepEqual(o.OwnerReferences, old.OwnerReferences):
			return refuse("is not allowed to modify ownerReferences")
		}
		if labels := forbidden(changed(old.Labels, o.Labels)); len(labels) > 0 {
			return refuse("is not allowed to modify labels: %s", strings.Join(labels, ", "))
		}
	}
	return nil
}

// changed lists the keys whose value, or presence, differs.
func changed(old, new map[string]string) []string {
	var keys []string
	for k, v := range new {
		if before, ok := old[k]; !ok || before != v {
			keys = append(keys, k)
		}
	}
	for k := range old {
		if _, ok := new[k]; !ok {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	return keys
}

// forbidden are the keys in Kubernetes' own domains that are not a kubelet's to
// set. Scheduling relies on them to keep workloads apart.
func forbidden(keys []string) []string {
	return slices.DeleteFunc(keys, func(key string) bool {
		domain, _, ok := strings.Cut(key, "/")
		if !ok {
			return true
		}
		ours := false
		for _, d := range []string{"kubernetes.io", "k8s.io"} {
			ours = ours || domain == d || strings.HasSuffix(domain, "."+d)
		}
		return !ours || kubeletapis.IsKubeletLabel(key)
	})
}
