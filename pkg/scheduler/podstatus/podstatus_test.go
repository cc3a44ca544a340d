package podstatus

import (
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

func TestSetCondition(t *testing.T) {
	then, now := metav1.Unix(1, 0), metav1.Unix(2, 0)
	c := v1.PodCondition{Type: v1.PodScheduled, Status: v1.ConditionFalse, Reason: "Unschedulable", Message: "a"}
	var first, again, other Change
	if first.SetCondition(&v1.PodStatus{}, c, then); first.Empty() {
		t.Fatal("a new condition is no change")
	}
	status := &v1.PodStatus{Conditions: []v1.PodCondition{*first.Condition}}
	if again.SetCondition(status, c, now); !again.Empty() {
		t.Errorf("the same condition is a change: %v", again.Condition)
	}
	c.Message = "b"
	if other.SetCondition(status, c, now); other.Empty() || other.Condition.LastTransitionTime != then {
		t.Errorf("another message is a change but no transition: %v", other.Condition)
	}
	if status.Conditions[0].Message != "a" {
		t.Error("the status itself has changed")
	}
}

// What is written is what is different, and nothing else of the status is touched.
func TestPatch(t *testing.T) {
	pod := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "p", UID: "u"}, Status: v1.PodStatus{
		NominatedNodeName: "a", Conditions: []v1.PodCondition{{Type: v1.PodReady, Status: v1.ConditionFalse}},
	}}
	client := fake.NewClientset(pod)
	var change Change
	change.SetNominatedNodeName(&pod.Status, "")
	change.SetCondition(&pod.Status, v1.PodCondition{Type: v1.PodScheduled, Status: v1.ConditionFalse, Reason: "Unschedulable"}, metav1.Unix(1, 0))
	if err := change.Patch(t.Context(), client, pod); err != nil {
		t.Fatal(err)
	}
	got, err := client.CoreV1().Pods("n").Get(t.Context(), "p", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if c := got.Status.Conditions; got.Status.NominatedNodeName != "" || len(c) != 2 || c[0].Type != v1.PodReady || c[1].Reason != "Unschedulable" {
		t.Errorf("the status is %+v", got.Status)
	}
	patch := client.Actions()[0].(clienttesting.PatchAction).GetPatch()
	if want := `{"metadata":{"uid":"u"},"status":{"$setElementOrder/conditions":[{"type":"Ready"},{"type":"PodScheduled"}],"conditions":[{"type":"PodScheduled","status":"False","lastProbeTime":null,"lastTransitionTime":"1970-01-01T00:00:01Z","reason":"Unschedulable"}],"nominatedNodeName":null}}`; string(patch) != want {
		t.Errorf("the patch is %s, want %s", patch, want)
	}
}
