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
	*grpc.ClientConn
	drapb.DRAPluginClient
}

var _ plugins.Handler = (*Manager)(nil)

// Register uses a driver from then on.
func (m *Manager) Register(_ context.Context, name, endpoint string, versions []string) error {
	conn, err := plugins.Dial(endpoint, plugins.Timed(m.metrics.calls, name))
	if err != nil {
		return err
	}
	d := &driver{ClientConn: conn}
	switch {
	case slices.Contains(versions, drapb.DRAPluginService):
		d.DRAPluginClient = drapb.NewDRAPluginClient(conn)
	case slices.Contains(versions, drapbv1beta1.DRAPluginService):
		d.DRAPluginClient = drapbv1beta1.V1Beta1ClientWrapper{DRAPluginClient: drapbv1beta1.NewDRAPluginClient(conn)}
	default:
		_ = conn.Close()
		return fmt.Errorf("DRA driver %q offers %v, none of %s and %s", name, versions, drapb.DRAPluginService, drapbv1beta1.DRAPluginService)
	}
	return m.drivers.Set(name, endpoint, d)
}

// Deregister forgets a driver. Its devices stay on offer for a while: it may be updated.
func (m *Manager) Deregister(_ context.Context, name, endpoint string) {
	if !m.drivers.Drop(name, endpoint) {
		return
	}
	select {
	case m.gone <- struct{}{}:
	default:
	}
}

func (m *Manager) driver(name string) (*driver, error) {
	if d, ok := m.drivers.Get(name); ok {
		return d, nil
	}
	return nil, fmt.Errorf("DRA driver %s is not registered", name)
}
