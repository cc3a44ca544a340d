package apiserver_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/leme-k8s/leme/pkg/testcluster"
)

// TestAuthorizationConfiguration asks webhooks that a file names, under conditions, in the
// order and with the failure policy that it says; and others when the file changes.
func TestAuthorizationConfiguration(t *testing.T) {
	dir := t.TempDir()
	hook := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var review authorizationv1.SubjectAccessReview
		if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		switch strings.Trim(r.URL.Path, "/") {
		case "broken":
			http.Error(w, "broken", http.StatusTeapot)
			return
		case "deny":
			review.Status = authorizationv1.SubjectAccessReviewStatus{Denied: true, Reason: "the webhook denies it"}
		case "allow":
			review.Status.Allowed = true
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(review)
	}))
	defer hook.Close()
	kubeconfig := func(path string) string {
		return write(t, filepath.Join(dir, path), strings.Replace(kubeconfigOf(hook), hook.URL, hook.URL+"/"+path, 1))
	}
	webhook := func(name, path, failure, condition string) string {
		return fmt.Sprintf(`
- type: Webhook
  name: %s
  webhook:
    authorizedTTL: 1ms
    unauthorizedTTL: 1ms
    timeout: 3s
    subjectAccessReviewVersion: v1
    matchConditionSubjectAccessReviewVersion: v1
    failurePolicy: %s
    connectionInfo: {type: KubeConfigFile, kubeConfigFile: %s}
    matchConditions: [{expression: "%s"}]`, name, failure, kubeconfig(path), condition)
	}
	configuration := func(webhooks ...string) string {
		return "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthorizationConfiguration\nauthorizers:" + strings.Join(webhooks, "") +
			"\n- {type: Node, name: node}\n- {type: RBAC, name: rbac}\n"
	}
	file := write(t, filepath.Join(dir, "authorization.yaml"), configuration(
		webhook("denier", "deny", "Deny", "request.user == 'villain'"),
		webhook("broken-open", "broken", "NoOpinion", "request.user == 'guest'"),
		webhook("broken-closed", "broken", "Deny", "request.user == 'stranger'"),
		webhook("allower", "allow", "NoOpinion", "has(request.resourceAttributes) && request.resourceAttributes.namespace == 'open'")))
	client := testcluster.Start(t, testcluster.WithAPIServerFlags("--authorization-config="+file)).Client(t)
	review := func(client kubernetes.Interface, user, namespace string) authorizationv1.SubjectAccessReviewStatus {
		r, err := client.AuthorizationV1().SubjectAccessReviews().Create(t.Context(), &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
			User: user, ResourceAttributes: &authorizationv1.ResourceAttributes{Namespace: namespace, Verb: "get", Version: "v1", Resource: "pods"},
		}}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return r.Status
	}
	for name, c := range map[string]struct {
		user, namespace string
		allowed, denied bool
	}{
		"denied before it could be allowed": {"villain", "open", false, true},
		"a webhook fails, the next allows":  {"guest", "open", true, false},
		"a webhook fails, and so denies":    {"stranger", "open", false, true},
		"no condition is met, no rule":      {"jane", "closed", false, false},
		"allowed":                           {"jane", "open", true, false},
		"by RBAC":                           {"system:kube-scheduler", "closed", true, false},
	} {
		if s := review(client, c.user, c.namespace); s.Allowed != c.allowed || s.Denied != c.denied {
			t.Errorf("%s: %+v", name, s)
		}
	}
	if m := metrics(t, client); !strings.Contains(m, `apiserver_authorization_decisions_total{decision="denied",name="denier",type="Webhook"}`) {
		t.Error("metrics do not count what a webhook denied")
	}

	write(t, file, configuration(webhook("bad", "deny", "Deny", "request.nonsense == ''")))
	eventually(t, "a wrong file is counted", func(context.Context) bool {
		return counted(metrics(t, client), "apiserver_authorization_config_controller_automatic_reloads_total", `status="failure"`)
	})
	if s := review(client, "jane", "open"); !s.Allowed {
		t.Errorf("after a wrong file: %+v", s)
	}
	write(t, file, configuration(webhook("denier", "deny", "Deny", "request.user == 'jane'")))
	eventually(t, "a new file is in use", func(context.Context) bool { return review(client, "jane", "open").Denied })
}
