package apiserver

import (
	"context"
	"fmt"
	"net/http"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/singleflight"
	"k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/server/healthz"
	genericoptions "k8s.io/apiserver/pkg/server/options"
	"k8s.io/apiserver/pkg/storage/storagebackend"
)

// addEtcdChecks has /healthz, /livez and /readyz ask etcd, under the original's names,
// on the connections of the stores. The library's checks open connections of their own
// and, when asked too early, remember for a second that etcd did not answer.
func (e *etcdClients) addEtcdChecks(c *server.Config, storage storagebackend.Config, overrides []genericoptions.EtcdServerOverride) {
	add := func(health, ready string, servers []string) {
		s := storage
		s.Transport.ServerList = servers
		c.AddHealthChecks(healthz.NamedGroupedCheck(health, "etcd", e.check(s, s.HealthcheckTimeout, storagebackend.DefaultHealthcheckTimeout)))
		c.AddReadyzChecks(healthz.NamedGroupedCheck(ready, "etcd-readiness", e.check(s, s.ReadycheckTimeout, storagebackend.DefaultReadinessTimeout)))
	}
	add("etcd", "etcd-readiness", storage.Transport.ServerList)
	var seen []string
	for _, o := range overrides {
		sorted := strings.Join(slices.Sorted(slices.Values(o.Servers)), ";")
		if slices.Contains(seen, sorted) {
			continue
		}
		add(fmt.Sprintf("etcd-override-%d", len(seen)), fmt.Sprintf("etcd-override-readiness-%d", len(seen)), o.Servers)
		seen = append(seen, sorted)
	}
}

// healthChecks ask the etcd of all resources and those of the overrides, in this order.
func (e *etcdClients) healthChecks(storage storagebackend.Config, overrides []genericoptions.EtcdServerOverride) []func(*http.Request) error {
	all := []func(*http.Request) error{e.check(storage, storage.HealthcheckTimeout, storagebackend.DefaultHealthcheckTimeout)}
	for _, o := range overrides {
		s := storage
		s.Transport.ServerList = o.Servers
		all = append(all, e.check(s, s.HealthcheckTimeout, storagebackend.DefaultHealthcheckTimeout))
	}
	return all
}

// check reads a key that nobody writes. Probes that come at the same time share one
// request.
func (e *etcdClients) check(s storagebackend.Config, timeout, otherwise time.Duration) func(*http.Request) error {
	if timeout == 0 {
		timeout = otherwise
	}
	key := path.Join("/", s.Prefix, "health")
	var asked singleflight.Group
	return func(*http.Request) error {
		_, err, _ := asked.Do("", func() (any, error) {
			client, release, err := e.get(s.Transport, s.CompactionInterval)
			if err != nil {
				return nil, err
			}
			defer release()
			ctx, cancel := context.WithTimeout(context.Background(), timeout)
			defer cancel()
			_, err = client.KV.Get(ctx, key)
			return nil, err
		})
		if err != nil {
			return fmt.Errorf("error getting data from etcd: %w", err)
		}
		return nil
	}
}
