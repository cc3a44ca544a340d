package controller_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func testPolicyStatus(t *testing.T, shared *cluster) {
	c := shared.in(t)
	policies := c.cs.AdmissionregistrationV1().ValidatingAdmissionPolicies()
	_, err := policies.Create(t.Context(), &admissionregistrationv1.ValidatingAdmissionPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: c.ns},
		Spec: admissionregistrationv1.ValidatingAdmissionPolicySpec{
			MatchConstraints: &admissionregistrationv1.MatchResources{ResourceRules: []admissionregistrationv1.NamedRuleWithOperations{{
				RuleWithOperations: admissionregistrationv1.RuleWithOperations{
					Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Create},
					Rule:       admissionregistrationv1.Rule{APIGroups: []string{"apps"}, APIVersions: []string{"v1"}, Resources: []string{"deployments"}},
				},
			}}},
			Validations: []admissionregistrationv1.Validation{
				{Expression: "object.spec.replicas > 1"},
				{Expression: "object.spec.replicas > '1'"},
			},
		},
	}, metav1.CreateOptions{})
	c.must(err)
	c.eventually("a warning about a wrong type", func(ctx context.Context) (bool, string) {
		p, err := policies.Get(ctx, c.ns, metav1.GetOptions{})
		c.must(err)
		if p.Status.ObservedGeneration != p.Generation || p.Status.TypeChecking == nil {
			return false, fmt.Sprintf("%+v", p.Status)
		}
		w := p.Status.TypeChecking.ExpressionWarnings
		ok := len(w) == 1 && w[0].FieldRef == "spec.validations[1].expression" && strings.Contains(w[0].Warning, "no matching overload")
		return ok, fmt.Sprintf("%+v", w)
	})
	c.must(policies.Delete(t.Context(), c.ns, metav1.DeleteOptions{}))
}
