package testcluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"github.com/leme-k8s/leme/pkg/apiserver"
	"github.com/leme-k8s/leme/pkg/component"
	"github.com/leme-k8s/leme/pkg/controller"
	"github.com/leme-k8s/leme/pkg/scheduler"
)

const serviceCIDR = "10.96.0.0/16"

// A process is a component that runs.
type process struct {
	ended chan struct{} // closed when err is there
	err   error
}

// run starts a component. Stop cancels it, and reports how it has ended.
func (c *Cluster) run(ctx context.Context, name string, o component.Options, flags []string) (*process, error) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	runner, err := component.New(ctx, name, o, flags)
	if err != nil {
		cancel()
		return nil, err
	}
	p := &process{ended: make(chan struct{})}
	go func() {
		defer close(p.ended)
		if err := runner.Run(ctx); err != nil {
			p.err = fmt.Errorf("%s ended: %w", name, err)
		} else if ctx.Err() == nil {
			p.err = fmt.Errorf("%s ended by itself", name)
		}
	}()
	c.stops = append(c.stops, func() error {
		cancel()
		<-p.ended
		return p.err
	})
	return p, nil
}

// failed returns why a process does not run any more.
func (p *process) failed() error {
	select {
	case <-p.ended:
		return p.err
	default:
		return nil
	}
}

func (c *Cluster) startAPIServer(ctx context.Context, etcdURL string, o *options) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("kube-apiserver: %w", err)
	}
	c.Config = &rest.Config{Host: "https://" + l.Addr().String(), QPS: -1, DisableCompression: true}
	c.Config.CAData = c.pki.caPEM
	if c.Config, err = c.configFor("admin", []string{"system:masters"}); err != nil {
		return err
	}
	server := apiserver.NewOptions()
	server.Serving.Listener = l // which New closes when it fails
	p, err := c.run(ctx, "kube-apiserver", server, c.apiServerFlags(etcdURL, o))
	if err != nil {
		return err
	}
	c.stops = append(c.stops, func() error { go c.hangUp(p.ended); return nil })
	client, err := kubernetes.NewForConfig(c.Config)
	if err != nil {
		return err
	}
	return poll(ctx, func() (bool, error, error) {
		var code int
		r := client.RESTClient().Get().AbsPath("/readyz").Param("verbose", "").Do(ctx).StatusCode(&code)
		body, err := r.Raw()
		why := fmt.Errorf("kube-apiserver is not ready: %w: %s", err, body)
		return err == nil && code == http.StatusOK, why, p.failed()
	})
}

func (c *Cluster) apiServerFlags(etcdURL string, o *options) []string {
	defaults := []string{
		"--bind-address=127.0.0.1",
		"--etcd-servers=" + etcdURL,
		"--tls-cert-file=" + c.pki.path("server.crt"), "--tls-private-key-file=" + c.pki.path("server.key"),
		"--client-ca-file=" + c.pki.path("ca.crt"),
		"--service-cluster-ip-range=" + serviceCIDR,
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file=" + c.pki.path("sa.pub"), "--service-account-signing-key-file=" + c.pki.path("sa.key"),
		"--authorization-mode=RBAC", "--allow-privileged=true",
		// Who still watches when the cluster stops is not waited for.
		"--shutdown-watch-termination-grace-period=100ms",
	}
	if slices.ContainsFunc(o.apiServerFlags, func(f string) bool { n, _ := flagName(f); return n == "authorization-config" }) {
		defaults = slices.DeleteFunc(defaults, func(f string) bool { n, _ := flagName(f); return n == "authorization-mode" })
	}
	flags := override(defaults, o.apiServerFlags)
	if !o.controllerManager && !mentions(o.apiServerFlags, "enable-admission-plugins", "ServiceAccount") {
		// It would refuse all pods, for want of a service account that nobody makes.
		flags = append(flags, "--disable-admission-plugins=ServiceAccount")
	}
	return flags
}

// mentions reports whether a flag's list of values has one in it.
func mentions(flags []string, name, value string) bool {
	return slices.ContainsFunc(flags, func(f string) bool {
		n, _ := flagName(f)
		_, values, _ := strings.Cut(f, "=")
		return n == name && slices.Contains(strings.Split(values, ","), value)
	})
}

func (c *Cluster) startControllerManager(ctx context.Context, flags []string) error {
	kubeconfig, err := c.componentKubeconfig("kube-controller-manager")
	if err != nil {
		return err
	}
	p, err := c.run(ctx, "kube-controller-manager", controller.NewOptions(), override([]string{
		"--kubeconfig=" + kubeconfig, "--secure-port=0", "--leader-elect=false", "--use-service-account-credentials",
		"--root-ca-file=" + c.pki.path("ca.crt"), "--service-cluster-ip-range=" + serviceCIDR,
		"--service-account-private-key-file=" + c.pki.path("sa.key"),
		"--cluster-signing-cert-file=" + c.pki.path("ca.crt"), "--cluster-signing-key-file=" + c.pki.path("ca.key"),
	}, flags))
	if err != nil {
		return err
	}
	if !runsServiceAccounts(flags) {
		return nil
	}
	client, err := kubernetes.NewForConfig(c.Config)
	if err != nil {
		return err
	}
	return poll(ctx, func() (bool, error, error) {
		_, err := client.CoreV1().ServiceAccounts(corev1.NamespaceDefault).Get(ctx, "default", metav1.GetOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			return false, nil, err
		}
		return err == nil, errors.New("kube-controller-manager has not made a service account"), p.failed()
	})
}

// runsServiceAccounts reports whether --controllers, if given, leaves the controller of
// service accounts on.
func runsServiceAccounts(flags []string) bool {
	i := slices.IndexFunc(flags, func(f string) bool { n, _ := flagName(f); return n == "controllers" })
	if i < 0 {
		return true
	}
	for _, name := range []string{"serviceaccount-controller", "serviceaccount"} {
		if mentions(flags, "controllers", "-"+name) {
			return false
		}
		if mentions(flags, "controllers", name) {
			return true
		}
	}
	return mentions(flags, "controllers", "*")
}

func (c *Cluster) startScheduler(ctx context.Context, o *options) error {
	kubeconfig, err := c.componentKubeconfig("kube-scheduler")
	if err != nil {
		return err
	}
	flags := slices.Clone(o.schedulerFlags)
	for i, f := range flags {
		if file, ok := strings.CutPrefix(f, "--config="); ok {
			if file, err = c.connectScheduler(file, kubeconfig); err != nil {
				return fmt.Errorf("kube-scheduler: --config: %w", err)
			}
			flags[i] = "--config=" + file
		}
	}
	_, err = c.run(ctx, "kube-scheduler", scheduler.NewOptions(o.schedulerOptions...), override([]string{
		"--kubeconfig=" + kubeconfig, "--secure-port=0", "--leader-elect=false",
	}, flags))
	return err
}

// connectScheduler returns a copy of a configuration file that says how this cluster is reached, as the scheduler
// does not look at --kubeconfig beside a file.
func (c *Cluster) connectScheduler(file, kubeconfig string) (string, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	config := map[string]any{}
	if err := yaml.Unmarshal(data, &config); err != nil {
		return "", fmt.Errorf("%s: %w", file, err)
	}
	connection, ok := config["clientConnection"].(map[string]any)
	if !ok {
		connection = map[string]any{}
		config["clientConnection"] = connection
	}
	connection["kubeconfig"] = kubeconfig
	if data, err = yaml.Marshal(config); err != nil {
		return "", err
	}
	path := filepath.Join(c.dir, "kube-scheduler.yaml")
	return path, os.WriteFile(path, data, 0o600)
}

// componentKubeconfig returns the file by which a component reaches the API server under
// its own name.
func (c *Cluster) componentKubeconfig(name string) (string, error) {
	config, err := c.configFor("system:"+name, nil)
	if err != nil {
		return "", err
	}
	path := filepath.Join(c.dir, name+".kubeconfig")
	return path, writeKubeconfig(path, config)
}
