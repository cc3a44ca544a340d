package node

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/ptr"

	"github.com/leme-k8s/leme/pkg/apiserver/authorization/bootstrap"
)

// pod refers to one object of each kind, each named after itself.
func pod(name, node string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, UID: types.UID(name)},
		Spec: corev1.PodSpec{
			NodeName:           node,
			ServiceAccountName: "sa-" + name,
			ImagePullSecrets:   []corev1.LocalObjectReference{{Name: "pull-" + name}, {Name: "shared"}},
			InitContainers:     []corev1.Container{{EnvFrom: []corev1.EnvFromSource{{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "init-" + name}}}}}},
			Containers: []corev1.Container{{Env: []corev1.EnvVar{{ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{
				LocalObjectReference: corev1.LocalObjectReference{Name: "cm-" + name}}}}}}},
			Volumes: []corev1.Volume{
				{Name: "s", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "secret-" + name}}},
				{Name: "c", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "pvc-" + name}}},
				{Name: "e", VolumeSource: corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{}}},
			},
			ResourceClaims: []corev1.PodResourceClaim{{Name: "r", ResourceClaimName: ptr.To("claim-" + name)}},
		},
	}
}

func volumeOf(name string) *corev1.PersistentVolume {
	return &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: "pv-" + name},
		Spec: corev1.PersistentVolumeSpec{
			ClaimRef: &corev1.ObjectReference{Namespace: "ns", Name: "pvc-" + name},
			PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{
				NodeStageSecretRef:         &corev1.SecretReference{Namespace: "storage", Name: "stage-" + name},
				ControllerPublishSecretRef: &corev1.SecretReference{Namespace: "storage", Name: "controller-" + name},
			}},
		},
	}
}

func TestAuthorizer(t *testing.T) {
	mirror := pod("mirror", "n1")
	mirror.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "x"}
	objects := []runtime.Object{
		pod("p1", "n1"), pod("p2", "n2"), pod("unscheduled", ""), mirror, volumeOf("p1"), volumeOf("p2"),
		&storagev1.VolumeAttachment{ObjectMeta: metav1.ObjectMeta{Name: "att1"}, Spec: storagev1.VolumeAttachmentSpec{NodeName: "n1"}},
		&storagev1.VolumeAttachment{ObjectMeta: metav1.ObjectMeta{Name: "att2"}, Spec: storagev1.VolumeAttachmentSpec{NodeName: "n2"}},
		&resourcev1.ResourceSlice{ObjectMeta: metav1.ObjectMeta{Name: "slice1"}, Spec: resourcev1.ResourceSliceSpec{NodeName: ptr.To("n1")}},
		&resourcev1.ResourceSlice{ObjectMeta: metav1.ObjectMeta{Name: "slice2"}, Spec: resourcev1.ResourceSliceSpec{NodeName: ptr.To("n2")}},
	}
	f := informers.NewSharedInformerFactory(fake.NewSimpleClientset(objects...), 0) // NewClientset is slow: it knows managed fields
	rules, err := bootstrap.NodeRules()
	if err != nil {
		t.Fatal(err)
	}
	n, err := newNodes(f, nil, rules)
	if err != nil {
		t.Fatal(err)
	}
	a := authorizer.AuthorizerFunc(n.authorize)
	n1 := &user.DefaultInfo{Name: "system:node:n1", Groups: []string{"system:nodes"}}

	// Before anything is known, nothing is allowed that depends on it.
	early := authorizer.AttributesRecord{User: n1, Verb: "get", Resource: "secrets", Namespace: "ns", Name: "secret-p1", ResourceRequest: true}
	if decision, why, _ := a.Authorize(t.Context(), early); decision != authorizer.DecisionNoOpinion || !strings.Contains(why, "does not know all pods yet") {
		t.Errorf("before the caches are filled: %v, %s", decision, why)
	}
	f.Start(t.Context().Done())
	if !cache.WaitForCacheSync(t.Context().Done(), n.synced) {
		t.Fatal("not synced")
	}

	// "verb group/resource[/subresource] namespace/name [field=value]"
	for line, want := range map[string]bool{
		"get /secrets ns/secret-p1":                                            true,
		"list /secrets ns/secret-p1":                                           true,
		"watch /secrets ns/secret-p1":                                          true,
		"get /secrets ns/pull-p1":                                              true,
		"get /secrets ns/init-p1":                                              true,
		"get /secrets ns/shared":                                               true,
		"get /secrets ns/secret-p2":                                            false,
		"get /secrets ns/secret-unscheduled":                                   false,
		"get /secrets ns/secret-mirror":                                        false,
		"get /secrets other/secret-p1":                                         false,
		"list /secrets ns/":                                                    false,
		"list /secrets /secret-p1":                                             false,
		"update /secrets ns/secret-p1":                                         false,
		"delete /secrets ns/secret-p1":                                         false,
		"get /secrets storage/stage-p1":                                        true,
		"get /secrets storage/stage-p2":                                        false,
		"get /secrets storage/controller-p1":                                   false,
		"get /configmaps ns/cm-p1":                                             true,
		"get /configmaps ns/cm-p2":                                             false,
		"list /configmaps ns/":                                                 false,
		"get /persistentvolumeclaims ns/pvc-p1":                                true,
		"get /persistentvolumeclaims ns/p1-e":                                  true,
		"get /persistentvolumeclaims ns/pvc-p2":                                false,
		"list /persistentvolumeclaims ns/pvc-p1":                               false,
		"patch /persistentvolumeclaims/status ns/pvc-p1":                       true,
		"patch /persistentvolumeclaims/status ns/pvc-p2":                       false,
		"get /persistentvolumes /pv-p1":                                        true,
		"get /persistentvolumes /pv-p2":                                        false,
		"get resource.k8s.io/resourceclaims ns/claim-p1":                       true,
		"get resource.k8s.io/resourceclaims ns/claim-p2":                       false,
		"get storage.k8s.io/volumeattachments /att1":                           true,
		"get storage.k8s.io/volumeattachments /att2":                           false,
		"create /serviceaccounts/token ns/sa-p1":                               true,
		"create /serviceaccounts/token ns/sa-p2":                               false,
		"get /serviceaccounts ns/sa-p1":                                        true,
		"get /serviceaccounts ns/sa-p2":                                        false,
		"create /serviceaccounts ns/sa-p1":                                     false,
		"get coordination.k8s.io/leases kube-node-lease/n1":                    true,
		"create coordination.k8s.io/leases kube-node-lease/":                   true,
		"update coordination.k8s.io/leases kube-node-lease/n2":                 false,
		"list coordination.k8s.io/leases kube-node-lease/":                     false,
		"get coordination.k8s.io/leases kube-system/n1":                        false,
		"patch storage.k8s.io/csinodes /n1":                                    true,
		"patch storage.k8s.io/csinodes /n2":                                    false,
		"create resource.k8s.io/resourceslices /x":                             true,
		"update resource.k8s.io/resourceslices /slice1":                        true,
		"delete resource.k8s.io/resourceslices /slice2":                        false,
		"list resource.k8s.io/resourceslices / spec.nodeName=n1":               true,
		"list resource.k8s.io/resourceslices / spec.nodeName=n2":               false,
		"list resource.k8s.io/resourceslices /":                                false,
		"get /pods ns/p1":                                                      true,
		"get /pods ns/p2":                                                      false,
		"get /pods ns/mirror":                                                  true,
		"list /pods / spec.nodeName=n1":                                        true,
		"watch /pods / spec.nodeName=n2":                                       false,
		"list /pods /":                                                         false,
		"create /pods ns/":                                                     true,
		"delete /pods ns/p2":                                                   true, // admission compares the node
		"patch /pods/status ns/p1":                                             true,
		"create /pods/eviction ns/p1":                                          true,
		"get /pods/log ns/p1":                                                  false,
		"create /pods/exec ns/p1":                                              false,
		"get /nodes /n1":                                                       true,
		"watch /nodes /n1":                                                     true,
		"get /nodes /n2":                                                       false,
		"list /nodes /":                                                        false,
		"create /nodes /":                                                      true,
		"patch /nodes/status /n1":                                              true,
		"get /nodes/proxy /n1":                                                 false,
		"list /services /":                                                     true,
		"create certificates.k8s.io/certificatesigningrequests /":              true,
		"list certificates.k8s.io/podcertificaterequests ns/ spec.nodeName=n1": true,
		"list certificates.k8s.io/podcertificaterequests ns/":                  false,
		"list rbac.authorization.k8s.io/clusterroles /":                        false,
	} {
		if got := decide(t, a, n1, line); got != want {
			t.Errorf("%s: allowed %v", line, got)
		}
	}

	for name, u := range map[string]user.Info{
		"without the group":   &user.DefaultInfo{Name: "system:node:n1"},
		"without a node name": &user.DefaultInfo{Name: "system:node:", Groups: []string{"system:nodes"}},
		"somebody else":       &user.DefaultInfo{Name: "n1", Groups: []string{"system:nodes"}},
	} {
		if decide(t, a, u, "get /secrets ns/secret-p1") {
			t.Errorf("a user %s is taken for a node", name)
		}
	}
}

func decide(t *testing.T, a authorizer.Authorizer, u user.Info, line string) bool {
	t.Helper()
	f := strings.Fields(line)
	group, resource, _ := strings.Cut(f[1], "/")
	resource, subresource, _ := strings.Cut(resource, "/")
	namespace, name, _ := strings.Cut(f[2], "/")
	r := authorizer.AttributesRecord{User: u, Verb: f[0], APIGroup: group, Resource: resource, Subresource: subresource, Namespace: namespace, Name: name, ResourceRequest: true}
	if len(f) > 3 {
		selector, err := fields.ParseSelector(f[3])
		if err != nil {
			t.Fatal(err)
		}
		r.FieldSelectorRequirements = selector.Requirements()
	}
	decision, _, err := a.Authorize(t.Context(), r)
	if err != nil || decision == authorizer.DecisionDeny {
		t.Errorf("%s: %v, %v", line, decision, err)
	}
	return decision == authorizer.DecisionAllow
}

// What a node loses, it can no longer read, and the index keeps nothing.
func TestIndexForgets(t *testing.T) {
	x := newIndex()
	x.setPod(pod("p1", "n1"))
	twin := pod("p3", "n1")
	x.setPod(twin)
	x.setVolume(volumeOf("p1"))
	shared := object{secrets, types.NamespacedName{Namespace: "ns", Name: "shared"}}
	stage := object{secrets, types.NamespacedName{Namespace: "storage", Name: "stage-p1"}}
	if !x.needs("n1", shared) || !x.needs("n1", stage) {
		t.Fatal("a need is not known")
	}
	x.deletePod(types.NamespacedName{Namespace: "ns", Name: "p1"})
	if !x.needs("n1", shared) || x.needs("n1", stage) {
		t.Error("after one pod of two is gone")
	}
	// The same name again, on another node.
	moved := pod("p3", "n2")
	moved.UID = "new"
	x.setPod(moved)
	if x.needs("n1", shared) || !x.needs("n2", shared) {
		t.Error("after a pod was replaced by one on another node")
	}
	// And again, on none yet.
	unbound := pod("p3", "")
	unbound.UID = "newer"
	x.setPod(unbound)
	if x.needs("n2", shared) {
		t.Error("after a pod was replaced by one without a node")
	}
	x.deleteVolume("pv-p1")
	if len(x.pods)+len(x.users)+len(x.volumes)+len(x.volumesOf) != 0 {
		t.Errorf("left over: %v", x)
	}
}
