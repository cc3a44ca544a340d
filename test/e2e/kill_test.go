package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

const (
	kills   = 100
	writers = 8
)

// A kube-apiserver that is killed again and again under load has not lost a write that it
// acknowledged. It is a second one on the etcd of a cluster, whose own server says
// in the end what is stored.
func TestKilledServerLosesNothing(t *testing.T) {
	c := newCluster(t)
	binary := filepath.Join(filepath.Dir(c.leme), "kube-apiserver")
	c.must(t, "up", "--with", "kube-apiserver="+binary)
	server := secondServer(t, c, binary)
	client := server.client(t)

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var load sync.WaitGroup
	var acknowledged atomic.Int64
	all := make([]writer, writers)
	for i := range all {
		all[i] = writer{client: client, name: fmt.Sprintf("writer-%d", i), count: &acknowledged}
		load.Go(func() { all[i].run(ctx) })
	}
	for i := range kills {
		server.start(t)
		before := acknowledged.Load()
		waitFor(t, fmt.Sprintf("start %d takes writes", i), time.Minute, func() bool { return acknowledged.Load() > before })
		// Anywhere in what it does by then.
		select {
		case <-time.After(rand.N(150 * time.Millisecond)):
		case <-ctx.Done():
		}
		server.kill(t)
	}
	cancel()
	load.Wait()
	t.Logf("%d writes were acknowledged", acknowledged.Load())

	stored := map[string]corev1.ConfigMap{}
	list, err := c.client(t, "").CoreV1().ConfigMaps(metav1.NamespaceDefault).List(t.Context(), metav1.ListOptions{})
	check(t, err)
	for _, cm := range list.Items {
		stored[cm.Name] = cm
	}
	for _, w := range all {
		w.wantStored(t, stored)
	}
}

// A server is a kube-apiserver that the test starts and kills.
type server struct {
	cluster *cluster
	command []string
	url     string
	log     *os.File
	running *exec.Cmd
}

// secondServer takes over the flags of the cluster's own kube-apiserver, but for the port.
func secondServer(t *testing.T, c *cluster, binary string) *server {
	t.Helper()
	cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", c.pid(t, "kube-apiserver")))
	check(t, err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	port := l.Addr().(*net.TCPAddr).Port
	check(t, l.Close())
	log, err := os.Create(filepath.Join(c.tmp, "second.log"))
	check(t, err)
	args := strings.Split(strings.TrimRight(string(cmdline), "\x00"), "\x00")
	s := &server{
		cluster: c, url: "https://127.0.0.1:" + strconv.Itoa(port), log: log,
		command: append(append([]string{binary}, args[1:]...), "--secure-port="+strconv.Itoa(port)),
	}
	t.Cleanup(func() {
		if s.running != nil {
			s.kill(t)
		}
		check(t, log.Close())
	})
	return s
}

func (s *server) start(t *testing.T) {
	t.Helper()
	s.running = exec.Command(s.command[0], s.command[1:]...)
	s.running.Stdout, s.running.Stderr = s.log, s.log
	check(t, s.running.Start())
}

func (s *server) kill(t *testing.T) {
	t.Helper()
	check(t, s.running.Process.Kill())
	if err := s.running.Wait(); s.running.ProcessState.Exited() {
		t.Fatalf("kube-apiserver ended by itself: %v, see %s", err, s.log.Name())
	}
	s.running = nil
}

func (s *server) client(t *testing.T) kubernetes.Interface { return s.cluster.client(t, s.url) }

// client is the cluster's administrator, at the cluster's own API server or the one at a URL.
func (c *cluster) client(t *testing.T, url string) kubernetes.Interface {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags(url, filepath.Join(c.dataDir, "kubeconfig", "admin.conf"))
	check(t, err)
	config.QPS = -1
	config.Timeout = 5 * time.Second
	client, err := kubernetes.NewForConfig(config)
	check(t, err)
	return client
}

// A writer creates, updates and deletes ConfigMaps, and remembers what was acknowledged.
type writer struct {
	client kubernetes.Interface
	name   string
	count  *atomic.Int64
	maps   []written
}

// written is what a writer knows of one of its ConfigMaps. What was sent and not answered
// may have happened or not.
type written struct {
	created, deleted, deleting bool
	acknowledged, sent         int
}

func (w *writer) run(ctx context.Context) {
	api := w.client.CoreV1().ConfigMaps(metav1.NamespaceDefault)
	for n := 0; ctx.Err() == nil; n++ {
		w.maps = append(w.maps, written{})
		m := &w.maps[n]
		cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("%s-%d", w.name, n)}, Data: map[string]string{"n": "0"}}
		if _, err := api.Create(ctx, cm, metav1.CreateOptions{}); err != nil {
			pause(ctx)
			continue
		}
		m.created = true
		w.count.Add(1)
		for m.sent < 3 {
			m.sent++
			cm.Data["n"] = strconv.Itoa(m.sent)
			if _, err := api.Update(ctx, cm, metav1.UpdateOptions{}); err != nil {
				pause(ctx)
				break
			}
			m.acknowledged = m.sent
			w.count.Add(1)
		}
		if n%2 == 0 {
			continue
		}
		m.deleting = true
		if err := api.Delete(ctx, cm.Name, metav1.DeleteOptions{}); err == nil || apierrors.IsNotFound(err) {
			m.deleted = true
			w.count.Add(1)
		}
	}
}

// pause lets a server that is down come back.
func pause(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(10 * time.Millisecond):
	}
}

// wantStored compares what was acknowledged with what is there.
func (w *writer) wantStored(t *testing.T, stored map[string]corev1.ConfigMap) {
	t.Helper()
	for n, m := range w.maps {
		name := fmt.Sprintf("%s-%d", w.name, n)
		cm, there := stored[name]
		switch {
		case there && m.deleted:
			t.Errorf("%s is there, and its deletion was acknowledged", name)
		case !there && m.created && !m.deleting:
			t.Errorf("%s is not there, and its creation was acknowledged", name)
		case there && m.created:
			if n, err := strconv.Atoi(cm.Data["n"]); err != nil || n < m.acknowledged || n > m.sent {
				t.Errorf("%s holds update %q; %d was acknowledged, %d sent", name, cm.Data["n"], m.acknowledged, m.sent)
			}
		}
	}
}
