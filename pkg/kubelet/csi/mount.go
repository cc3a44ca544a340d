package csi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	authv1 "k8s.io/api/authentication/v1"
	v1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
	mount "k8s.io/mount-utils"
	"k8s.io/utils/ptr"
)

// patience is how long a driver may take.
const patience = 2 * time.Minute

// Mount stages a volume, if its driver does so, and publishes it for a pod. What is published already is left alone, unless
// its driver wants to be asked again.
func (m *Manager) Mount(ctx context.Context, pod *v1.Pod, v Volume) (Mounted, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	r := m.recordOf(pod, &v)
	m.volumes.LockKey(r.key())
	defer m.volumes.UnlockKey(r.key()) //nolint:errcheck // it is locked

	d, err := m.driver(r.Driver)
	if err != nil {
		return Mounted{}, err
	}
	policy, err := m.policy(ctx, &r)
	if err != nil {
		return Mounted{}, err
	}
	can, err := d.capabilities(ctx)
	if err != nil {
		return Mounted{}, err
	}
	block := v.PV != nil && ptr.Deref(v.PV.Spec.VolumeMode, v1.PersistentVolumeFilesystem) == v1.PersistentVolumeBlock
	at := m.places(pod.UID, &r, block)
	result := Mounted{Path: at.target, Own: !block && !v.ReadOnly && !can[csi.NodeServiceCapability_RPC_VOLUME_MOUNT_GROUP] && policy.owns(&v)}
	if ptr.Deref(policy.RequiresRepublish, false) {
		result.Refresh = time.Now().Add(time.Minute)
	} else if done, err := present(at, block); err != nil || done {
		return result, err
	}

	attributes, attached := map[string]string{}, map[string]string(nil)
	if v.PV != nil {
		maps.Copy(attributes, v.PV.Spec.CSI.VolumeAttributes)
		if ptr.Deref(policy.AttachRequired, true) {
			if attached, err = m.attachment(ctx, &r); err != nil {
				return Mounted{}, err
			}
			m.use(&r, true)
		}
	} else {
		maps.Copy(attributes, v.Inline.VolumeAttributes)
	}
	if err := os.MkdirAll(filepath.Dir(at.target), 0o750); err != nil {
		return Mounted{}, err
	}
	// From here on there is something to take down, however far it gets.
	if err := writeRecord(at.targetRecord, r); err != nil {
		return Mounted{}, fmt.Errorf("noting what a CSI volume is: %w", err)
	}
	staging := ""
	if v.PV != nil && can[csi.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME] {
		staging = at.staging
		if err := m.stage(ctx, d, pod, &v, &r, at, block, can, attached); err != nil {
			return Mounted{}, err
		}
	}
	if ptr.Deref(policy.PodInfoOnMount, false) {
		maps.Copy(attributes, podInfo(pod, r.Lifecycle))
	}
	secrets, err := m.secret(ctx, v.publishSecret(pod))
	if err != nil {
		return Mounted{}, err
	}
	tokens, err := m.tokens(ctx, pod, policy.TokenRequests)
	if err != nil {
		return Mounted{}, err
	}
	if ptr.Deref(policy.ServiceAccountTokenInSecrets, false) {
		maps.Copy(secrets, tokens)
	} else {
		maps.Copy(attributes, tokens)
	}
	_, err = d.NodePublishVolume(ctx, &csi.NodePublishVolumeRequest{
		VolumeId: r.Handle, TargetPath: at.target, StagingTargetPath: staging, Readonly: v.ReadOnly, PublishContext: attached,
		VolumeContext: attributes, Secrets: secrets, VolumeCapability: v.capability(pod, block, can),
	})
	if err != nil {
		return Mounted{}, fmt.Errorf("rpc to publish volume %s: %w", r.Name, err)
	}
	return result, nil
}

// present tells whether a volume is published already.
func present(at places, block bool) (bool, error) {
	if _, err := os.Stat(filepath.Join(at.targetRecord, recordFile)); err != nil {
		return false, ignoreMissing(err)
	}
	if block {
		_, err := os.Stat(at.target)
		return err == nil, ignoreMissing(err)
	}
	is, err := mount.New("").IsMountPoint(at.target)
	return is && err == nil, ignoreMissing(err)
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// stage has a driver make a volume ready on the node, once for all pods. Drivers take a repetition for the same.
func (m *Manager) stage(ctx context.Context, d *driver, pod *v1.Pod, v *Volume, r *record, at places, block bool, can capabilities, attached map[string]string) error {
	secrets, err := m.secret(ctx, v.PV.Spec.CSI.NodeStageSecretRef)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(at.staging, 0o750); err != nil {
		return err
	}
	if err := writeRecord(at.stagingRecord, *r); err != nil {
		return fmt.Errorf("noting what a CSI volume is: %w", err)
	}
	_, err = d.NodeStageVolume(ctx, &csi.NodeStageVolumeRequest{
		VolumeId: r.Handle, StagingTargetPath: at.staging, PublishContext: attached, Secrets: secrets,
		VolumeContext: v.PV.Spec.CSI.VolumeAttributes, VolumeCapability: v.capability(pod, block, can),
	})
	if err != nil {
		return fmt.Errorf("rpc to stage volume %s: %w", r.Name, err)
	}
	return nil
}

// Unmount takes down all volumes of a pod, and what was staged for it alone.
func (m *Manager) Unmount(ctx context.Context, uid types.UID) error {
	all, err := m.published()
	if err != nil {
		return err
	}
	var errs []error
	for i := range all {
		if all[i].uid == uid {
			errs = append(errs, m.unmount(ctx, &all[i]))
		}
	}
	return errors.Join(errs...)
}

func (m *Manager) unmount(ctx context.Context, p *published) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	m.volumes.LockKey(p.key())
	defer m.volumes.UnlockKey(p.key()) //nolint:errcheck // it is locked
	d, err := m.driver(p.Driver)
	if err != nil {
		return err
	}
	at := m.places(p.uid, &p.record, p.block)
	if _, err := d.NodeUnpublishVolume(ctx, &csi.NodeUnpublishVolumeRequest{VolumeId: p.Handle, TargetPath: at.target}); err != nil {
		return fmt.Errorf("rpc to unpublish volume %s: %w", p.Name, err)
	}
	// Drivers are to remove the target; not all do. What is still mounted is never deleted.
	if err := os.Remove(at.target); ignoreMissing(err) != nil {
		return fmt.Errorf("removing what volume %s was published at: %w", p.Name, err)
	}
	if !p.block {
		if err := os.Remove(filepath.Join(at.targetRecord, recordFile)); ignoreMissing(err) != nil {
			return err
		}
	}
	all, err := m.published()
	if err != nil {
		return err
	}
	if slices.ContainsFunc(all, func(o published) bool { return o.key() == p.key() && o.target != p.target }) {
		return nil // another pod has it
	}
	return m.unstage(ctx, d, p, at)
}

func (m *Manager) unstage(ctx context.Context, d *driver, p *published, at places) error {
	if p.Lifecycle == string(storagev1.VolumeLifecyclePersistent) {
		can, err := d.capabilities(ctx)
		if err != nil {
			return err
		}
		if can[csi.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME] {
			if _, err := d.NodeUnstageVolume(ctx, &csi.NodeUnstageVolumeRequest{VolumeId: p.Handle, StagingTargetPath: at.staging}); err != nil {
				return fmt.Errorf("rpc to unstage volume %s: %w", p.Name, err)
			}
			if err := os.Remove(at.staging); ignoreMissing(err) != nil {
				return fmt.Errorf("removing what volume %s was staged at: %w", p.Name, err)
			}
		}
		empty := []string{filepath.Join(at.stagingRecord, recordFile), at.stagingRecord}
		if p.block { // whose directories are of this volume alone
			empty = append(empty, filepath.Dir(at.stagingRecord), filepath.Dir(at.target))
		}
		for _, path := range empty {
			if err := os.Remove(path); ignoreMissing(err) != nil {
				klog.FromContext(ctx).Info("Cannot remove the record of a CSI volume", "volume", p.Name, "err", err)
			}
		}
	}
	m.use(&p.record, false)
	return nil
}

// capabilities are what a driver can do.
type capabilities map[csi.NodeServiceCapability_RPC_Type]bool

func (d *driver) capabilities(ctx context.Context) (capabilities, error) {
	resp, err := d.NodeGetCapabilities(ctx, &csi.NodeGetCapabilitiesRequest{})
	if err != nil {
		return nil, fmt.Errorf("asking CSI driver %q what it can do: %w", d.name, err)
	}
	can := capabilities{}
	for _, c := range resp.Capabilities {
		can[c.GetRpc().GetType()] = true
	}
	return can, nil
}

// capability says how a volume is to be used.
func (v *Volume) capability(pod *v1.Pod, block bool, can capabilities) *csi.VolumeCapability {
	mode := v1.ReadWriteOnce
	if v.PV != nil && len(v.PV.Spec.AccessModes) > 0 {
		mode = v.PV.Spec.AccessModes[0]
	}
	c := &csi.VolumeCapability{AccessMode: &csi.VolumeCapability_AccessMode{Mode: accessMode(mode, can[csi.NodeServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER])}}
	if block {
		c.AccessType = &csi.VolumeCapability_Block{Block: &csi.VolumeCapability_BlockVolume{}}
		return c
	}
	m := &csi.VolumeCapability_MountVolume{}
	if v.PV != nil {
		m.FsType, m.MountFlags = v.PV.Spec.CSI.FSType, v.PV.Spec.MountOptions
	} else {
		m.FsType = ptr.Deref(v.Inline.FSType, "")
	}
	if sc := pod.Spec.SecurityContext; sc != nil && sc.FSGroup != nil && can[csi.NodeServiceCapability_RPC_VOLUME_MOUNT_GROUP] {
		m.VolumeMountGroup = strconv.FormatInt(*sc.FSGroup, 10)
	}
	c.AccessType = &csi.VolumeCapability_Mount{Mount: m}
	return c
}

func accessMode(mode v1.PersistentVolumeAccessMode, tellsWriters bool) csi.VolumeCapability_AccessMode_Mode {
	switch mode {
	case v1.ReadWriteOnce:
		if tellsWriters {
			return csi.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER
		}
		return csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER
	case v1.ReadWriteOncePod:
		if tellsWriters {
			return csi.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER
		}
		return csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER
	case v1.ReadOnlyMany:
		return csi.VolumeCapability_AccessMode_MULTI_NODE_READER_ONLY
	case v1.ReadWriteMany:
		return csi.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER
	}
	return csi.VolumeCapability_AccessMode_UNKNOWN
}

func (v *Volume) publishSecret(pod *v1.Pod) *v1.SecretReference {
	if v.PV != nil {
		return v.PV.Spec.CSI.NodePublishSecretRef
	}
	if ref := v.Inline.NodePublishSecretRef; ref != nil {
		return &v1.SecretReference{Namespace: pod.Namespace, Name: ref.Name}
	}
	return nil
}

// policy is what a driver's CSIDriver says; one without has the defaults.
type policy struct{ storagev1.CSIDriverSpec }

func (m *Manager) policy(ctx context.Context, r *record) (policy, error) {
	d, err := m.Client.StorageV1().CSIDrivers().Get(ctx, r.Driver, metav1.GetOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return policy{}, fmt.Errorf("getting CSIDriver %s: %w", r.Driver, err)
	}
	p := policy{}
	if err == nil {
		p.CSIDriverSpec = d.Spec
	}
	if len(p.VolumeLifecycleModes) == 0 {
		p.VolumeLifecycleModes = []storagev1.VolumeLifecycleMode{storagev1.VolumeLifecyclePersistent}
	}
	if !slices.Contains(p.VolumeLifecycleModes, storagev1.VolumeLifecycleMode(r.Lifecycle)) {
		return policy{}, fmt.Errorf("volume mode %q not supported by driver %s (only supports %q)", r.Lifecycle, r.Driver, p.VolumeLifecycleModes)
	}
	return p, nil
}

// owns tells whether a pod's fsGroup is applied to a volume.
func (p policy) owns(v *Volume) bool {
	switch ptr.Deref(p.FSGroupPolicy, storagev1.ReadWriteOnceWithFSTypeFSGroupPolicy) {
	case storagev1.NoneFSGroupPolicy:
		return false
	case storagev1.FileFSGroupPolicy:
		return true
	}
	if v.PV == nil {
		return ptr.Deref(v.Inline.FSType, "") != ""
	}
	return v.PV.Spec.CSI.FSType != "" && slices.ContainsFunc(v.PV.Spec.AccessModes, func(m v1.PersistentVolumeAccessMode) bool {
		return m == v1.ReadWriteOnce || m == v1.ReadWriteOncePod
	})
}

// attachment returns what the controller of a driver has said of a volume that it has attached to the node.
func (m *Manager) attachment(ctx context.Context, r *record) (map[string]string, error) {
	a, err := m.Client.StorageV1().VolumeAttachments().Get(ctx, r.Attachment, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("volume %s is not attached to the node: %w", r.Name, err)
	}
	if !a.Status.Attached {
		if e := a.Status.AttachError; e != nil {
			return nil, fmt.Errorf("volume %s cannot be attached to the node: %s", r.Name, e.Message)
		}
		return nil, fmt.Errorf("volume %s is not attached to the node yet", r.Name)
	}
	return a.Status.AttachmentMetadata, nil
}

func (m *Manager) secret(ctx context.Context, ref *v1.SecretReference) (map[string]string, error) {
	out := map[string]string{}
	if ref == nil {
		return out, nil
	}
	s, err := m.Client.CoreV1().Secrets(ref.Namespace).Get(ctx, ref.Name, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("getting the secret %s/%s of a CSI volume: %w", ref.Namespace, ref.Name, err)
	}
	for k, v := range s.Data {
		out[k] = string(v)
	}
	return out, nil
}

func podInfo(pod *v1.Pod, lifecycle string) map[string]string {
	const prefix = "csi.storage.k8s.io/"
	return map[string]string{
		prefix + "pod.name": pod.Name, prefix + "pod.namespace": pod.Namespace, prefix + "pod.uid": string(pod.UID),
		prefix + "serviceAccount.name": pod.Spec.ServiceAccountName,
		prefix + "ephemeral":           strconv.FormatBool(lifecycle == string(storagev1.VolumeLifecycleEphemeral)),
	}
}

// tokens are those of the pod's ServiceAccount that a driver wants, as one value.
func (m *Manager) tokens(ctx context.Context, pod *v1.Pod, requests []storagev1.TokenRequest) (map[string]string, error) {
	if len(requests) == 0 {
		return nil, nil
	}
	tokens := map[string]authv1.TokenRequestStatus{}
	for _, want := range requests {
		request := &authv1.TokenRequest{Spec: authv1.TokenRequestSpec{
			ExpirationSeconds: want.ExpirationSeconds,
			BoundObjectRef:    &authv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID},
		}}
		if want.Audience != "" {
			request.Spec.Audiences = []string{want.Audience}
		}
		got, err := m.Client.CoreV1().ServiceAccounts(pod.Namespace).CreateToken(ctx, pod.Spec.ServiceAccountName, request, metav1.CreateOptions{})
		if err != nil {
			return nil, fmt.Errorf("getting a token for a CSI driver: %w", err)
		}
		tokens[want.Audience] = got.Status
	}
	raw, err := json.Marshal(tokens)
	if err != nil {
		return nil, err
	}
	return map[string]string{"csi.storage.k8s.io/serviceAccount.tokens": string(raw)}, nil
}
