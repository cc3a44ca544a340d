package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
)

// An agent runs what makes a machine a node: containerd, the kubelet and the proxy. It
// is the same for the first node, inside leme, and for further ones, each in a process
// of its own.
type agent struct {
	dir        dataDir
	spec       *nodeSpec
	components Components
}

// prepare writes the files of the node and makes the machine ready to forward packets.
// It may be done again at any time.
func (a *agent) prepare(ctx context.Context) error {
	for _, dir := range []string{"log", "log/pods", "manifests", "kubelet/volume-plugins"} {
		if err := os.MkdirAll(a.dir.path(dir), 0o700); err != nil {
			return err
		}
	}
	if err := writeComponentConfigs(a.dir, a.spec); err != nil {
		return err
	}
	if err := containerdFiles(a.dir, a.spec); err != nil {
		return err
	}
	if a.spec.PodCIDR != "" {
		if err := a.setPodCIDR(a.spec.PodCIDR); err != nil {
			return err
		}
	}
	if err := writeSysctl("net/ipv4/ip_forward", "1"); err != nil {
		return fmt.Errorf("switching on net.ipv4.ip_forward: %w", err)
	}
	// The rest is worth having and not always allowed.
	for name, value := range map[string]string{"fs/inotify/max_user_instances": "8192", "fs/inotify/max_user_watches": "524288"} {
		if err := raiseSysctl(name, value); err != nil {
			klog.FromContext(ctx).V(2).Info("Sysctl left as it is", "name", name, "err", err)
		}
	}
	return nil
}

// setPodCIDR has containerd give pods addresses of a range. It joins each pod to the
// machine by a link of its own, without a bridge: what other software on the machine
// does to bridged frames cannot touch it.
func (a *agent) setPodCIDR(cidr string) error {
	type object = map[string]any
	conf := object{
		"cniVersion": "1.0.0",
		"name":       a.spec.Network,
		"plugins": []object{
			{
				"type": "ptp",
				"ipam": object{
					"type":    "host-local",
					"dataDir": a.dir.path("cni", "addresses"),
					"ranges":  [][]object{{{"subnet": cidr}}},
					"routes":  []object{{"dst": "0.0.0.0/0"}},
				},
			},
			{"type": "portmap", "backend": "nftables", "capabilities": object{"portMappings": true}},
		},
	}
	data, err := json.MarshalIndent(conf, "", "  ")
	if err == nil {
		err = writeFile(a.dir.cniConfig(), data, 0o644)
	}
	if err != nil {
		return fmt.Errorf("CNI configuration: %w", err)
	}
	return nil
}

// containerd is the node's container runtime.
func (a *agent) containerd() service {
	return containerdService(a.dir, a.spec.RuntimeDir, a.spec.Environment)
}

// component is the kubelet or the proxy.
func (a *agent) component(name string) service {
	args := nodeArgs(a.dir, a.spec)[name]
	if binary := a.spec.Components[name].Binary; binary != "" {
		return fromBinary(a.dir, name, binary, args, a.spec.Environment)
	}
	return inProcess(a.dir, name, a.components[name], args)
}

// followPodCIDR gives the node the range of pod addresses that the cluster has for it,
// and the machine a way for packets to addresses that no pod has.
func (a *agent) followPodCIDR() service {
	return service{name: "pod addresses", run: func(ctx context.Context) error {
		config, err := clientcmd.BuildConfigFromFlags("", a.dir.kubeconfig("kubelet"))
		if err != nil {
			return err
		}
		client, err := kubernetes.NewForConfig(config)
		if err != nil {
			return err
		}
		set := func(cidr string) {
			if cidr == "" {
				return
			}
			if err := errors.Join(a.setPodCIDR(cidr), makeUnreachable(cidr)); err != nil {
				klog.FromContext(ctx).Error(err, "The node's pods get no addresses", "range", cidr)
			}
		}
		source := cache.NewListWatchFromClient(client.CoreV1().RESTClient(), "nodes", "", fields.OneTermEqualSelector("metadata.name", a.spec.Name))
		_, informer := cache.NewInformerWithOptions(cache.InformerOptions{
			ListerWatcher: source,
			ObjectType:    &corev1.Node{},
			Handler: cache.ResourceEventHandlerFuncs{
				AddFunc: func(o any) { set(o.(*corev1.Node).Spec.PodCIDR) },
				UpdateFunc: func(before, now any) {
					if cidr := now.(*corev1.Node).Spec.PodCIDR; cidr != before.(*corev1.Node).Spec.PodCIDR {
						set(cidr)
					}
				},
			},
		})
		informer.RunWithContext(ctx)
		return nil
	}}
}

func writeSysctl(name, value string) error {
	path := filepath.Join("/proc/sys", name)
	if have, err := os.ReadFile(path); err == nil && strings.TrimSpace(string(have)) == value {
		return nil
	}
	return os.WriteFile(path, []byte(value), 0o644)
}

func raiseSysctl(name, value string) error {
	have, err := os.ReadFile(filepath.Join("/proc/sys", name))
	if err != nil {
		return err
	}
	if h := strings.TrimSpace(string(have)); len(h) > len(value) || (len(h) == len(value) && h >= value) {
		return nil
	}
	return writeSysctl(name, value)
}
