package noderestriction

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	resourcev1 "k8s.io/api/resource/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/utils/ptr"
)

var me = &user.DefaultInfo{Name: "system:node:n1", Groups: []string{"system:nodes"}}

func plugin(t *testing.T, objects ...runtime.Object) *Plugin {
	t.Helper()
	f := informers.NewSharedInformerFactory(fake.NewSimpleClientset(objects...), 0) // NewClientset is slow: it knows managed fields
	p := New()
	p.SetExternalKubeInformerFactory(f)
	p.SetUnconditionalAuthorizer(authorizer.AuthorizerFunc(func(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
		if a.GetVerb() == "request-serviceaccounts-token-audience" && a.GetResource() == "granted" && a.GetNamespace() == "ns" && a.GetName() == "sa" {
			return authorizer.DecisionAllow, "", nil
		}
		return authorizer.DecisionNoOpinion, "", nil
	}))
	if err := p.ValidateInitialization(); err != nil {
		t.Fatal(err)
	}
	f.Start(t.Context().Done())
	f.WaitForCacheSync(t.Context().Done())
	return p
}

type request struct {
	user      user.Info
	op        admission.Operation
	resource  string // group/resource/subresource
	name      string
	namespace string
	obj, old  runtime.Object
	refused   string
}

func (r request) run(t *testing.T, p *Plugin, name string) {
	t.Helper()
	f := strings.Split(r.resource+"//", "/")
	if r.user == nil {
		r.user = me
	}
	gvr := schema.GroupVersionResource{Group: f[0], Version: "v1", Resource: f[1]}
	err := p.Admit(t.Context(), admission.NewAttributesRecord(r.obj, r.old, schema.GroupVersionKind{}, r.namespace, r.name, gvr, f[2], r.op, nil, false, r.user), nil)
	switch {
	case r.refused == "" && err != nil:
		t.Errorf("%s: %v", name, err)
	case r.refused != "" && (err == nil || !strings.Contains(err.Error(), r.refused)):
		t.Errorf("%s: %v, want %q", name, err, r.refused)
	}
}

func pod(name, node string, change func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, UID: types.UID(name)}, Spec: corev1.PodSpec{NodeName: node}}
	if change != nil {
		change(p)
	}
	return p
}

func mirror(node string, change func(*corev1.Pod)) *corev1.Pod {
	return pod("m", node, func(p *corev1.Pod) {
		p.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "x"}
		p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: "n1", UID: "n1-uid", Controller: ptr.To(true)}}
		if change != nil {
			change(p)
		}
	})
}

func TestPods(t *testing.T) {
	p := plugin(t, pod("mine", "n1", nil), pod("theirs", "n2", nil), pod("nobodys", "", nil), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1", UID: "n1-uid"}})
	volume := func(v corev1.VolumeSource) func(*corev1.Pod) {
		return func(p *corev1.Pod) { p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: v}} }
	}
	projected := func(s corev1.VolumeProjection) func(*corev1.Pod) {
		return volume(corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{s}}})
	}
	owner := func(change func(*metav1.OwnerReference)) func(*corev1.Pod) {
		return func(p *corev1.Pod) { change(&p.OwnerReferences[0]) }
	}
	eviction := func(name string) *policyv1.Eviction {
		return &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: name}}
	}
	for name, r := range map[string]request{
		"create a mirror pod":            {op: admission.Create, resource: "/pods", obj: mirror("n1", nil)},
		"create a mirror pod elsewhere":  {op: admission.Create, resource: "/pods", obj: mirror("n2", nil), refused: "spec.nodeName set to itself"},
		"create an ordinary pod":         {op: admission.Create, resource: "/pods", obj: pod("x", "n1", nil), refused: "can only create mirror pods"},
		"with a service account":         {op: admission.Create, resource: "/pods", obj: mirror("n1", func(p *corev1.Pod) { p.Spec.ServiceAccountName = "x" }), refused: "reference serviceaccounts"},
		"with a secret":                  {op: admission.Create, resource: "/pods", obj: mirror("n1", volume(corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "x"}})), refused: "reference secrets"},
		"with a config map":              {op: admission.Create, resource: "/pods", obj: mirror("n1", projected(corev1.VolumeProjection{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "x"}}})), refused: "reference configmaps"},
		"with a claim":                   {op: admission.Create, resource: "/pods", obj: mirror("n1", volume(corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "x"}})), refused: "reference persistentvolumeclaims"},
		"with an ephemeral volume":       {op: admission.Create, resource: "/pods", obj: mirror("n1", volume(corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{}})), refused: "reference persistentvolumeclaims"},
		"with a resource claim":          {op: admission.Create, resource: "/pods", obj: mirror("n1", func(p *corev1.Pod) { p.Spec.ResourceClaims = []corev1.PodResourceClaim{{Name: "x"}} }), refused: "reference resourceclaims"},
		"with a token":                   {op: admission.Create, resource: "/pods", obj: mirror("n1", projected(corev1.VolumeProjection{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{}})), refused: "reference serviceaccounts"},
		"with a trust bundle":            {op: admission.Create, resource: "/pods", obj: mirror("n1", projected(corev1.VolumeProjection{ClusterTrustBundle: &corev1.ClusterTrustBundleProjection{}})), refused: "reference clustertrustbundles"},
		"without an owner":               {op: admission.Create, resource: "/pods", obj: mirror("n1", func(p *corev1.Pod) { p.OwnerReferences = nil }), refused: "with an owner reference set to itself"},
		"with two owners":                {op: admission.Create, resource: "/pods", obj: mirror("n1", func(p *corev1.Pod) { p.OwnerReferences = append(p.OwnerReferences, p.OwnerReferences[0]) }), refused: "a single owner reference"},
		"owned by another node":          {op: admission.Create, resource: "/pods", obj: mirror("n1", owner(func(r *metav1.OwnerReference) { r.Name = "n2" })), refused: "with an owner reference set to itself"},
		"owned by a node of the past":    {op: admission.Create, resource: "/pods", obj: mirror("n1", owner(func(r *metav1.OwnerReference) { r.UID = "old" })), refused: "UID mismatch"},
		"owned without a controller":     {op: admission.Create, resource: "/pods", obj: mirror("n1", owner(func(r *metav1.OwnerReference) { r.Controller = nil })), refused: "controller owner reference"},
		"owned and blocking":             {op: admission.Create, resource: "/pods", obj: mirror("n1", owner(func(r *metav1.OwnerReference) { r.BlockOwnerDeletion = ptr.To(true) })), refused: "must not set blockOwnerDeletion"},
		"update a pod":                   {op: admission.Update, resource: "/pods", name: "mine", obj: pod("mine", "n1", nil), old: pod("mine", "n1", nil), refused: "unexpected operation"},
		"delete":                         {op: admission.Delete, resource: "/pods", name: "mine"},
		"delete another's":               {op: admission.Delete, resource: "/pods", name: "theirs", refused: "spec.nodeName set to itself"},
		"delete nobody's":                {op: admission.Delete, resource: "/pods", name: "nobodys", refused: "spec.nodeName set to itself"},
		"delete what is not there":       {op: admission.Delete, resource: "/pods", name: "none", refused: "not found"},
		"status":                         {op: admission.Update, resource: "/pods/status", name: "mine", obj: pod("mine", "n1", nil), old: pod("mine", "n1", nil)},
		"status of another's":            {op: admission.Update, resource: "/pods/status", name: "theirs", obj: pod("theirs", "n1", nil), old: pod("theirs", "n2", nil), refused: "spec.nodeName set to itself"},
		"labels through status":          {op: admission.Update, resource: "/pods/status", name: "mine", obj: pod("mine", "n1", func(p *corev1.Pod) { p.Labels = map[string]string{"a": "b"} }), old: pod("mine", "n1", nil), refused: "cannot update labels through pod status"},
		"resource claims through status": {op: admission.Update, resource: "/pods/status", name: "mine", obj: pod("mine", "n1", func(p *corev1.Pod) { p.Status.ResourceClaimStatuses = []corev1.PodResourceClaimStatus{{Name: "x"}} }), old: pod("mine", "n1", nil), refused: "cannot update resource claim statuses"},
		"create a status":                {op: admission.Create, resource: "/pods/status", name: "mine", obj: pod("mine", "n1", nil), refused: "unexpected operation"},
		"evict":                          {op: admission.Create, resource: "/pods/eviction", name: "mine", obj: eviction("mine")},
		"evict by the body alone":        {op: admission.Create, resource: "/pods/eviction", obj: eviction("mine")},
		"evict another's":                {op: admission.Create, resource: "/pods/eviction", name: "theirs", obj: eviction("mine"), refused: "spec.nodeName set to itself"},
		"evict nothing in particular":    {op: admission.Create, resource: "/pods/eviction", obj: eviction(""), refused: "could not determine pod from request data"},
		"another subresource":            {op: admission.Create, resource: "/pods/binding", name: "mine", obj: &corev1.Binding{}, refused: "unexpected pod subresource"},
		"by somebody else":               {user: &user.DefaultInfo{Name: "admin"}, op: admission.Delete, resource: "/pods", name: "theirs"},
		"by a node without a name":       {user: &user.DefaultInfo{Name: "system:node:", Groups: me.Groups}, op: admission.Delete, resource: "/pods", name: "mine", refused: "could not determine node"},
	} {
		r.namespace = "ns"
		r.run(t, p, name)
	}
}

func TestNodes(t *testing.T) {
	p := plugin(t)
	node := func(name string, change func(*corev1.Node)) *corev1.Node {
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
		if change != nil {
			change(n)
		}
		return n
	}
	labels := func(kv ...string) func(*corev1.Node) {
		return func(n *corev1.Node) {
			n.Labels = map[string]string{}
			for i := 0; i < len(kv); i += 2 {
				n.Labels[kv[i]] = kv[i+1]
			}
		}
	}
	tainted := func(n *corev1.Node) { n.Spec.Taints = []corev1.Taint{{Key: "x"}} }
	for name, r := range map[string]request{
		"create":                       {op: admission.Create, obj: node("n1", tainted)},
		"create with its own labels":   {op: admission.Create, obj: node("n1", labels("kubernetes.io/hostname", "n1", "topology.kubernetes.io/zone", "z", "node.kubernetes.io/x", "y", "example.com/x", "y", "plain", "x"))},
		"create with others' labels":   {op: admission.Create, obj: node("n1", labels("node-restriction.kubernetes.io/x", "", "foo.node-restriction.kubernetes.io/x", "", "node-role.kubernetes.io/control-plane", "", "other.k8s.io/x", "")), refused: "is not allowed to set the following labels: foo.node-restriction.kubernetes.io/x, node-restriction.kubernetes.io/x, node-role.kubernetes.io/control-plane, other.k8s.io/x"},
		"create another":               {op: admission.Create, obj: node("n2", nil), refused: `is not allowed to modify node "n2"`},
		"update another":               {op: admission.Update, name: "n2", obj: node("n2", nil), old: node("n2", nil), refused: `is not allowed to modify node "n2"`},
		"update another's status":      {op: admission.Update, resource: "/nodes/status", name: "n2", obj: node("n2", nil), old: node("n2", nil), refused: `is not allowed to modify node "n2"`},
		"delete another":               {op: admission.Delete, name: "n2", refused: `is not allowed to modify node "n2"`},
		"update":                       {op: admission.Update, name: "n1", obj: node("n1", labels("example.com/x", "1")), old: node("n1", labels("example.com/x", "2"))},
		"others' labels unchanged":     {op: admission.Update, name: "n1", obj: node("n1", labels("other.k8s.io/x", "1", "y", "")), old: node("n1", labels("other.k8s.io/x", "1"))},
		"others' labels changed":       {op: admission.Update, name: "n1", obj: node("n1", labels("other.k8s.io/x", "1")), old: node("n1", labels("other.k8s.io/x", "2")), refused: "is not allowed to modify labels: other.k8s.io/x"},
		"others' labels removed":       {op: admission.Update, resource: "/nodes/status", name: "n1", obj: node("n1", nil), old: node("n1", labels("other.k8s.io/x", "2")), refused: "is not allowed to modify labels: other.k8s.io/x"},
		"taints removed":               {op: admission.Update, name: "n1", obj: node("n1", nil), old: node("n1", tainted), refused: "is not allowed to modify taints"},
		"an owner added":               {op: admission.Update, name: "n1", obj: node("n1", func(n *corev1.Node) { n.OwnerReferences = []metav1.OwnerReference{{}} }), old: node("n1", nil), refused: "is not allowed to modify ownerReferences"},
		"a configuration source added": {op: admission.Update, name: "n1", obj: node("n1", func(n *corev1.Node) { n.Spec.ConfigSource = &corev1.NodeConfigSource{} }), old: node("n1", nil), refused: "configSource"},
	} {
		if r.resource == "" {
			r.resource = "/nodes"
		}
		r.run(t, p, name)
	}
}

func TestTokens(t *testing.T) {
	mine := pod("mine", "n1", func(p *corev1.Pod) {
		p.Spec.Volumes = []corev1.Volume{
			{Name: "t", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Audience: "vault"}}}}}},
			{Name: "k", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{}}}}}},
			{Name: "c", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "claim"}}},
		}
	})
	p := plugin(t, mine, pod("theirs", "n2", nil),
		&corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "claim"}, Spec: corev1.PersistentVolumeClaimSpec{VolumeName: "pv"}},
		&corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "pv"}, Spec: corev1.PersistentVolumeSpec{PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: "csi.example.com"}}}},
		&storagev1.CSIDriver{ObjectMeta: metav1.ObjectMeta{Name: "csi.example.com"}, Spec: storagev1.CSIDriverSpec{TokenRequests: []storagev1.TokenRequest{{Audience: "cloud"}}}})
	bound := func(name, uid string, audiences ...string) *authenticationv1.TokenRequest {
		return &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{Audiences: audiences,
			BoundObjectRef: &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: name, UID: types.UID(uid)}}}
	}
	for name, r := range map[string]request{
		"for a pod of its own":       {obj: bound("mine", "mine")},
		"for a volume's audience":    {obj: bound("mine", "mine", "vault")},
		"for a CSI driver":           {obj: bound("mine", "mine", "cloud")},
		"for a granted audience":     {obj: bound("mine", "mine", "granted")},
		"for any other audience":     {obj: bound("mine", "mine", "bank"), refused: `system:node:n1 is not authorized to request tokens for audience "bank"`},
		"for two audiences":          {obj: bound("mine", "mine", "vault", "cloud"), refused: "node may only request 0 or 1 audiences"},
		"bound to nothing":           {obj: &authenticationv1.TokenRequest{}, refused: "not bound to a pod"},
		"bound without a UID":        {obj: bound("mine", ""), refused: "pod binding without a uid"},
		"for another node's pod":     {obj: bound("theirs", "theirs"), refused: "scheduled on a different node"},
		"for a pod of the past":      {obj: bound("mine", "old"), refused: "does not match the UID in record"},
		"for a pod that is not here": {obj: bound("none", "x"), refused: "not found"},
	} {
		r.op, r.resource, r.namespace, r.name = admission.Create, "/serviceaccounts/token", "ns", "sa"
		r.run(t, p, name)
	}
}

func TestOwnObjects(t *testing.T) {
	p := plugin(t)
	lease := func(name string) *coordinationv1.Lease {
		return &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: name}}
	}
	csr := func(signer, cn string) *certificatesv1.CertificateSigningRequest {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: cn}}, key)
		if err != nil {
			t.Fatal(err)
		}
		return &certificatesv1.CertificateSigningRequest{Spec: certificatesv1.CertificateSigningRequestSpec{SignerName: signer, Request: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})}}
	}
	claim := func(change func(*corev1.PersistentVolumeClaim)) *corev1.PersistentVolumeClaim {
		c := &corev1.PersistentVolumeClaim{}
		if change != nil {
			change(c)
		}
		return c
	}
	const leases, csinodes, slices, csrs, claims = "coordination.k8s.io/leases", "storage.k8s.io/csinodes", "resource.k8s.io/resourceslices", "certificates.k8s.io/certificatesigningrequests", "/persistentvolumeclaims/status"
	for name, r := range map[string]request{
		"own lease":                   {op: admission.Create, resource: leases, namespace: "kube-node-lease", obj: lease("n1")},
		"another's lease":             {op: admission.Create, resource: leases, namespace: "kube-node-lease", obj: lease("n2"), refused: "same name as the requesting node"},
		"a lease elsewhere":           {op: admission.Update, resource: leases, namespace: "kube-system", name: "n1", obj: lease("n1"), refused: "kube-node-lease"},
		"delete another's lease":      {op: admission.Delete, resource: leases, namespace: "kube-node-lease", name: "n2", refused: "same name as the requesting node"},
		"own CSINode":                 {op: admission.Update, resource: csinodes, name: "n1", obj: &storagev1.CSINode{ObjectMeta: metav1.ObjectMeta{Name: "n1"}}},
		"another's CSINode":           {op: admission.Update, resource: csinodes, name: "n2", obj: &storagev1.CSINode{ObjectMeta: metav1.ObjectMeta{Name: "n2"}}, refused: "same name as the requesting node"},
		"own slice":                   {op: admission.Create, resource: slices, obj: &resourcev1.ResourceSlice{Spec: resourcev1.ResourceSliceSpec{NodeName: ptr.To("n1")}}},
		"another's slice":             {op: admission.Create, resource: slices, obj: &resourcev1.ResourceSlice{Spec: resourcev1.ResourceSliceSpec{NodeName: ptr.To("n2")}}, refused: "same NodeName"},
		"a slice of no node":          {op: admission.Create, resource: slices, obj: &resourcev1.ResourceSlice{}, refused: "same NodeName"},
		"own certificate":             {op: admission.Create, resource: csrs, obj: csr(certificatesv1.KubeletServingSignerName, "system:node:n1")},
		"another's certificate":       {op: admission.Create, resource: csrs, obj: csr(certificatesv1.KubeAPIServerClientKubeletSignerName, "system:node:n2"), refused: "can only create a node CSR with CN=system:node:n1"},
		"a certificate of other kind": {op: admission.Create, resource: csrs, obj: csr("example.com/x", "anybody")},
		"no certificate":              {op: admission.Create, resource: csrs, obj: &certificatesv1.CertificateSigningRequest{Spec: certificatesv1.CertificateSigningRequestSpec{SignerName: certificatesv1.KubeletServingSignerName}}, refused: "unable to parse csr"},
		"a claim's size": {op: admission.Update, resource: claims, old: claim(nil), obj: claim(func(c *corev1.PersistentVolumeClaim) {
			c.Status.Conditions = []corev1.PersistentVolumeClaimCondition{{}}
		})},
		"a claim's phase": {op: admission.Update, resource: claims, old: claim(nil), obj: claim(func(c *corev1.PersistentVolumeClaim) { c.Status.Phase = corev1.ClaimBound }), refused: "not allowed to update fields"},
		"a claim itself":  {op: admission.Update, resource: "/persistentvolumeclaims", old: claim(nil), obj: claim(nil), refused: "may only update PVC status"},
	} {
		r.run(t, p, name)
	}
}
