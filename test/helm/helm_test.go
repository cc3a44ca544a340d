// Package helm shows that Helm v4 installs, upgrades, rolls back and deletes charts with custom
// resources and hooks on a control plane of Leme: scripts in testdata run Helm's own commands.
//
// The cluster has controllers and a scheduler, and a node whose kubelet is played here: pods run as
// soon as they are bound, and those of Jobs succeed, but for those whose image is "fail".
package helm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	helmcmd "helm.sh/helm/v4/pkg/cmd"
	"helm.sh/helm/v4/pkg/kube"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"github.com/leme-k8s/leme/pkg/testcluster"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"helm": helm})
}

// helm is Helm's main function.
func helm() {
	kube.ManagedFieldsManager = "helm"
	cmd, err := helmcmd.NewRootCmd(os.Stdout, os.Args[1:], helmcmd.SetupLogging)
	if err == nil {
		err = cmd.Execute()
	}
	if failed, ok := errors.AsType[helmcmd.CommandError](err); ok {
		os.Exit(failed.ExitCode)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "helm:", err)
		os.Exit(1)
	}
}

func TestScripts(t *testing.T) {
	c := testcluster.Start(t, testcluster.WithControllerManager(), testcluster.WithScheduler())
	startNode(t, c.Client(t))
	kubeconfig := c.Kubeconfig(t)
	// Scripts are told in parallel subtests, which end before the cluster does.
	t.Run("testdata", func(t *testing.T) {
		testscript.Run(t, testscript.Params{
			Dir:                 "testdata",
			RequireExplicitExec: true,
			Setup: func(env *testscript.Env) error {
				env.Setenv("KUBECONFIG", kubeconfig)
				env.Setenv("NS", "helm-"+strings.ToLower(filepath.Base(env.WorkDir)[len("script-"):]))
				for _, name := range []string{"HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"} {
					env.Setenv(name, filepath.Join(env.WorkDir, "."+strings.ToLower(name)))
				}
				return nil
			},
			Cmds: map[string]func(*testscript.TestScript, bool, []string){"object": object(c)},
		})
	})
}

// object PATH prints an object of the API; with "!", there must be none.
func object(c *testcluster.Cluster) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		if len(args) != 1 {
			ts.Fatalf("usage: object PATH")
		}
		client, err := kubernetes.NewForConfig(c.Config)
		ts.Check(err)
		data, err := client.CoreV1().RESTClient().Get().AbsPath(args[0]).SetHeader("Accept", "application/json").DoRaw(context.Background())
		if neg == (err == nil) {
			ts.Fatalf("%s: %v\n%s", args[0], err, data)
		}
		_, err = ts.Stdout().Write(data)
		ts.Check(err)
	}
}

// startNode registers a node and plays its kubelet until the test ends.
func startNode(t *testing.T, client kubernetes.Interface) {
	t.Helper()
	room := corev1.ResourceList{corev1.ResourcePods: resource.MustParse("100"), corev1.ResourceCPU: resource.MustParse("8"), corev1.ResourceMemory: resource.MustParse("8Gi")}
	// With its status at once, as a kubelet does it: controllers write new nodes as well.
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}, Status: corev1.NodeStatus{Capacity: room, Allocatable: room, Conditions: []corev1.NodeCondition{
		{Type: corev1.NodeReady, Status: corev1.ConditionTrue, LastHeartbeatTime: metav1.Now()},
	}}}
	if _, err := client.CoreV1().Nodes().Create(t.Context(), node, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	f := informers.NewSharedInformerFactory(client, 0)
	handle := func(o any) {
		if p, ok := o.(*corev1.Pod); ok {
			handlePod(ctx, client, p.DeepCopy())
		}
	}
	if _, err := f.Core().V1().Pods().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: handle, UpdateFunc: func(_, o any) { handle(o) },
	}); err != nil {
		t.Fatal(err)
	}
	f.StartWithContext(ctx)
}

// handlePod does what is next for a pod. Errors are those of one that has changed
// meanwhile, which comes again.
func handlePod(ctx context.Context, client kubernetes.Interface, p *corev1.Pod) {
	api := client.CoreV1().Pods(p.Namespace)
	switch {
	case p.Spec.NodeName == "" || p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed:
	case p.DeletionTimestamp != nil:
		_ = api.Delete(ctx, p.Name, *metav1.NewDeleteOptions(0))
	case p.Status.Phase == corev1.PodPending:
		phase, ready := corev1.PodRunning, corev1.ConditionTrue
		if _, ofJob := p.Labels["batch.kubernetes.io/job-name"]; ofJob {
			phase, ready = corev1.PodSucceeded, corev1.ConditionFalse
			if p.Spec.Containers[0].Image == "fail" {
				phase = corev1.PodFailed
			}
		}
		p.Status.Phase = phase
		p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: ready, LastTransitionTime: metav1.Now()}}
		_, _ = api.UpdateStatus(ctx, p, metav1.UpdateOptions{})
	}
}
