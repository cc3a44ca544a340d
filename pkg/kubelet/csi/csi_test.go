package csi

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	authv1 "k8s.io/api/authentication/v1"
	v1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/utils/ptr"
)

// fakeDriver mounts a file system in memory for each volume.
type fakeDriver struct {
	csi.UnimplementedNodeServer

	mu    sync.Mutex
	calls []string
	last  *csi.NodePublishVolumeRequest
}

func (d *fakeDriver) said(format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.calls = append(d.calls, fmt.Sprintf(format, args...))
}

// heard returns what the driver was asked to do since it was last looked at.
func (d *fakeDriver) heard() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := strings.Join(d.calls, ", ")
	d.calls = nil
	return out
}

func (d *fakeDriver) NodeGetInfo(context.Context, *csi.NodeGetInfoRequest) (*csi.NodeGetInfoResponse, error) {
	return &csi.NodeGetInfoResponse{NodeId: "id-of-node", MaxVolumesPerNode: 7, AccessibleTopology: &csi.Topology{Segments: map[string]string{"zone.example": "a"}}}, nil
}

func (d *fakeDriver) NodeGetCapabilities(context.Context, *csi.NodeGetCapabilitiesRequest) (*csi.NodeGetCapabilitiesResponse, error) {
	return &csi.NodeGetCapabilitiesResponse{Capabilities: []*csi.NodeServiceCapability{{Type: &csi.NodeServiceCapability_Rpc{
		Rpc: &csi.NodeServiceCapability_RPC{Type: csi.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME}}}}}, nil
}

func (d *fakeDriver) NodeStageVolume(_ context.Context, r *csi.NodeStageVolumeRequest) (*csi.NodeStageVolumeResponse, error) {
	d.said("stage %s %v", r.VolumeId, r.Secrets)
	return &csi.NodeStageVolumeResponse{}, nil
}

func (d *fakeDriver) NodeUnstageVolume(_ context.Context, r *csi.NodeUnstageVolumeRequest) (*csi.NodeUnstageVolumeResponse, error) {
	d.said("unstage %s", r.VolumeId)
	return &csi.NodeUnstageVolumeResponse{}, nil
}

func (d *fakeDriver) NodePublishVolume(_ context.Context, r *csi.NodePublishVolumeRequest) (*csi.NodePublishVolumeResponse, error) {
	d.said("publish %s", r.VolumeId)
	d.mu.Lock()
	d.last = r
	d.mu.Unlock()
	if err := os.MkdirAll(r.TargetPath, 0o755); err != nil {
		return nil, err
	}
	if r.VolumeCapability.GetBlock() != nil {
		return &csi.NodePublishVolumeResponse{}, nil
	}
	return &csi.NodePublishVolumeResponse{}, unix.Mount("tmpfs", r.TargetPath, "tmpfs", 0, "size=64k")
}

func (d *fakeDriver) NodeUnpublishVolume(_ context.Context, r *csi.NodeUnpublishVolumeRequest) (*csi.NodeUnpublishVolumeResponse, error) {
	d.said("unpublish %s", r.VolumeId)
	if err := unix.Unmount(r.TargetPath, 0); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return nil, err
	}
	return &csi.NodeUnpublishVolumeResponse{}, nil
}

// world has a driver that serves, and an API.
func world(t *testing.T, objects ...kruntime.Object) (*Manager, *fakeDriver, *fake.Clientset) {
	t.Helper()
	dir := t.TempDir()
	d := &fakeDriver{}
	l, err := net.Listen("unix", filepath.Join(dir, "csi.sock"))
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	csi.RegisterNodeServer(s, d)
	go s.Serve(l)
	t.Cleanup(s.Stop)
	node := &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node", UID: "node-uid", Labels: map[string]string{"was": "there"}}}
	client := fake.NewClientset(append(objects, node)...)
	client.PrependReactor("create", "serviceaccounts", func(clienttesting.Action) (bool, kruntime.Object, error) {
		return true, &authv1.TokenRequest{Status: authv1.TokenRequestStatus{Token: "token"}}, nil
	})
	m := New(Config{RootDir: dir, NodeName: "node", Client: client, Node: func(ctx context.Context) (*v1.Node, error) {
		return client.CoreV1().Nodes().Get(ctx, "node", metav1.GetOptions{})
	}})
	if err := m.Register(t.Context(), "d.example", filepath.Join(dir, "csi.sock"), []string{"1.0.0"}); err != nil {
		t.Fatal(err)
	}
	return m, d, client
}

func podOf(uid types.UID) *v1.Pod {
	return &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "p-" + string(uid), UID: uid}, Spec: v1.PodSpec{ServiceAccountName: "sa"}}
}

func persistent(handle string) *v1.PersistentVolume {
	pv := &v1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "pv-" + handle}}
	pv.Spec.AccessModes = []v1.PersistentVolumeAccessMode{v1.ReadWriteOnce}
	pv.Spec.MountOptions = []string{"noatime"}
	pv.Spec.CSI = &v1.CSIPersistentVolumeSource{Driver: "d.example", VolumeHandle: handle, FSType: "ext4", VolumeAttributes: map[string]string{"a": "b"}}
	return pv
}

func TestRegister(t *testing.T) {
	m, _, client := world(t)
	n, err := client.StorageV1().CSINodes().Get(t.Context(), "node", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	d := n.Spec.Drivers
	if len(d) != 1 || d[0].NodeID != "id-of-node" || *d[0].Allocatable.Count != 7 || !slices.Equal(d[0].TopologyKeys, []string{"zone.example"}) || n.OwnerReferences[0].UID != "node-uid" {
		t.Errorf("CSINode %+v", n)
	}
	node, _ := m.Node(t.Context())
	if node.Labels["zone.example"] != "a" || node.Labels["was"] != "there" || node.Annotations[annotationNodeID] != `{"d.example":"id-of-node"}` {
		t.Errorf("node: %v %v", node.Labels, node.Annotations)
	}
	if err := m.Register(t.Context(), "old", "/nowhere", []string{"0.3.0"}); err == nil || !strings.Contains(err.Error(), "not 1") {
		t.Errorf("an old driver: %v", err)
	}
	m.Deregister(t.Context(), "d.example", "/another.sock")
	if _, err := m.driver("d.example"); err != nil {
		t.Error("the driver went with another one's socket")
	}
	m.Deregister(t.Context(), "d.example", filepath.Join(m.RootDir, "csi.sock"))
	if n, _ = client.StorageV1().CSINodes().Get(t.Context(), "node", metav1.GetOptions{}); len(n.Spec.Drivers) != 0 {
		t.Errorf("still announced: %v", n.Spec.Drivers)
	}
	if _, err := m.Mount(t.Context(), podOf("a"), Volume{PV: persistent("h"), Name: "v"}); err == nil || !strings.Contains(err.Error(), "not found in the list of registered") {
		t.Errorf("without a driver: %v", err)
	}
}

// TestPersistent has two pods share a volume that is attached to the node, over a restart of the kubelet.
func TestPersistent(t *testing.T) {
	secret := &v1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "s", Name: "s"}, Data: map[string][]byte{"k": []byte("v")}}
	m, d, client := world(t, secret)
	pv := persistent("h")
	pv.Spec.CSI.NodeStageSecretRef = &v1.SecretReference{Namespace: "s", Name: "s"}
	v := Volume{PV: pv, Name: "v"}
	if _, err := m.Mount(t.Context(), podOf("a"), v); err == nil || !strings.Contains(err.Error(), "not attached") {
		t.Errorf("before it is attached: %v", err)
	}
	r := m.recordOf(podOf("a"), &v)
	attachment := &storagev1.VolumeAttachment{ObjectMeta: metav1.ObjectMeta{Name: r.Attachment}}
	attachment.Status = storagev1.VolumeAttachmentStatus{Attached: true, AttachmentMetadata: map[string]string{"device": "x"}}
	if _, err := client.StorageV1().VolumeAttachments().Create(t.Context(), attachment, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	mounted, err := m.Mount(t.Context(), podOf("a"), v)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasSuffix(mounted.Path, "/pods/a/volumes/kubernetes.io~csi/pv-h/mount") || !mounted.Own || !mounted.Refresh.IsZero() {
		t.Errorf("mounted as %+v", mounted)
	}
	asked := d.last
	if asked.PublishContext["device"] != "x" || asked.VolumeContext["a"] != "b" || asked.VolumeCapability.GetMount().FsType != "ext4" ||
		asked.VolumeCapability.GetMount().MountFlags[0] != "noatime" || !strings.HasSuffix(asked.StagingTargetPath, "/globalmount") {
		t.Errorf("asked for %v", asked)
	}
	for range 2 { // again, and for another pod
		if _, err := m.Mount(t.Context(), podOf("a"), v); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := m.Mount(t.Context(), podOf("b"), v); err != nil {
		t.Fatal(err)
	}
	if got := d.heard(); got != "stage h map[k:v], publish h, stage h map[k:v], publish h" {
		t.Errorf("the driver was asked to %s", got)
	}
	if got := fmt.Sprint(m.InUse()); got != "[kubernetes.io/csi/d.example^h]" {
		t.Errorf("in use: %s", got)
	}
	if err := m.Unmount(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}

	restarted := New(m.Config)
	restarted.drivers = m.drivers
	restarted.Run(t.Context())
	if got := fmt.Sprint(restarted.InUse()); got != "[kubernetes.io/csi/d.example^h]" {
		t.Errorf("in use after a restart: %s", got)
	}
	for _, uid := range []types.UID{"b", "b", "unknown"} {
		if err := restarted.Unmount(t.Context(), uid); err != nil {
			t.Fatal(err)
		}
	}
	if got := d.heard(); got != "unpublish h, unpublish h, unstage h" {
		t.Errorf("the driver was asked to %s", got)
	}
	if len(restarted.InUse()) != 0 {
		t.Errorf("in use: %v", restarted.InUse())
	}
	if left, _ := filepath.Glob(m.pluginDir("d.example", "*")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestBlock(t *testing.T) {
	m, d, _ := world(t, &storagev1.CSIDriver{ObjectMeta: metav1.ObjectMeta{Name: "d.example"}, Spec: storagev1.CSIDriverSpec{AttachRequired: ptr.To(false)}})
	pv := persistent("h")
	pv.Spec.VolumeMode = ptr.To(v1.PersistentVolumeBlock)
	for range 2 {
		mounted, err := m.Mount(t.Context(), podOf("a"), Volume{PV: pv, Name: "v", ReadOnly: true})
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasSuffix(mounted.Path, "/plugins/kubernetes.io/csi/volumeDevices/publish/pv-h/a") || mounted.Own {
			t.Errorf("mounted as %+v", mounted)
		}
	}
	if d.last.VolumeCapability.GetBlock() == nil || !d.last.Readonly || len(m.InUse()) != 0 {
		t.Errorf("asked for %v", d.last)
	}
	if err := m.Unmount(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if got := d.heard(); got != "stage h map[], publish h, unpublish h, unstage h" {
		t.Errorf("the driver was asked to %s", got)
	}
	var left []string
	for _, pattern := range []string{"*", "*/*"} {
		paths, _ := filepath.Glob(m.pluginDir("volumeDevices", pattern))
		left = append(left, paths...)
	}
	if want := []string{m.pluginDir("volumeDevices", "publish"), m.pluginDir("volumeDevices", "staging")}; !slices.Equal(left, want) {
		t.Errorf("left behind: %v", left)
	}
}

// TestInline mounts a volume that lives as long as its pod, of a driver that wants to know the pod.
func TestInline(t *testing.T) {
	driver := &storagev1.CSIDriver{ObjectMeta: metav1.ObjectMeta{Name: "d.example"}, Spec: storagev1.CSIDriverSpec{
		PodInfoOnMount: ptr.To(true), RequiresRepublish: ptr.To(true), TokenRequests: []storagev1.TokenRequest{{Audience: "x"}},
		VolumeLifecycleModes: []storagev1.VolumeLifecycleMode{storagev1.VolumeLifecycleEphemeral},
	}}
	m, d, _ := world(t, driver)
	v := Volume{Inline: &v1.CSIVolumeSource{Driver: "d.example", VolumeAttributes: map[string]string{"a": "b"}}, Name: "v"}
	mounted, err := m.Mount(t.Context(), podOf("a"), v)
	if err != nil {
		t.Fatal(err)
	}
	if mounted.Own || mounted.Refresh.IsZero() {
		t.Errorf("mounted as %+v", mounted)
	}
	got := d.last.VolumeContext
	if got["a"] != "b" || got["csi.storage.k8s.io/pod.uid"] != "a" || got["csi.storage.k8s.io/ephemeral"] != "true" ||
		!strings.Contains(got["csi.storage.k8s.io/serviceAccount.tokens"], `"x":{"token":"token"`) {
		t.Errorf("attributes %v", got)
	}
	if _, err := m.Mount(t.Context(), podOf("a"), Volume{PV: persistent("h"), Name: "w"}); err == nil || !strings.Contains(err.Error(), `volume mode "Persistent" not supported`) {
		t.Errorf("a persistent volume: %v", err)
	}
	d.heard()
	if err := m.Unmount(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if got := d.heard(); !strings.HasPrefix(got, "unpublish csi-") || strings.Contains(got, "unstage") {
		t.Errorf("the driver was asked to %s", got)
	}
}

func TestOwns(t *testing.T) {
	many := persistent("h")
	many.Spec.AccessModes = []v1.PersistentVolumeAccessMode{v1.ReadWriteMany}
	untyped := persistent("h")
	untyped.Spec.CSI.FSType = ""
	for name, test := range map[string]struct {
		policy storagev1.FSGroupPolicy
		volume Volume
		want   bool
	}{
		"none":                  {storagev1.NoneFSGroupPolicy, Volume{PV: persistent("h")}, false},
		"file":                  {storagev1.FileFSGroupPolicy, Volume{PV: many}, true},
		"one writer":            {storagev1.ReadWriteOnceWithFSTypeFSGroupPolicy, Volume{PV: persistent("h")}, true},
		"many writers":          {storagev1.ReadWriteOnceWithFSTypeFSGroupPolicy, Volume{PV: many}, false},
		"no type":               {storagev1.ReadWriteOnceWithFSTypeFSGroupPolicy, Volume{PV: untyped}, false},
		"inline without a type": {storagev1.ReadWriteOnceWithFSTypeFSGroupPolicy, Volume{Inline: &v1.CSIVolumeSource{}}, false},
	} {
		p := policy{storagev1.CSIDriverSpec{FSGroupPolicy: &test.policy}}
		if got := p.owns(&test.volume); got != test.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}
