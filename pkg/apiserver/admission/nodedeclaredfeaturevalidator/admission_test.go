package nodedeclaredfeaturevalidator

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/version"
	"k8s.io/component-helpers/nodedeclaredfeatures"

	"github.com/leme-k8s/leme/pkg/apiserver/internal/admissiontest"
)

// hostIPC is needed by an update that switches the host's IPC on.
type hostIPC struct{ last *version.Version }

func (hostIPC) Name() string                                            { return "HostIPC" }
func (hostIPC) Discover(*nodedeclaredfeatures.NodeConfiguration) bool   { return false }
func (hostIPC) Requirements() *nodedeclaredfeatures.FeatureRequirements { return nil }
func (hostIPC) InferForScheduling(*nodedeclaredfeatures.PodInfo) bool   { return false }
func (hostIPC) InferForUpdate(old, pod *nodedeclaredfeatures.PodInfo) bool {
	return pod.Spec.HostIPC && !old.Spec.HostIPC
}
func (f hostIPC) MaxVersion() *version.Version { return f.last }

func TestValidate(t *testing.T) {
	with := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "with"}, Status: corev1.NodeStatus{DeclaredFeatures: []string{"HostIPC"}}}
	without := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "without"}}
	const refusal = `pod update requires features HostIPC which are not available on node "without"`
	for name, c := range map[string]struct {
		node        string
		subresource string
		needless    bool
		same        bool
		last        *version.Version
		err         string
	}{
		"declared":             {node: "with"},
		"not declared":         {node: "without", err: refusal},
		"not declared, resize": {node: "without", subresource: "/resize", err: refusal},
		"the status":           {node: "without", subresource: "/status"},
		"not needed":           {node: "without", needless: true},
		"nothing changes":      {node: "without", same: true},
		"all nodes have it":    {node: "without", last: version.MustParseSemantic("1.36.0")},
		"not on a node":        {},
		"a node that is not":   {node: "gone", err: `node "gone" not found`},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlugin(nodedeclaredfeatures.New([]nodedeclaredfeatures.Feature{hostIPC{c.last}}), version.MustParseSemantic("1.37.0"))
			admissiontest.Start(t, p, with, without)
			old := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p", Generation: 1}, Spec: corev1.PodSpec{NodeName: c.node}}
			pod := old.DeepCopy()
			pod.Spec.HostIPC = !c.needless
			if !c.same {
				pod.Generation = 2
			}
			admissiontest.Check(t, admissiontest.Run(t, p, admissiontest.Request{Resource: "/pods" + c.subresource, Object: pod, Old: old}.Attributes(t)), c.err)
		})
	}
}
