package selinuxwarning

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// label writes SELinux options as a label, with nothing in the place of what is left to the node.
func label(o *corev1.SELinuxOptions) string {
	if *o == (corev1.SELinuxOptions{}) {
		return ""
	}
	return strings.Join([]string{o.User, o.Role, o.Type, o.Level}, ":")
}

// labels returns the labels that the containers of a pod want for its volumes, each once, by the name of the volume.
func labels(pod *corev1.Pod) map[string][]string {
	all := map[string][]string{}
	add := func(sc *corev1.SecurityContext, mounts []corev1.VolumeMount) {
		var o *corev1.SELinuxOptions
		if pod.Spec.SecurityContext != nil {
			o = pod.Spec.SecurityContext.SELinuxOptions
		}
		if sc != nil && sc.SELinuxOptions != nil {
			o = sc.SELinuxOptions
		}
		for _, m := range mounts {
			wanted := all[m.Name]
			if o != nil && !slices.Contains(wanted, label(o)) {
				wanted = append(wanted, label(o))
			}
			all[m.Name] = wanted
		}
	}
	for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		add(c.SecurityContext, c.VolumeMounts)
	}
	for _, c := range pod.Spec.EphemeralContainers {
		add(c.SecurityContext, c.VolumeMounts)
	}
	return all
}

// use is how a pod uses a volume that can be mounted with a label: the label is empty if it is not.
type use struct {
	label  string
	policy corev1.PodSELinuxChangePolicy
}

// useOf says how a pod uses a volume that it wants with a label, or with none.
func useOf(pod *corev1.Pod, wanted []string) use {
	recursive := use{policy: corev1.SELinuxChangePolicyRecursive}
	if len(wanted) == 0 || wanted[0] == "" {
		return recursive
	}
	sc := pod.Spec.SecurityContext
	switch {
	case sc == nil || sc.SELinuxChangePolicy == nil:
		return use{wanted[0], corev1.SELinuxChangePolicyMountOption}
	case *sc.SELinuxChangePolicy == corev1.SELinuxChangePolicyRecursive:
		return recursive
	}
	return use{wanted[0], *sc.SELinuxChangePolicy}
}

// differ reports whether two labels cannot be the same, whatever a node fills in. It fills in everything but the level.
func differ(a, b string) bool {
	p, q := append(strings.SplitN(a, ":", 4), "", "", ""), append(strings.SplitN(b, ":", 4), "", "", "")
	for i := range 3 {
		if p[i] != "" && q[i] != "" && p[i] != q[i] {
			return true
		}
	}
	return p[3] != q[3]
}

// The properties that can differ.
const (
	labelProperty  = "SELinuxLabel"
	policyProperty = "SELinuxChangePolicy"
)

// A conflict is that a pod uses a volume otherwise than another does.
type conflict struct {
	property     string
	pod, other   types.NamespacedName
	value, their string
}

// conflicts returns those between two uses of a volume, from both sides.
func conflicts(pod types.NamespacedName, u use, other types.NamespacedName, their use) []conflict {
	var all []conflict
	add := func(property, value, theirs string) {
		all = append(all, conflict{property, pod, other, value, theirs}, conflict{property, other, pod, theirs, value})
	}
	if u.policy != their.policy {
		add(policyProperty, string(u.policy), string(their.policy))
	}
	if differ(u.label, their.label) {
		add(labelProperty, u.label, their.label)
	}
	return all
}

// reason is that of the event.
func (c conflict) reason() string { return c.property + "Conflict" }

// String is the message of the event. It does not tell of other namespaces.
func (c conflict) String() string {
	const end = "If both pods land on the same node, only one of them may access the volume."
	if c.pod.Namespace != c.other.Namespace {
		return fmt.Sprintf("%[1]s\"%[2]s\" conflicts with another pod that uses the same volume as this pod with a different %[1]s. %[3]s", c.property, c.value, end)
	}
	return fmt.Sprintf("%[1]s \"%[2]s\" conflicts with pod %[3]s that uses the same volume as this pod with %[1]s \"%[4]s\". %[5]s", c.property, c.value, c.other.Name, c.their, end)
}
