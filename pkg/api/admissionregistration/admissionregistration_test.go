package admissionregistration

import (
	"testing"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/leme-k8s/leme/pkg/api/apitest"
)

const collection = "/apis/admissionregistration.k8s.io/v1/"

func TestValidatingWebhookConfiguration(t *testing.T) {
	apitest.Run(t, "testdata/validatingwebhookconfiguration.txtar", apitest.Kind[admissionregistrationv1.ValidatingWebhookConfiguration, *admissionregistrationv1.ValidatingWebhookConfiguration]{
		Path:        collection + "validatingwebhookconfigurations",
		AddDefaults: AddDefaults,
		Create:      ValidateValidatingWebhookConfiguration,
		Update:      ValidateValidatingWebhookConfigurationUpdate,
	})
}

func TestMutatingWebhookConfiguration(t *testing.T) {
	apitest.Run(t, "testdata/mutatingwebhookconfiguration.txtar", apitest.Kind[admissionregistrationv1.MutatingWebhookConfiguration, *admissionregistrationv1.MutatingWebhookConfiguration]{
		Path:        collection + "mutatingwebhookconfigurations",
		AddDefaults: AddDefaults,
		Create:      ValidateMutatingWebhookConfiguration,
		Update:      ValidateMutatingWebhookConfigurationUpdate,
	})
}

func TestValidatingAdmissionPolicy(t *testing.T) {
	apitest.Run(t, "testdata/validatingadmissionpolicy.txtar", apitest.Kind[admissionregistrationv1.ValidatingAdmissionPolicy, *admissionregistrationv1.ValidatingAdmissionPolicy]{
		Path:        collection + "validatingadmissionpolicies",
		AddDefaults: AddDefaults,
		Create:      ValidateValidatingAdmissionPolicy,
		Update:      ValidateValidatingAdmissionPolicyUpdate,
		Status:      ValidateValidatingAdmissionPolicyStatusUpdate,
	})
}

func TestValidatingAdmissionPolicyBinding(t *testing.T) {
	apitest.Run(t, "testdata/validatingadmissionpolicybinding.txtar", apitest.Kind[admissionregistrationv1.ValidatingAdmissionPolicyBinding, *admissionregistrationv1.ValidatingAdmissionPolicyBinding]{
		Path:        collection + "validatingadmissionpolicybindings",
		AddDefaults: AddDefaults,
		Create:      ValidateValidatingAdmissionPolicyBinding,
		Update:      ValidateValidatingAdmissionPolicyBindingUpdate,
	})
}

func TestMutatingAdmissionPolicy(t *testing.T) {
	apitest.Run(t, "testdata/mutatingadmissionpolicy.txtar", apitest.Kind[admissionregistrationv1.MutatingAdmissionPolicy, *admissionregistrationv1.MutatingAdmissionPolicy]{
		Path:        collection + "mutatingadmissionpolicies",
		AddDefaults: AddDefaults,
		Create:      ValidateMutatingAdmissionPolicy,
		Update:      ValidateMutatingAdmissionPolicyUpdate,
	})
}

func TestMutatingAdmissionPolicyBinding(t *testing.T) {
	apitest.Run(t, "testdata/mutatingadmissionpolicybinding.txtar", apitest.Kind[admissionregistrationv1.MutatingAdmissionPolicyBinding, *admissionregistrationv1.MutatingAdmissionPolicyBinding]{
		Path:        collection + "mutatingadmissionpolicybindings",
		AddDefaults: AddDefaults,
		Create:      ValidateMutatingAdmissionPolicyBinding,
		Update:      ValidateMutatingAdmissionPolicyBindingUpdate,
	})
}

// TestOldWebhooks: what was written before there was a rule against it stays.
func TestOldWebhooks(t *testing.T) {
	some, url := admissionregistrationv1.SideEffectClassSome, "https://example.com"
	old := &admissionregistrationv1.ValidatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: "a"},
		Webhooks: []admissionregistrationv1.ValidatingWebhook{
			{Name: "a.b.c", ClientConfig: admissionregistrationv1.WebhookClientConfig{URL: &url}, SideEffects: &some, AdmissionReviewVersions: []string{"v0"}},
			{Name: "a.b.c", ClientConfig: admissionregistrationv1.WebhookClientConfig{URL: &url}, SideEffects: &some, AdmissionReviewVersions: []string{"v0"},
				MatchConditions: []admissionregistrationv1.MatchCondition{{Name: "a", Expression: "noSuchVariable"}}},
		},
	}
	if errs := ValidateValidatingWebhookConfigurationUpdate(old.DeepCopy(), old); len(errs) > 0 {
		t.Error(errs)
	}
	if errs := ValidateValidatingWebhookConfiguration(old); len(errs) != 6 {
		t.Errorf("as new: %v", errs)
	}
}

func TestWarnings(t *testing.T) {
	excluded := []schema.GroupResource{{Group: "authentication.k8s.io", Resource: "tokenreviews"}}
	for group, want := range map[string]int{"authentication.k8s.io": 1, "*": 0, "example.com": 0} {
		c := &admissionregistrationv1.MutatingWebhookConfiguration{Webhooks: []admissionregistrationv1.MutatingWebhook{{
			Rules: []admissionregistrationv1.RuleWithOperations{{Rule: admissionregistrationv1.Rule{
				APIGroups: []string{group}, APIVersions: []string{"*"}, Resources: []string{"tokenreviews", "pods"},
			}}},
		}}}
		if got := WarnMutatingWebhookConfiguration(c, excluded); len(got) != want {
			t.Errorf("%s: %v", group, got)
		}
	}
}
