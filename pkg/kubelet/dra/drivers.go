package dra

import (
	"context"
	"fmt"
	"slices"

	"google.golang.org/grpc"
	drapb "k8s.io/kubelet/pkg/apis/dra/v1"
	drapbv1beta1 "k8s.io/kubelet/pkg/apis/dra/v1beta1"

	"github.com/leme-k8s/leme/pkg/kubelet/plugins"
)

// driver is one that can be asked.
type driver struct {
	conn     *grpc.ClientConn
	endpoint string
	drapb.DRAPluginClient
}

var _ plugins.Handler = (*Manager)(nil)

// Register uses a driver from then on.
func (m *Manager) Register(_ context.Context, name, endpoint string, versions []string) error {
	conn, err := plugins.Dial(endpoint)
	if err != nil {
		return err
	}
	d := &driver{conn: conn, endpoint: endpoint}
	switch {
	case slices.Contains(versions, drapb.DRAPluginService):
		d.DRAPluginClient = drapb.NewDRAPluginClient(conn)
	case slices.Contains(versions, drapbv1beta1.DRAPluginService):
		d.DRAPluginClient = drapbv1beta1.V1Beta1ClientWrapper{DRAPluginClient: drapbv1beta1.NewDRAPluginClient(conn)}
	default:
		_ = conn.Close()
		return fmt.Errorf("DRA driver %q offers %v, none of %s and %s", name, versions, drapb.DRAPluginService, drapbv1beta1.DRAPluginService)
	}
	m.mu.Lock()
	old := m.drivers[name]
	m.drivers[name] = d
	m.mu.Unlock()
	if old != nil {
		return old.conn.Close()
	}
	return nil
}

// Deregister forgets a driver. Its devices stay on offer for a while: it may be updated.
func (m *Manager) Deregister(_ context.Context, name, endpoint string) {
	m.mu.Lock()
	d := m.drivers[name]
	if d == nil || d.endpoint != endpoint {
		m.mu.Unlock()
		return // another one has taken its place
	}
	delete(m.drivers, name)
	m.mu.Unlock()
	_ = d.conn.Close()
	select {
	case m.gone <- struct{}{}:
	default:
	}
}

func (m *Manager) driver(name string) (*driver, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if d := m.drivers[name]; d != nil {
		return d, nil
	}
	return nil, fmt.Errorf("DRA driver %s is not registered", name)
}
