package cluster

import (
	"context"
	"fmt"
	"net/url"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	"go.etcd.io/etcd/server/v3/embed"
)

// etcdService is an etcd of one member: it has no peers, so it listens for none.
func etcdService(d dataDir, s *State) service {
	return service{name: "etcd", run: func(ctx context.Context) error {
		e, err := embed.StartEtcd(etcdConfig(d, s))
		if err != nil {
			return err
		}
		defer e.Close()
		select {
		case <-ctx.Done():
			return nil
		case err := <-e.Err():
			return err
		case <-e.Server.StopNotify():
			return fmt.Errorf("server stopped, see %s", d.log("etcd"))
		}
	}}
}

func etcdConfig(d dataDir, s *State) *embed.Config {
	client := url.URL{Scheme: "https", Host: fmt.Sprintf("127.0.0.1:%d", s.Ports.Etcd)}
	peer := url.URL{Scheme: "https", Host: "127.0.0.1:2380"} // a name in the member list; nothing listens on it
	c := embed.NewConfig()
	c.Name = "leme"
	c.Dir = d.path("etcd")
	c.ListenClientUrls, c.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	c.ListenPeerUrls, c.AdvertisePeerUrls = nil, []url.URL{peer}
	// Serving health and metrics on another listener leaves the port to gRPC's own
	// transport, which takes half the processor time of net/http's.
	c.ListenClientHttpUrls = []url.URL{{Scheme: "unixs", Path: d.run("etcd.sock")}}
	c.EnableGRPCGateway = false
	c.InitialCluster = c.Name + "=" + peer.String()
	c.ClientTLSInfo = transport.TLSInfo{
		CertFile: d.pki("etcd/server.crt"), KeyFile: d.pki("etcd/server.key"),
		TrustedCAFile: d.pki("etcd/ca.crt"), ClientCertAuth: true,
	}
	c.QuotaBackendBytes = 8 << 30
	// A lone member elects itself; the sooner, the faster the cluster starts.
	c.TickMs, c.ElectionMs = 50, 250
	// The log makes writes durable; this only moves them into the database.
	c.BackendBatchInterval = time.Second
	c.LogLevel = "warn"
	c.LogOutputs = []string{d.log("etcd")}
	return c
}
