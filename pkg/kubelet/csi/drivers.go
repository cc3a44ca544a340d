package csi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/util/retry"
	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"

	"github.com/leme-k8s/leme/pkg/kubelet/plugins"
)

// driver is one that can be asked.
type driver struct {
	name string
	*grpc.ClientConn
	csi.NodeClient
}

// migrated are the kinds of volumes that drivers have taken over from the original; the scheduler reads it.
const (
	annotationMigrated = "storage.alpha.kubernetes.io/migrated-plugins"
	migrated           = "kubernetes.io/aws-ebs,kubernetes.io/azure-disk,kubernetes.io/azure-file,kubernetes.io/cinder,kubernetes.io/gce-pd,kubernetes.io/portworx-volume,kubernetes.io/vsphere-volume"
	annotationNodeID   = "csi.volume.kubernetes.io/nodeid"
)

var _ plugins.Handler = (*Manager)(nil)

// Register announces a driver in the CSINode and uses it from then on.
func (m *Manager) Register(ctx context.Context, name, endpoint string, versions []string) error {
	if len(versions) > 0 && !slices.ContainsFunc(versions, func(v string) bool { return strings.HasPrefix(strings.TrimPrefix(v, "v"), "1.") }) {
		return fmt.Errorf("CSI driver %q speaks version %v of the interface, not 1", name, versions)
	}
	// Whose volumes were another kind's is the same to a driver.
	conn, err := plugins.Dial(endpoint, plugins.Timed(m.calls, name, "false"))
	if err != nil {
		return err
	}
	d := &driver{name: name, ClientConn: conn, NodeClient: csi.NewNodeClient(conn)}
	info, err := d.NodeGetInfo(ctx, &csi.NodeGetInfoRequest{})
	if err == nil {
		err = m.announce(ctx, name, info)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("CSI driver %q: %w", name, err), conn.Close())
	}
	return m.drivers.Set(name, endpoint, d)
}

// Deregister forgets a driver, and has the cluster forget it. What it has mounted stays until it is back.
func (m *Manager) Deregister(ctx context.Context, name, endpoint string) {
	if !m.drivers.Drop(name, endpoint) {
		return
	}
	err := m.editCSINode(ctx, func(n *storagev1.CSINode) {
		n.Spec.Drivers = slices.DeleteFunc(n.Spec.Drivers, func(o storagev1.CSINodeDriver) bool { return o.Name == name })
	})
	if err == nil {
		err = m.editNode(ctx, name, nil)
	}
	if err != nil {
		klog.FromContext(ctx).Error(err, "Cannot say that a CSI driver has gone", "driver", name)
	}
}

func (m *Manager) driver(name string) (*driver, error) {
	if d, ok := m.drivers.Get(name); ok {
		return d, nil
	}
	return nil, fmt.Errorf("driver name %s not found in the list of registered CSI drivers", name)
}

// Run makes the CSINode, so that schedulers know the node before its first driver has come, and counts what earlier
// kubelets have mounted.
func (m *Manager) Run(ctx context.Context) {
	logger := klog.FromContext(ctx)
	volumes, err := m.published()
	if err != nil {
		logger.Error(err, "Cannot see all CSI volumes that are mounted")
	}
	for i := range volumes {
		if volumes[i].Lifecycle == string(storagev1.VolumeLifecyclePersistent) {
			m.use(&volumes[i].record, true)
		}
	}
	// The node may have to be registered first.
	_ = wait.PollUntilContextCancel(ctx, time.Second, true, func(ctx context.Context) (bool, error) {
		err := m.editCSINode(ctx, func(*storagev1.CSINode) {})
		if err != nil {
			logger.V(2).Info("Cannot make the CSINode yet", "err", err)
		}
		return err == nil, nil
	})
}

// announce tells the cluster which node this is to a driver.
func (m *Manager) announce(ctx context.Context, name string, info *csi.NodeGetInfoResponse) error {
	entry := storagev1.CSINodeDriver{Name: name, NodeID: info.NodeId}
	segments := info.GetAccessibleTopology().GetSegments()
	entry.TopologyKeys = slices.Sorted(maps.Keys(segments))
	if n := info.MaxVolumesPerNode; n > 0 {
		entry.Allocatable = &storagev1.VolumeNodeResources{Count: ptr.To(int32(min(n, 1<<31-1)))}
	}
	if err := m.editNode(ctx, name, info); err != nil {
		return err
	}
	return m.editCSINode(ctx, func(n *storagev1.CSINode) {
		n.Spec.Drivers = append(slices.DeleteFunc(n.Spec.Drivers, func(o storagev1.CSINodeDriver) bool { return o.Name == name }), entry)
	})
}

// editCSINode changes the CSINode, which is made if it is not there.
func (m *Manager) editCSINode(ctx context.Context, edit func(*storagev1.CSINode)) error {
	nodes := m.Client.StorageV1().CSINodes()
	err := retry.RetryOnConflict(retry.DefaultRetry, func() error {
		n, err := nodes.Get(ctx, m.NodeName, metav1.GetOptions{})
		missing := apierrors.IsNotFound(err)
		if err != nil && !missing {
			return err
		}
		if missing {
			node, err := m.Node(ctx)
			if err != nil {
				return err
			}
			if node.UID == "" {
				return errors.New("the node is not registered yet")
			}
			n = &storagev1.CSINode{ObjectMeta: metav1.ObjectMeta{
				Name:            m.NodeName,
				OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: m.NodeName, UID: node.UID}},
			}}
		}
		before := n.DeepCopy()
		if n.Annotations == nil {
			n.Annotations = map[string]string{}
		}
		n.Annotations[annotationMigrated] = migrated
		edit(n)
		switch {
		case missing:
			_, err = nodes.Create(ctx, n, metav1.CreateOptions{})
		case !equality.Semantic.DeepEqual(before, n):
			_, err = nodes.Update(ctx, n, metav1.UpdateOptions{})
		default:
			err = nil
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("writing CSINode %s: %w", m.NodeName, err)
	}
	return nil
}

// editNode notes in the Node by which name a driver knows it, and where it is to it; nil forgets the name.
func (m *Manager) editNode(ctx context.Context, name string, info *csi.NodeGetInfoResponse) error {
	node, err := m.Node(ctx)
	if err != nil {
		return err
	}
	ids := map[string]string{}
	if was := node.Annotations[annotationNodeID]; was != "" {
		if err := json.Unmarshal([]byte(was), &ids); err != nil {
			return fmt.Errorf("annotation %s of the node: %w", annotationNodeID, err)
		}
	}
	labels := map[string]string{}
	if info != nil {
		ids[name] = info.NodeId
		for k, v := range info.GetAccessibleTopology().GetSegments() {
			if was, ok := node.Labels[k]; ok && was != v {
				return fmt.Errorf("detected topology value collision: driver reported %q:%q but existing label is %q:%q", k, v, k, was)
			}
			labels[k] = v
		}
	} else {
		delete(ids, name)
	}
	value, err := json.Marshal(ids)
	if err != nil {
		return err
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]string{annotationNodeID: string(value)}, "labels": labels}})
	if err != nil {
		return err
	}
	if _, err = m.Client.CoreV1().Nodes().Patch(ctx, m.NodeName, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		return fmt.Errorf("noting the node's name to the driver in the node: %w", err)
	}
	return nil
}
