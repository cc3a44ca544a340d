package testcluster

import (
	"net/url"
	"path/filepath"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
)

// startEtcd starts an etcd that loses its data when the machine does, and returns where
// it listens. It answers as soon as it has elected itself: whoever connects meanwhile waits.
func (c *Cluster) startEtcd() (string, error) {
	config := embed.NewConfig()
	config.Dir = filepath.Join(c.dir, "etcd")
	config.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop()) // it reports its own end as an error
	config.UnsafeNoFsync = true
	config.BackendBatchInterval = time.Second
	// It has no peers, and elects itself after a few ticks.
	config.ListenPeerUrls = nil
	config.InitialCluster = config.InitialClusterFromName(config.Name)
	config.TickMs, config.ElectionMs = 10, 50
	// With another listener for health and metrics, this one is left to gRPC's own
	// transport, which takes half the processor time of net/http's.
	config.ListenClientUrls, config.AdvertiseClientUrls = []url.URL{anyPort()}, []url.URL{anyPort()}
	config.ListenClientHttpUrls = []url.URL{{Scheme: "unix", Path: filepath.Join(c.dir, "etcd.sock")}}
	config.EnableGRPCGateway = false
	etcd, err := embed.StartEtcd(config)
	if err != nil {
		return "", err
	}
	c.stops = append(c.stops, func() error { etcd.Close(); return nil })
	var address string
	for _, l := range etcd.Clients {
		if l.Addr().Network() == "tcp" {
			address = "http://" + l.Addr().String()
		}
	}
	c.Etcd, err = clientv3.New(clientv3.Config{Endpoints: []string{address}, DialTimeout: startTimeout, Logger: zap.NewNop()})
	if err != nil {
		return "", err
	}
	c.stops = append(c.stops, c.Etcd.Close)
	return address, nil
}
