package controller_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spf13/pflag"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/retry"
	"k8s.io/utils/ptr"

	"github.com/leme-k8s/leme/pkg/component/componenttest"
	"github.com/leme-k8s/leme/pkg/component/election"
	"github.com/leme-k8s/leme/pkg/controller"
	"github.com/leme-k8s/leme/pkg/testcluster"
)

// A journal is what several managers ask of one API server, in the order in which they begin to ask.
type journal struct {
	mu      sync.Mutex
	entries []asked
}

type asked struct {
	who, method, path string
	at                time.Time
}

func (j *journal) add(who string, req *http.Request) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.entries = append(j.entries, asked{who, req.Method, req.URL.Path, time.Now()})
}

func (j *journal) all() []asked {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.entries[:len(j.entries):len(j.entries)]
}

// ofLease says that a request is about the lease, and is one of those that change it.
func (a asked) ofLease(change bool) bool {
	return strings.HasSuffix(a.path, "/namespaces/kube-system/leases/kube-controller-manager") && (a.method == http.MethodPut) == change
}

// An elected manager is one of several, of which one leads.
type elected struct {
	name  string
	port  int
	stop  func()
	ended chan error
}

// startElected starts a manager that stands by while another leads.
func (c *cluster) startElected(name string, j *journal, flags ...string) *elected {
	c.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	c.must(err)
	m := &elected{name: name, port: l.Addr().(*net.TCPAddr).Port, ended: make(chan error, 1)}
	l.Close()
	kubeconfig := startProxy(c.T, c.cfg, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			j.add(name, req)
			next.ServeHTTP(w, req)
		})
	})
	o := controller.NewOptions()
	fs := pflag.NewFlagSet("", pflag.ContinueOnError)
	o.AddFlags(fs)
	c.must(fs.Parse(append(flags, "--kubeconfig="+kubeconfig, "--bind-address=127.0.0.1", fmt.Sprint("--secure-port=", m.port),
		"--authorization-always-allow-paths=/healthz/*,/metrics")))
	runner, err := o.New(c.Context())
	c.must(err)
	ctx, stop := context.WithCancel(context.Background())
	m.stop = stop
	done := make(chan struct{})
	go func() {
		defer close(done)
		m.ended <- runner.Run(ctx)
	}()
	c.Cleanup(func() {
		stop()
		<-done
	})
	return m
}

// tells returns what the manager answers to a path of its own port.
func (m *elected) tells(path string) string {
	hc := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}}
	resp, err := hc.Get(fmt.Sprintf("https://127.0.0.1:%d%s", m.port, path))
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return fmt.Sprint(resp.Status, "\n", string(body), err)
}

// works makes a namespace, in which the manager that leads makes a service account.
func (c *cluster) works() {
	c.Helper()
	c.in(c.T)
}

func (c *cluster) holder() string {
	l, err := c.cs.CoordinationV1().Leases("kube-system").Get(c.Context(), "kube-controller-manager", metav1.GetOptions{})
	if err != nil {
		return err.Error()
	}
	return ptr.Deref(l.Spec.HolderIdentity, "")
}

// looksInTwoSeconds is how often a manager that stands by looks for a lease that is given away, in the two seconds that a
// hand-over may take. That they come each half second is shown, with time that the test owns, in pkg/component/election.
const looksInTwoSeconds = 4

// A manager that is told to stop gives the lead away when its work is over, and who stands by takes it within two seconds,
// whenever that is.
func TestHandOver(t *testing.T) {
	tc := testcluster.Start(t)
	c := &cluster{T: t, cfg: tc.Config, cs: tc.Client(t)}
	j := &journal{}
	leader := c.startElected("0", j)
	c.works()
	for i, moment := range []struct {
		name string
		wait func(standby *elected)
	}{
		{"as soon as the other looks", func(*elected) {}},
		{"at rest", func(*elected) {
			since := len(j.all())
			c.eventually("the leader to renew its lease", func(context.Context) (bool, string) {
				for _, a := range j.all()[since:] {
					if a.who == leader.name && a.ofLease(true) {
						return true, ""
					}
				}
				return false, ""
			})
		}},
		{"at work", func(*elected) {
			for range 20 { // each of which wants a service account and a ConfigMap
				_, err := c.cs.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "work-"}}, metav1.CreateOptions{})
				c.must(err)
			}
		}},
		{"when the other has looked for long", func(standby *elected) {
			since := len(j.all())
			c.eventually("some looks", func(context.Context) (bool, string) {
				n := 0
				for _, a := range j.all()[since:] {
					if a.who == standby.name && a.ofLease(false) {
						n++
					}
				}
				return n > looksInTwoSeconds, ""
			})
		}},
	} {
		standby := c.startElected(fmt.Sprint(i+1), j)
		c.eventually("the other to look", func(context.Context) (bool, string) {
			for _, a := range j.all() {
				if a.who == standby.name && a.ofLease(false) {
					return true, ""
				}
			}
			return false, ""
		})
		moment.wait(standby)
		before := c.holder()
		if before == "" {
			t.Fatalf("%s: nobody leads", moment.name)
		}
		if got := standby.tells("/healthz/leaderElection"); !strings.HasPrefix(got, "200") {
			t.Errorf("%s: the health of who stands by: %s", moment.name, got)
		}
		stopped := time.Now()
		leader.stop()
		if err := <-leader.ended; err != nil {
			t.Errorf("%s: a clean stop: %v", moment.name, err)
		}
		c.eventually("the other to lead", func(context.Context) (bool, string) {
			now := c.holder()
			return now != "" && now != before, now
		})
		checkHandOver(t, moment.name, j.all(), leader, standby, stopped)
		c.works()
		if got := standby.tells("/metrics"); !strings.Contains(got, `leader_election_master_status{name="kube-controller-manager"} 1`) {
			t.Errorf("%s: the metrics do not say who leads", moment.name)
		}
		leader = standby
	}
}

// checkHandOver reads in the journal what two managers have done when one was told to stop.
func checkHandOver(t *testing.T, moment string, journal []asked, leader, standby *elected, stopped time.Time) {
	t.Helper()
	released := -1 // when the leader wrote for the last time
	for i, a := range journal {
		if a.who == leader.name && a.method != http.MethodGet && !strings.HasSuffix(a.path, "/events") {
			released = i
		}
	}
	if !journal[released].ofLease(true) {
		t.Fatalf("%s: the last that the leader has written is %v", moment, journal[released])
	}
	looks := 0
	for i, a := range journal {
		switch {
		case a.who != standby.name:
		case a.ofLease(true):
			if i < released {
				t.Errorf("%s: the other took the lead before it was given away", moment)
			}
			t.Logf("%s: given away %v after the stop, taken %v later, after %d looks", moment, journal[released].at.Sub(stopped), a.at.Sub(journal[released].at), looks)
			if looks > looksInTwoSeconds {
				t.Errorf("%s: the other looked %d times until it led", moment, looks)
			}
			return
		case a.ofLease(false) && i > released:
			looks++
		case a.method != http.MethodGet && !strings.Contains(a.path, "reviews"): // who asks its port is looked up by both
			t.Errorf("%s: the other writes before it leads: %v", moment, a)
		}
	}
	t.Errorf("%s: the other has not taken the lead", moment)
}

// A manager whose lease another has taken ends, and says why.
func TestLostLead(t *testing.T) {
	tc := testcluster.Start(t)
	c := &cluster{T: t, cfg: tc.Config, cs: tc.Client(t)}
	m := c.startElected("it", &journal{}, "--leader-elect-lease-duration=3s", "--leader-elect-renew-deadline=2s", "--leader-elect-retry-period=100ms")
	c.works()
	c.must(retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		l, err := c.cs.CoordinationV1().Leases("kube-system").Get(t.Context(), "kube-controller-manager", metav1.GetOptions{})
		if err != nil {
			return err
		}
		l.Spec.HolderIdentity, l.Spec.RenewTime = ptr.To("another"), ptr.To(metav1.NowMicro())
		l.Spec.LeaseDurationSeconds = ptr.To[int32](3600)
		_, err = c.cs.CoordinationV1().Leases("kube-system").Update(t.Context(), l, metav1.UpdateOptions{})
		return err
	}))
	componenttest.Eventually(t, "its end", func() bool { return len(m.ended) > 0 })
	if err := <-m.ended; !errors.Is(err, election.ErrLost) {
		t.Errorf("it ended with %v", err)
	}
}
