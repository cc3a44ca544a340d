// Package bootstrap holds the roles and bindings that every cluster has, and
// keeps a cluster's in line with them at each start of its API server. They are
// Kubernetes' own, object by object, and are written down in policy/*.yaml.
package bootstrap

import (
	"bytes"
	"embed"
	"fmt"
	"maps"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

//go:embed policy
var files embed.FS

// controllerPrefix begins the names of the controllers' roles.
const controllerPrefix = "system:controller:"

// Policy is the whole of it.
type Policy struct {
	ClusterRoles        []*rbacv1.ClusterRole
	ClusterRoleBindings []*rbacv1.ClusterRoleBinding
	Roles               []*rbacv1.Role
	RoleBindings        []*rbacv1.RoleBinding
}

// Load reads the policy that is built in, with what it is beside where features are on.
func Load(features map[string]bool) (*Policy, error) {
	p := &Policy{}
	for _, name := range []string{"users.yaml", "components.yaml", "node.yaml", "namespaced.yaml"} {
		if err := p.read(name); err != nil {
			return nil, fmt.Errorf("reading the bootstrap policy: %s: %w", name, err)
		}
	}
	if err := p.readControllers("controllers.yaml"); err != nil {
		return nil, fmt.Errorf("reading the bootstrap policy: controllers.yaml: %w", err)
	}
	if err := p.readFeatures("features.yaml", features); err != nil {
		return nil, fmt.Errorf("reading the bootstrap policy: features.yaml: %w", err)
	}
	return p, nil
}

// NodeRules are what the role system:node allows, which RBAC gives to nobody.
func NodeRules() ([]rbacv1.PolicyRule, error) {
	p := &Policy{}
	if err := p.read("node.yaml"); err != nil {
		return nil, fmt.Errorf("reading the bootstrap policy: node.yaml: %w", err)
	}
	return p.ClusterRoles[0].Rules, nil
}

// read adds the objects of a file, one a document.
func (p *Policy) read(name string) error {
	data, err := files.ReadFile("policy/" + name)
	if err != nil {
		return err
	}
	for _, doc := range bytes.Split(data, []byte("\n---\n")) {
		var kind metav1.TypeMeta
		if err := yaml.Unmarshal(doc, &kind); err != nil {
			return err
		}
		var err error
		switch kind.Kind {
		case "ClusterRole":
			o := &rbacv1.ClusterRole{}
			err = yaml.UnmarshalStrict(doc, o)
			p.addClusterRole(o)
		case "ClusterRoleBinding":
			o := &rbacv1.ClusterRoleBinding{}
			err = yaml.UnmarshalStrict(doc, o)
			p.addClusterRoleBinding(o)
		case "Role":
			o := &rbacv1.Role{}
			err = yaml.UnmarshalStrict(doc, o)
			mark(&o.ObjectMeta)
			p.Roles = append(p.Roles, o)
		case "RoleBinding":
			o := &rbacv1.RoleBinding{}
			err = yaml.UnmarshalStrict(doc, o)
			mark(&o.ObjectMeta)
			complete(&o.RoleRef, o.Subjects)
			p.RoleBindings = append(p.RoleBindings, o)
		default:
			err = fmt.Errorf("%q is no kind of RBAC", kind.Kind)
		}
		if err != nil {
			return fmt.Errorf("%w in:\n%s", err, doc)
		}
	}
	return nil
}

// readControllers adds a role and a binding for each ServiceAccount that the file names.
func (p *Policy) readControllers(name string) error {
	data, err := files.ReadFile("policy/" + name)
	if err != nil {
		return err
	}
	controllers := map[string][]rbacv1.PolicyRule{}
	if err := yaml.UnmarshalStrict(data, &controllers); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(controllers)) {
		p.addController(name, controllers[name])
	}
	return nil
}

// addController adds the role of a controller, and its binding to the ServiceAccount.
func (p *Policy) addController(name string, rules []rbacv1.PolicyRule) {
	role := metav1.ObjectMeta{Name: controllerPrefix + name}
	p.addClusterRole(&rbacv1.ClusterRole{ObjectMeta: role, Rules: rules})
	p.addClusterRoleBinding(&rbacv1.ClusterRoleBinding{
		ObjectMeta: role,
		RoleRef:    rbacv1.RoleRef{Kind: "ClusterRole", Name: role.Name},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: metav1.NamespaceSystem, Name: name}},
	})
}

// readFeatures adds rules to roles, and roles of controllers, where the features that the file names are on.
func (p *Policy) readFeatures(name string, on map[string]bool) error {
	data, err := files.ReadFile("policy/" + name)
	if err != nil {
		return err
	}
	var features []struct {
		Feature string // none: what follows is always on
		Rules   map[string][]rbacv1.PolicyRule
	}
	if err := yaml.UnmarshalStrict(data, &features); err != nil {
		return err
	}
	for _, f := range features {
		if f.Feature != "" && !on[f.Feature] {
			continue
		}
		for _, role := range slices.Sorted(maps.Keys(f.Rules)) {
			rules := f.Rules[role]
			i := slices.IndexFunc(p.ClusterRoles, func(r *rbacv1.ClusterRole) bool { return r.Name == role })
			controller, ok := strings.CutPrefix(role, controllerPrefix)
			switch {
			case i >= 0:
				p.ClusterRoles[i].Rules = append(p.ClusterRoles[i].Rules, rules...)
			case ok:
				p.addController(controller, rules)
			default:
				return fmt.Errorf("%s: there is no ClusterRole %s", f.Feature, role)
			}
		}
	}
	return nil
}

func (p *Policy) addClusterRole(o *rbacv1.ClusterRole) {
	o.TypeMeta = metav1.TypeMeta{}
	mark(&o.ObjectMeta)
	p.ClusterRoles = append(p.ClusterRoles, o)
}

func (p *Policy) addClusterRoleBinding(o *rbacv1.ClusterRoleBinding) {
	o.TypeMeta = metav1.TypeMeta{}
	mark(&o.ObjectMeta)
	complete(&o.RoleRef, o.Subjects)
	p.ClusterRoleBindings = append(p.ClusterRoleBindings, o)
}

// mark says whose object it is, and that it may be brought up to date.
func mark(m *metav1.ObjectMeta) {
	metav1.SetMetaDataLabel(m, "kubernetes.io/bootstrapping", "rbac-defaults")
	metav1.SetMetaDataAnnotation(m, rbacv1.AutoUpdateAnnotationKey, "true")
}

// complete adds the API groups that the files leave out.
func complete(ref *rbacv1.RoleRef, subjects []rbacv1.Subject) {
	ref.APIGroup = rbacv1.GroupName
	for i := range subjects {
		if subjects[i].Kind != rbacv1.ServiceAccountKind {
			subjects[i].APIGroup = rbacv1.GroupName
		}
	}
}
