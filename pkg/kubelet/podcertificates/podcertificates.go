// Package podcertificates gets the certificates that pods have projected into volumes: it makes a key that
// never leaves memory but for the pod's volume, asks with a PodCertificateRequest for a certificate of it, and does so anew when
// the certificate is due for renewal.
//
// What to do about a certificate is decided by [state.next] and [outcomeOf], as pure functions. Nothing is
// kept over a restart: a new kubelet asks anew, and running pods keep what they have until then.
package podcertificates

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
)

// Config is what a Manager works with.
type Config struct {
	Client   kubernetes.Interface
	NodeName string
	// Node returns the node's object, whose UID is part of each request.
	Node func(ctx context.Context) (*v1.Node, error)
	// Changed is called with a pod of which a request has been answered.
	Changed  func(uid types.UID)
	Recorder record.EventRecorder
	Clock    clock.PassiveClock
}

// A Credential is a key with a certificate chain, both as PEM.
type Credential struct{ Key, Chain []byte }

// A Manager holds the credentials of a node's pods.
type Manager struct {
	Config
	base context.Context // of the requests that are waited for

	mu   sync.Mutex
	pods map[types.UID]*podState
}

// podState is what is known of one pod.
type podState struct {
	ctx     context.Context // until the pod is forgotten
	cancel  context.CancelFunc
	sources map[source]*state
}

// source is one podCertificate source of a pod.
type source struct {
	volume string
	index  int
}

// New returns a Manager that waits for answers until ctx is cancelled.
func New(ctx context.Context, c Config) *Manager {
	return &Manager{Config: c, base: ctx, pods: map[types.UID]*podState{}}
}

// Credential returns what a source of a pod's volume is to hold, and when to ask for it anew. As long as there is nothing, it is an error,
// and Changed is called when that may have changed.
func (m *Manager) Credential(ctx context.Context, pod *v1.Pod, volume string, index int, p *v1.PodCertificateProjection) (Credential, time.Time, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := m.pods[pod.UID]
	if all == nil {
		all = &podState{sources: map[source]*state{}}
		all.ctx, all.cancel = context.WithCancel(m.base)
		m.pods[pod.UID] = all
	}
	s := all.sources[source{volume, index}]
	if s == nil {
		s = &state{}
		all.sources[source{volume, index}] = s
	}
	now := m.Clock.Now()
	s.complain(now, func(reason, message string) { m.Recorder.Event(pod, v1.EventTypeWarning, reason, message) })
	step := s.next(now)
	if step == ask {
		s.waiting = true
		m.mu.Unlock() // a key may take seconds
		key, request, err := m.ask(ctx, pod, p)
		m.mu.Lock()
		if err == nil {
			go m.follow(all.ctx, pod, s, key, request)
		} else {
			s.waiting = false
			if s.have.Chain == nil {
				return Credential{}, time.Time{}, err
			}
			klog.FromContext(ctx).Error(err, "Cannot renew the certificate of a pod yet", "pod", klog.KObj(pod), "volume", volume)
		}
	}
	switch {
	case s.refused != nil:
		return Credential{}, time.Time{}, s.refused
	case s.have.Chain == nil:
		return Credential{}, time.Time{}, fmt.Errorf("credential bundle is not issued yet")
	case step != use:
		return s.have, now.Add(time.Minute), nil // to complain, or to ask again
	}
	return s.have, s.renew, nil
}

// Forget drops what is known of a pod.
func (m *Manager) Forget(uid types.UID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if all := m.pods[uid]; all != nil {
		all.cancel()
	}
	delete(m.pods, uid)
}

// ask makes a key and a request for its certificate.
func (m *Manager) ask(ctx context.Context, pod *v1.Pod, p *v1.PodCertificateProjection) (key []byte, request *certificatesv1.PodCertificateRequest, err error) {
	account, err := m.Client.CoreV1().ServiceAccounts(pod.Namespace).Get(ctx, pod.Spec.ServiceAccountName, metav1.GetOptions{})
	if err != nil {
		return nil, nil, fmt.Errorf("getting the pod's ServiceAccount for a PodCertificateRequest: %w", err)
	}
	node, err := m.Node(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("getting the node for a PodCertificateRequest: %w", err)
	}
	var proof []byte
	key, proof, err = newKey(p.KeyType)
	if err != nil {
		return nil, nil, err
	}
	request, err = m.Client.CertificatesV1().PodCertificateRequests(pod.Namespace).Create(ctx, &certificatesv1.PodCertificateRequest{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: pod.Namespace, GenerateName: "req-",
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID}},
		},
		Spec: certificatesv1.PodCertificateRequestSpec{
			SignerName: p.SignerName, PodName: pod.Name, PodUID: pod.UID,
			ServiceAccountName: account.Name, ServiceAccountUID: account.UID, NodeName: types.NodeName(m.NodeName), NodeUID: node.UID,
			MaxExpirationSeconds: p.MaxExpirationSeconds, StubPKCS10Request: proof, UnverifiedUserAnnotations: p.UserAnnotations,
		},
	}, metav1.CreateOptions{})
	if err != nil {
		return nil, nil, fmt.Errorf("creating a PodCertificateRequest: %w", err)
	}
	return key, request, nil
}

// follow waits for the answer to a request and takes it over. A request that was deleted is made anew when the pod asks again.
func (m *Manager) follow(ctx context.Context, pod *v1.Pod, s *state, key []byte, request *certificatesv1.PodCertificateRequest) {
	answer := m.wait(ctx, request)
	if ctx.Err() != nil {
		return
	}
	m.mu.Lock()
	s.waiting = false
	if answer != nil {
		o := outcomeOf(answer)
		if s.refused = o.refused; o.refused != nil {
			m.Recorder.Event(pod, v1.EventTypeWarning, o.event, o.refused.Error())
		} else {
			// Many pods that began together shall not renew together.
			jitter := time.Duration(rand.Int64N(int64(5 * time.Minute)))
			s.have, s.renew, s.ends, s.complained = Credential{Key: key, Chain: o.chain}, o.renew.Add(jitter), o.ends, 0
		}
	}
	m.mu.Unlock()
	m.Changed(pod.UID)
}

// wait follows a request until it is answered, and returns it then, or nil once it is gone.
func (m *Manager) wait(ctx context.Context, request *certificatesv1.PodCertificateRequest) *certificatesv1.PodCertificateRequest {
	const least, most = 200 * time.Millisecond, 10 * time.Second
	requests := m.Client.CertificatesV1().PodCertificateRequests(request.Namespace)
	// A node may watch only what is for itself.
	only := fields.AndSelectors(fields.OneTermEqualSelector(metav1.ObjectNameField, request.Name), fields.OneTermEqualSelector("spec.nodeName", m.NodeName)).String()
	for pause := least; ctx.Err() == nil; pause = min(2*pause, most) {
		w, err := requests.Watch(ctx, metav1.ListOptions{FieldSelector: only, ResourceVersion: request.ResourceVersion})
		if err == nil {
			for event := range w.ResultChan() {
				got, ok := event.Object.(*certificatesv1.PodCertificateRequest)
				if !ok || got.UID != request.UID {
					continue
				}
				if outcomeOf(got) != nil {
					w.Stop()
					return got
				}
				if event.Type == watch.Deleted {
					w.Stop()
					return nil
				}
			}
		}
		// The watch has ended, or cannot begin where the last one was.
		switch got, err := requests.Get(ctx, request.Name, metav1.GetOptions{}); {
		case apierrors.IsNotFound(err) || err == nil && got.UID != request.UID:
			return nil
		case err == nil && outcomeOf(got) != nil:
			return got
		case err == nil:
			request = got
		default:
			klog.FromContext(ctx).Info("Cannot look at a PodCertificateRequest yet", "request", klog.KObj(request), "err", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
	return nil
}
