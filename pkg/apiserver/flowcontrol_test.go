package apiserver_test

import (
	"context"
	"net/http"
	"testing"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/leme-k8s/leme/pkg/testcluster"
)

// TestFlowControl: the objects are there, a request says which it matched, and an
// administrator's FlowSchema is heeded.
func TestFlowControl(t *testing.T) {
	c := testcluster.Start(t)
	api := c.Client(t).FlowcontrolV1()
	levels, err := api.PriorityLevelConfigurations().List(t.Context(), metav1.ListOptions{})
	if err != nil || len(levels.Items) != 8 {
		t.Errorf("%d PriorityLevelConfigurations, %v", len(levels.Items), err)
	}
	schemas, err := api.FlowSchemas().List(t.Context(), metav1.ListOptions{})
	if err != nil || len(schemas.Items) != 11 {
		t.Errorf("%d FlowSchemas, %v", len(schemas.Items), err)
	}
	uid := func(name string) string {
		for _, f := range schemas.Items {
			if f.Name == name {
				return string(f.UID)
			}
		}
		return ""
	}
	eventually(t, "the exempt schema to match", func(ctx context.Context) bool { return matched(t, c.Config, "") == uid("exempt") })
	eventually(t, "the global default to match", func(ctx context.Context) bool { return matched(t, c.Config, "alice") == uid("global-default") })

	own, err := api.FlowSchemas().Create(t.Context(), &flowcontrolv1.FlowSchema{
		ObjectMeta: metav1.ObjectMeta{Name: "own"},
		Spec: flowcontrolv1.FlowSchemaSpec{
			PriorityLevelConfiguration: flowcontrolv1.PriorityLevelConfigurationReference{Name: "workload-low"},
			Rules: []flowcontrolv1.PolicyRulesWithSubjects{{
				Subjects:         []flowcontrolv1.Subject{{Kind: flowcontrolv1.SubjectKindUser, User: &flowcontrolv1.UserSubject{Name: "alice"}}},
				NonResourceRules: []flowcontrolv1.NonResourcePolicyRule{{Verbs: []string{"*"}, NonResourceURLs: []string{"*"}}},
			}},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the administrator's schema to match", func(ctx context.Context) bool { return matched(t, c.Config, "alice") == string(own.UID) })
	eventually(t, "its status", func(ctx context.Context) bool {
		f, err := api.FlowSchemas().Get(ctx, "own", metav1.GetOptions{})
		return err == nil && len(f.Status.Conditions) == 1 && f.Status.Conditions[0].Status == flowcontrolv1.ConditionFalse
	})
}

// matched is the FlowSchema that a request of the user's matches; no user is the administrator.
func matched(t *testing.T, config *rest.Config, user string) string {
	t.Helper()
	config = rest.CopyConfig(config)
	config.Impersonate.UserName = user
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, config.Host+"/version", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	return resp.Header.Get(flowcontrolv1.ResponseHeaderMatchedFlowSchemaUID)
}
