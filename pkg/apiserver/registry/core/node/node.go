// Package node serves v1 Node.
package node

import (
	"context"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/util/sets"

	"github.com/leme-k8s/leme/pkg/api/core"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/generic"
)

// New returns the store of nodes.
func New(o generic.Options) (*generic.Store[*corev1.Node], error) {
	return generic.NewStore(resource, o)
}

// Status returns nodes/status.
func Status(nodes *generic.Store[*corev1.Node]) generic.StatusStore {
	return nodes.Status(generic.Update[*corev1.Node]{
		Prepare:  func(_ context.Context, obj, old *corev1.Node) { core.DropDisabledNodeFields(obj, old) },
		Validate: generic.CheckUpdate(core.ValidateNodeStatusUpdate),
	})
}

var (
	infoDoc   = corev1.NodeSystemInfo{}.SwaggerDoc()
	statusDoc = corev1.NodeStatus{}.SwaggerDoc()
)

var resource = generic.Resource[*corev1.Node]{
	GroupVersion:  corev1.SchemeGroupVersion,
	Name:          "nodes",
	ShortNames:    []string{"no"},
	ClusterScoped: true,

	// A kubelet registers its node with a status; later it uses the subresource.
	Validate:         generic.Check(core.ValidateNode),
	PrepareForUpdate: func(_ context.Context, obj, old *corev1.Node) { obj.Status = old.Status },
	DropDisabled:     core.DropDisabledNodeFields,
	ResetFields:      []string{"status"},
	ValidateUpdate:   generic.CheckUpdate(core.ValidateNodeUpdate),
	Warnings:         generic.Warn(core.WarningsNode),

	Fields: func(n *corev1.Node) fields.Set {
		return fields.Set{"spec.unschedulable": strconv.FormatBool(n.Spec.Unschedulable)}
	},
	Columns: []metav1.TableColumnDefinition{
		generic.NameColumn,
		generic.Column("Status", "string", "The status of the node"),
		generic.Column("Roles", "string", "The roles of the node"),
		generic.AgeColumn,
		generic.Column("Version", "string", infoDoc["kubeletVersion"]),
		generic.WideColumn("Internal-IP", "string", statusDoc["addresses"]),
		generic.WideColumn("External-IP", "string", statusDoc["addresses"]),
		generic.WideColumn("OS-Image", "string", infoDoc["osImage"]),
		generic.WideColumn("Kernel-Version", "string", infoDoc["kernelVersion"]),
		generic.WideColumn("Container-Runtime", "string", infoDoc["containerRuntimeVersion"]),
	},
	Cells: func(n *corev1.Node) []any {
		info := n.Status.NodeInfo
		kernel := orElse(info.KernelVersion, "<unknown>")
		if info.Architecture != "" {
			kernel += " (" + info.Architecture + ")"
		}
		return []any{
			n.Name, status(n), orElse(strings.Join(roles(n.Labels), ","), "<none>"), generic.Age(n.CreationTimestamp), info.KubeletVersion,
			address(n, corev1.NodeInternalIP), address(n, corev1.NodeExternalIP), orElse(info.OSImage, "<unknown>"), kernel,
			orElse(info.ContainerRuntimeVersion, "<unknown>"),
		}
	},
}

func status(n *corev1.Node) string {
	s := "Unknown"
	for _, c := range n.Status.Conditions {
		if c.Type != corev1.NodeReady {
			continue
		}
		if s = "NotReady"; c.Status == corev1.ConditionTrue {
			s = "Ready"
		}
	}
	if n.Spec.Unschedulable {
		s += ",SchedulingDisabled"
	}
	return s
}

// roles are named by labels, of the present form or of an older one.
func roles(labels map[string]string) []string {
	found := sets.New[string]()
	for key, value := range labels {
		if role, ok := strings.CutPrefix(key, "node-role.kubernetes.io/"); ok && role != "" {
			found.Insert(role)
		} else if key == "kubernetes.io/role" && value != "" {
			found.Insert(value)
		}
	}
	return sets.List(found)
}

func address(n *corev1.Node, t corev1.NodeAddressType) string {
	for _, a := range n.Status.Addresses {
		if a.Type == t {
			return a.Address
		}
	}
	return "<none>"
}

func orElse(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}
