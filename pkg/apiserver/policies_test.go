package apiserver_test

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"github.com/leme-k8s/leme/pkg/testcluster"
)

// Policies for ConfigMaps with a label "policy".
const policies = `
- kind: ValidatingAdmissionPolicy
  metadata: {name: limit}
  spec:
    paramKind: {apiVersion: v1, kind: ConfigMap}
    matchConstraints:
      objectSelector: {matchLabels: {policy: limit}}
      resourceRules: [{operations: [CREATE, UPDATE], apiGroups: [""], apiVersions: [v1], resources: [configmaps]}]
    matchConditions: [{name: not-excepted, expression: "object.metadata.name != 'excepted'"}]
    variables: [{name: count, expression: "size(object.data)"}]
    validations:
    - expression: "variables.count <= int(params.data.limit)"
      messageExpression: "'at most ' + params.data.limit + ' keys, not ' + string(variables.count)"
      reason: Forbidden
    auditAnnotations: [{key: keys, valueExpression: "string(variables.count)"}]
- kind: ValidatingAdmissionPolicyBinding
  metadata: {name: limit}
  spec: {policyName: limit, validationActions: [Deny], paramRef: {namespace: default, name: limit, parameterNotFoundAction: Deny}}
- kind: ValidatingAdmissionPolicy
  metadata: {name: advice}
  spec:
    matchConstraints:
      objectSelector: {matchLabels: {policy: advice}}
      resourceRules: [{operations: [CREATE], apiGroups: [""], apiVersions: [v1], resources: [configmaps]}]
    validations: [{expression: "has(object.data) && 'owner' in object.data", message: every one should have an owner}]
- kind: ValidatingAdmissionPolicyBinding
  metadata: {name: advice}
  spec: {policyName: advice, validationActions: [Warn, Audit]}
- kind: MutatingAdmissionPolicy
  metadata: {name: defaults}
  spec:
    reinvocationPolicy: IfNeeded
    matchConstraints:
      objectSelector: {matchLabels: {policy: defaults}}
      resourceRules: [{operations: [CREATE], apiGroups: [""], apiVersions: [v1], resources: [configmaps]}]
    mutations:
    - {patchType: ApplyConfiguration, applyConfiguration: {expression: "Object{metadata: Object.metadata{annotations: {'applied': 'yes'}}}"}}
    - {patchType: JSONPatch, jsonPatch: {expression: "[JSONPatch{op: 'add', path: '/data/patched', value: 'yes'}]"}}
- kind: MutatingAdmissionPolicyBinding
  metadata: {name: defaults}
  spec: {policyName: defaults}
`

func createPolicies(t *testing.T, client kubernetes.Interface) {
	t.Helper()
	var all []map[string]any
	if err := yaml.Unmarshal([]byte(policies), &all); err != nil {
		t.Fatal(err)
	}
	for _, p := range all {
		p["apiVersion"] = admissionregistrationv1.SchemeGroupVersion.String()
		body, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		resource := strings.Replace(strings.ToLower(p["kind"].(string))+"s", "policys", "policies", 1)
		err = client.AdmissionregistrationV1().RESTClient().Post().Resource(resource).Body(body).SetHeader("Content-Type", "application/json").Do(t.Context()).Error()
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestPolicies(t *testing.T) {
	dir := t.TempDir()
	auditPolicy, log := filepath.Join(dir, "policy.yaml"), filepath.Join(dir, "audit.log")
	if err := os.WriteFile(auditPolicy, []byte("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Metadata, resources: [{resources: [configmaps]}]}]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := testcluster.Start(t, testcluster.WithAPIServerFlags("--audit-policy-file="+auditPolicy, "--audit-log-path="+log))
	w := &warnings{}
	client := w.client(t, c.Config)
	maps := client.CoreV1().ConfigMaps("default")
	create := func(ctx context.Context, name, policy string, data map[string]string) (*corev1.ConfigMap, error) {
		m := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"policy": policy}}, Data: data}
		return maps.Create(ctx, m, metav1.CreateOptions{})
	}
	createPolicies(t, client)
	one, two := map[string]string{"a": ""}, map[string]string{"a": "", "b": ""}

	eventually(t, "the policy to miss its parameter", func(ctx context.Context) bool {
		_, err := create(ctx, "unlimited", "limit", one)
		if err == nil {
			_ = maps.Delete(ctx, "unlimited", metav1.DeleteOptions{})
		}
		return err != nil && strings.Contains(err.Error(), "no params found for policy binding with `Deny` parameterNotFoundAction")
	})
	if _, err := create(t.Context(), "limit", "", map[string]string{"limit": "1"}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the policy to find its parameter", func(ctx context.Context) bool {
		_, err := create(ctx, "limited", "limit", one)
		return err == nil
	})
	t.Run("deny", func(t *testing.T) {
		_, err := create(t.Context(), "denied", "limit", two)
		if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "ValidatingAdmissionPolicy 'limit' with binding 'limit' denied request: at most 1 keys, not 2") {
			t.Errorf("got %v", err)
		}
		if _, err := create(t.Context(), "excepted", "limit", two); err != nil {
			t.Errorf("a match condition does not hold: %v", err)
		}
	})
	t.Run("warn", func(t *testing.T) {
		const want = "Validation failed for ValidatingAdmissionPolicy 'advice' with binding 'advice': every one should have an owner"
		eventually(t, "the warning", func(ctx context.Context) bool {
			_ = maps.Delete(ctx, "advised", metav1.DeleteOptions{})
			_, err := create(ctx, "advised", "advice", nil)
			return err == nil && w.has(want)
		})
	})
	t.Run("mutate", func(t *testing.T) {
		var m *corev1.ConfigMap
		eventually(t, "the mutating policy", func(ctx context.Context) bool {
			_ = maps.Delete(ctx, "mutated", metav1.DeleteOptions{})
			var err error
			m, err = create(ctx, "mutated", "defaults", one)
			return err == nil && m.Annotations["applied"] == "yes"
		})
		if m.Data["patched"] != "yes" {
			t.Errorf("data %v", m.Data)
		}
	})
	t.Run("audit", func(t *testing.T) {
		for name, want := range map[string]string{
			"limited": "limit/keys=1",
			"advised": "validation.policy.admission.k8s.io/validation_failure=",
		} {
			eventually(t, "audit of "+name, func(context.Context) bool { return audited(t, log, name, want) })
		}
	})
	t.Run("who may name parameters", func(t *testing.T) { nameParameters(t, c.Config, client) })
}

// audited looks for an annotation of an event about the ConfigMap.
func audited(t *testing.T, log, name, want string) bool {
	data, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(string(data), "\n") {
		var e auditv1.Event
		if json.Unmarshal([]byte(line), &e) != nil || e.ObjectRef == nil || e.ObjectRef.Name != name {
			continue
		}
		for key, value := range e.Annotations {
			if strings.HasPrefix(key+"="+value, want) {
				return true
			}
		}
	}
	return false
}

// nameParameters: who may write policies may not name parameters that they cannot read.
func nameParameters(t *testing.T, config *rest.Config, admin kubernetes.Interface) {
	if _, err := admin.RbacV1().ClusterRoles().Create(t.Context(), &rbacv1.ClusterRole{
		ObjectMeta: metav1.ObjectMeta{Name: "policies"},
		Rules:      []rbacv1.PolicyRule{{APIGroups: []string{admissionregistrationv1.GroupName}, Resources: []string{"*"}, Verbs: []string{"*"}}},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := admin.RbacV1().ClusterRoleBindings().Create(t.Context(), &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "policies"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "policies"},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: "alice"}},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	config = rest.CopyConfig(config)
	config.Impersonate.UserName = "alice"
	alice := kubernetes.NewForConfigOrDie(config).AdmissionregistrationV1()

	eventually(t, "alice's rights", func(ctx context.Context) bool {
		_, err := alice.ValidatingAdmissionPolicies().List(ctx, metav1.ListOptions{})
		return err == nil
	})
	limit, err := alice.ValidatingAdmissionPolicies().Get(t.Context(), "limit", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	own := &admissionregistrationv1.ValidatingAdmissionPolicy{ObjectMeta: metav1.ObjectMeta{Name: "own"}, Spec: limit.Spec}
	_, err = alice.ValidatingAdmissionPolicies().Create(t.Context(), own, metav1.CreateOptions{})
	if !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), `must have "get" permission on all objects of the referenced paramKind (kind=ConfigMap, apiVersion=v1)`) {
		t.Errorf("policy: %v", err)
	}
	deny := admissionregistrationv1.DenyAction
	bind := func(policy string) error {
		_, err := alice.ValidatingAdmissionPolicyBindings().Create(t.Context(), &admissionregistrationv1.ValidatingAdmissionPolicyBinding{
			ObjectMeta: metav1.ObjectMeta{Name: "own"},
			Spec: admissionregistrationv1.ValidatingAdmissionPolicyBindingSpec{
				PolicyName: policy, ValidationActions: []admissionregistrationv1.ValidationAction{admissionregistrationv1.Deny},
				ParamRef: &admissionregistrationv1.ParamRef{Name: "a", Namespace: "default", ParameterNotFoundAction: &deny},
			},
		}, metav1.CreateOptions{})
		return err
	}
	for policy, want := range map[string]string{
		"limit":   `does not have "get" permission on the object referenced by paramRef`,
		"missing": "unable to get policy missing to determine minimum required permissions",
	} {
		if err := bind(policy); !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), want) {
			t.Errorf("binding of %s: %v", policy, err)
		}
	}
	// Nothing that names parameters has changed.
	limit.Spec.FailurePolicy = nil
	if _, err := alice.ValidatingAdmissionPolicies().Update(t.Context(), limit, metav1.UpdateOptions{}); err != nil {
		t.Errorf("update: %v", err)
	}
}
