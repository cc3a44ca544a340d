package node

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/client-go/informers"
	"k8s.io/klog/v2"

	"github.com/leme-k8s/leme/pkg/apiserver/authorization/rbac"
	"github.com/leme-k8s/leme/pkg/apiserver/internal/nodeidentity"
)

// New returns the authorizer of kubelets. rules are what any node may do to the
// kinds that have no rule of their own here. serves says which resources the
// server has; nil means all. The informers must not have started.
func New(f informers.SharedInformerFactory, serves func(schema.GroupVersionResource) bool, rules []rbacv1.PolicyRule) (authorizer.Authorizer, error) {
	n, err := newNodes(f, serves, rules)
	if err != nil {
		return nil, err
	}
	return authorizer.AuthorizerFunc(n.authorize), nil
}

func newNodes(f informers.SharedInformerFactory, serves func(schema.GroupVersionResource) bool, rules []rbacv1.PolicyRule) (*nodes, error) {
	x := newIndex()
	synced, err := feed(x, f, serves)
	if err != nil {
		return nil, err
	}
	return &nodes{index: x, synced: synced, rules: rules}, nil
}

type nodes struct {
	index  *index
	synced func() bool
	rules  []rbacv1.PolicyRule
}

func (n *nodes) authorize(ctx context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
	node, isNode := nodeidentity.Of(a.GetUser())
	if !isNode {
		return authorizer.DecisionNoOpinion, "", nil
	}
	if node == "" {
		return authorizer.DecisionNoOpinion, fmt.Sprintf("unknown node for user %q", a.GetUser().GetName()), nil
	}
	why, special := n.refusal(node, a)
	if !special {
		if rbac.RulesAllow(a, n.rules...) {
			return authorizer.DecisionAllow, "", nil
		}
		return authorizer.DecisionNoOpinion, "", nil
	}
	if why == "" {
		return authorizer.DecisionAllow, "", nil
	}
	klog.FromContext(ctx).V(2).Info("Node authorizer: refused", "node", node, "verb", a.GetVerb(), "apiGroup", a.GetAPIGroup(), "resource", a.GetResource(),
		"subresource", a.GetSubresource(), "object", klog.KRef(a.GetNamespace(), a.GetName()), "reason", why)
	return authorizer.DecisionNoOpinion, why, nil
}

// refusal says why the node may not do what it asks for, or "" if it may. special
// is false for what depends on no relation between the node and the object.
func (n *nodes) refusal(node string, a authorizer.Attributes) (why string, special bool) {
	if !a.IsResourceRequest() {
		return "", false
	}
	r := request{node: node, Attributes: a}
	name := types.NamespacedName{Namespace: a.GetNamespace(), Name: a.GetName()}
	switch (schema.GroupResource{Group: a.GetAPIGroup(), Resource: a.GetResource()}) {
	case schema.GroupResource{Resource: "secrets"}:
		return r.read(n, name.Namespace != "" && n.index.needs(node, object{secrets, name}), "get", "list", "watch"), true
	case schema.GroupResource{Resource: "configmaps"}:
		return r.read(n, name.Namespace != "" && n.index.needs(node, object{configMaps, name}), "get", "list", "watch"), true
	case schema.GroupResource{Resource: "persistentvolumeclaims"}:
		if a.GetSubresource() == "status" {
			return r.readSub(n, n.index.needs(node, object{volumeClaims, name}), "status", "update", "patch"), true
		}
		return r.read(n, n.index.needs(node, object{volumeClaims, name}), "get"), true
	case schema.GroupResource{Resource: "persistentvolumes"}:
		return r.read(n, n.index.needsVolume(node, name.Name), "get"), true
	case schema.GroupResource{Group: "resource.k8s.io", Resource: "resourceclaims"}:
		return r.read(n, n.index.needs(node, object{resourceClaims, name}), "get"), true
	case schema.GroupResource{Group: "storage.k8s.io", Resource: "volumeattachments"}:
		return r.read(n, n.index.owns(node, owned{volumeAttachments, name}), "get"), true
	case schema.GroupResource{Resource: "serviceaccounts"}:
		if a.GetSubresource() == "token" {
			return r.readSub(n, n.index.needs(node, object{serviceAccounts, name}), "token", "create"), true
		}
		return r.read(n, n.index.needs(node, object{serviceAccounts, name}), "get"), true
	case schema.GroupResource{Group: "resource.k8s.io", Resource: "resourceslices"}:
		return r.slice(n), true
	case schema.GroupResource{Group: "certificates.k8s.io", Resource: "podcertificaterequests"}:
		return r.certificateRequest(n), true
	case schema.GroupResource{Group: "coordination.k8s.io", Resource: "leases"}:
		return r.lease(), true
	case schema.GroupResource{Group: "storage.k8s.io", Resource: "csinodes"}:
		return r.ownNamed("can only access CSINode with the same name as the requesting node"), true
	case schema.GroupResource{Resource: "nodes"}:
		return r.nodes()
	case schema.GroupResource{Resource: "pods"}:
		return r.pods(n)
	}
	return "", false
}

// A request of a node.
type request struct {
	node string
	authorizer.Attributes
}

const unrelated = "no relationship found between node '%s' and this object"

// read lets the node do the verbs to a single object that it is related to.
func (r request) read(n *nodes, related bool, verbs ...string) string {
	return r.readSub(n, related, "", verbs...)
}

func (r request) readSub(n *nodes, related bool, subresource string, verbs ...string) string {
	switch {
	case r.GetSubresource() != subresource:
		return "cannot access this subresource"
	case !slices.Contains(verbs, r.GetVerb()):
		return fmt.Sprintf("can only %s this type of resource", verbs)
	case r.GetName() == "":
		return "No Object name found"
	case related:
		return ""
	case !n.synced():
		return "the node authorizer does not know all pods yet"
	}
	return fmt.Sprintf(unrelated, r.node)
}

// selects tells whether the request is restricted to objects whose field is the node.
func (r request) selects(field string) bool {
	requirements, err := r.GetFieldSelector()
	return err == nil && slices.ContainsFunc(requirements, func(q fields.Requirement) bool {
		return q.Field == field && (q.Operator == selection.Equals || q.Operator == selection.DoubleEquals) && q.Value == r.node
	})
}

func (r request) slice(n *nodes) string {
	if r.GetSubresource() != "" {
		return "cannot authorize ResourceSlice subresources"
	}
	switch r.GetVerb() {
	case "create":
		return "" // admission compares the slice's node
	case "get", "update", "patch", "delete":
		return r.read(n, n.index.owns(r.node, owned{resourceSlices, types.NamespacedName{Name: r.GetName()}}), "get", "update", "patch", "delete")
	case "list", "watch", "deletecollection":
		if r.selects("spec.nodeName") {
			return ""
		}
		return "can only list/watch/deletecollection resourceslices with spec.nodeName field selector"
	}
	return "only the following verbs are allowed for a ResourceSlice: get, watch, list, create, update, patch, delete, deletecollection"
}

func (r request) certificateRequest(n *nodes) string {
	if r.GetSubresource() != "" {
		return "nodes may not access the status subresource of PodCertificateRequests"
	}
	switch r.GetVerb() {
	case "create":
		return "" // admission compares the request's node and pod
	case "get":
		return r.read(n, n.index.owns(r.node, owned{podCertificateRequests, types.NamespacedName{Namespace: r.GetNamespace(), Name: r.GetName()}}), "get")
	case "list", "watch":
		if r.selects("spec.nodeName") {
			return ""
		}
		return "can only list/watch podcertificaterequests with spec.nodeName field selector"
	}
	return "can only create, get, list and watch podcertificaterequests"
}

func (r request) lease() string {
	switch {
	case !slices.Contains([]string{"get", "create", "update", "patch", "delete"}, r.GetVerb()):
		return "can only get, create, update, patch, or delete a node lease"
	case r.GetNamespace() != corev1.NamespaceNodeLease:
		return fmt.Sprintf("can only access leases in the %q system namespace", corev1.NamespaceNodeLease)
	}
	return r.named("can only access node lease with the same name as the requesting node")
}

func (r request) ownNamed(otherwise string) string {
	switch {
	case !slices.Contains([]string{"get", "create", "update", "patch", "delete"}, r.GetVerb()):
		return "can only get, create, update, patch, or delete a CSINode"
	case r.GetSubresource() != "":
		return "cannot authorize CSINode subresources"
	}
	return r.named(otherwise)
}

// named allows only the object that is called like the node. The name of what is
// created is not known here: admission compares it.
func (r request) named(otherwise string) string {
	if r.GetName() == r.node || r.GetVerb() == "create" && r.GetName() == "" {
		return ""
	}
	return otherwise
}

// nodes lets the node read itself alone. What it may write to nodes is the rules'
// and admission's to say.
func (r request) nodes() (why string, special bool) {
	if r.GetSubresource() != "" || !slices.Contains([]string{"get", "list", "watch"}, r.GetVerb()) {
		return "", false
	}
	if r.GetName() == r.node {
		return "", true
	}
	return fmt.Sprintf("node '%s' cannot read '%s', only its own Node object", r.node, r.GetName()), true
}

// pods lets the node read its own pods alone. What it may write to pods is the
// rules' and admission's to say.
func (r request) pods(n *nodes) (why string, special bool) {
	if r.GetSubresource() != "" {
		return "", false
	}
	switch r.GetVerb() {
	case "get", "list", "watch":
	default:
		return "", false
	}
	if r.GetName() != "" {
		return r.read(n, n.index.runs(r.node, types.NamespacedName{Namespace: r.GetNamespace(), Name: r.GetName()}), "get", "list", "watch"), true
	}
	if r.GetVerb() != "get" && r.selects("spec.nodeName") {
		return "", true
	}
	return "can only list/watch pods with spec.nodeName field selector", true
}
