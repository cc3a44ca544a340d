// Package objects holds the Secrets, ConfigMaps and service account tokens that this
// node's pods refer to.
//
// An object is fetched when the first pod that refers to it appears and watched, alone, until
// the last one has gone: a pod's start waits for one GET at most, and nothing is polled.
package objects

import (
	"context"
	"sync"
	"time"

	authv1 "k8s.io/api/authentication/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/klog/v2"
)

type kind string

const (
	secrets    kind = "secrets"
	configMaps kind = "configmaps"
)

type ref struct {
	kind            kind
	namespace, name string
}

// A Cache holds objects for as long as pods refer to them.
type Cache struct {
	client kubernetes.Interface
	// changed is called with each pod that refers to an object that has changed.
	changed func(types.UID)

	mu      sync.Mutex
	entries map[ref]*entry
	pods    map[types.UID]map[ref]bool
	tokens  map[tokenKey]*token
}

type entry struct {
	cancel context.CancelFunc
	users  int
	ready  chan struct{} // closed with the first answer

	// Guarded by the cache's mutex.
	object runtime.Object
	err    error
}

// New returns an empty Cache.
func New(client kubernetes.Interface, changed func(types.UID)) *Cache {
	return &Cache{client: client, changed: changed, entries: map[ref]*entry{}, pods: map[types.UID]map[ref]bool{}, tokens: map[tokenKey]*token{}}
}

// SetPod begins to fetch what a pod refers to, and lets go what it does no more.
func (c *Cache) SetPod(ctx context.Context, pod *v1.Pod) { c.set(ctx, pod.UID, references(pod)) }

// ForgetPod lets go everything that a pod referred to.
func (c *Cache) ForgetPod(uid types.UID) {
	c.set(context.Background(), uid, nil)
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.pods, uid)
	for k := range c.tokens {
		if k.pod == uid {
			delete(c.tokens, k)
		}
	}
}

func (c *Cache) set(ctx context.Context, uid types.UID, want map[ref]bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for r := range want {
		if c.pods[uid][r] {
			continue
		}
		e := c.entries[r]
		if e == nil {
			e = &entry{ready: make(chan struct{})}
			var run context.Context
			run, e.cancel = context.WithCancel(ctx)
			c.entries[r] = e
			go c.follow(run, r, e)
		}
		e.users++
	}
	for r := range c.pods[uid] {
		if want[r] {
			continue
		}
		if e := c.entries[r]; e != nil {
			if e.users--; e.users == 0 {
				e.cancel()
				delete(c.entries, r)
			}
		}
	}
	c.pods[uid] = want
}

// Secret returns a Secret; its error is the API server's.
func (c *Cache) Secret(ctx context.Context, namespace, name string) (*v1.Secret, error) {
	obj, err := c.get(ctx, ref{secrets, namespace, name})
	if err != nil {
		return nil, err
	}
	return obj.(*v1.Secret), nil
}

// ConfigMap returns a ConfigMap; its error is the API server's.
func (c *Cache) ConfigMap(ctx context.Context, namespace, name string) (*v1.ConfigMap, error) {
	obj, err := c.get(ctx, ref{configMaps, namespace, name})
	if err != nil {
		return nil, err
	}
	return obj.(*v1.ConfigMap), nil
}

func (c *Cache) get(ctx context.Context, r ref) (runtime.Object, error) {
	c.mu.Lock()
	e := c.entries[r]
	c.mu.Unlock()
	if e == nil {
		return c.fetch(ctx, r)
	}
	select {
	case <-e.ready:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	c.mu.Lock()
	obj, err := e.object, e.err
	c.mu.Unlock()
	if err != nil && !apierrors.IsNotFound(err) {
		// What went wrong may be over: a binding that the authorizer had not seen yet, say.
		return c.fetch(ctx, r)
	}
	return obj, err
}

func (c *Cache) fetch(ctx context.Context, r ref) (runtime.Object, error) {
	if r.kind == secrets {
		return c.client.CoreV1().Secrets(r.namespace).Get(ctx, r.name, metav1.GetOptions{})
	}
	return c.client.CoreV1().ConfigMaps(r.namespace).Get(ctx, r.name, metav1.GetOptions{})
}

func (c *Cache) watch(ctx context.Context, r ref, version string) (watch.Interface, error) {
	o := metav1.ListOptions{
		FieldSelector:       fields.OneTermEqualSelector(metav1.ObjectNameField, r.name).String(),
		ResourceVersion:     version,
		AllowWatchBookmarks: true,
	}
	if r.kind == secrets {
		return c.client.CoreV1().Secrets(r.namespace).Watch(ctx, o)
	}
	return c.client.CoreV1().ConfigMaps(r.namespace).Watch(ctx, o)
}

// follow keeps an entry up to date until its last user has gone.
func (c *Cache) follow(ctx context.Context, r ref, e *entry) {
	const least, most = 200 * time.Millisecond, 30 * time.Second
	first := true
	for wait := least; ctx.Err() == nil; {
		obj, err := c.fetch(ctx, r)
		if ctx.Err() != nil {
			break
		}
		if err != nil {
			obj = nil // a typed nil otherwise
		}
		c.store(r, e, obj, err, first)
		if first {
			close(e.ready)
			first = false
		}
		if isImmutable(obj) {
			return
		}
		if err == nil || apierrors.IsNotFound(err) {
			started := time.Now()
			if err = c.followWatch(ctx, r, e, obj); time.Since(started) > most {
				wait = least
			}
		}
		klog.FromContext(ctx).V(4).Info("Watching an object anew", "kind", r.kind, "object", klog.KRef(r.namespace, r.name), "err", err)
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
		wait = min(2*wait, most)
	}
	if first {
		c.store(r, e, nil, context.Cause(ctx), false)
		close(e.ready)
	}
}

func (c *Cache) followWatch(ctx context.Context, r ref, e *entry, obj runtime.Object) error {
	version := ""
	if m, ok := obj.(metav1.Object); ok {
		version = m.GetResourceVersion()
	}
	w, err := c.watch(ctx, r, version)
	if err != nil {
		return err
	}
	defer w.Stop()
	for event := range w.ResultChan() {
		switch event.Type {
		case watch.Added, watch.Modified:
			c.store(r, e, event.Object, nil, false)
		case watch.Deleted:
			c.store(r, e, nil, apierrors.NewNotFound(v1.Resource(string(r.kind)), r.name), false)
		case watch.Error:
			return apierrors.FromObject(event.Object)
		}
	}
	return nil
}

// store keeps an answer and tells the pods that refer to the object, unless it is the first.
func (c *Cache) store(r ref, e *entry, obj runtime.Object, err error, first bool) {
	c.mu.Lock()
	same := version(obj) == version(e.object) && (err == nil) == (e.err == nil)
	e.object, e.err = obj, err
	var tell []types.UID
	if !first && !same {
		for uid, refs := range c.pods {
			if refs[r] {
				tell = append(tell, uid)
			}
		}
	}
	c.mu.Unlock()
	for _, uid := range tell {
		c.changed(uid)
	}
}

func version(obj runtime.Object) string {
	if m, ok := obj.(metav1.Object); ok {
		return string(m.GetUID()) + "/" + m.GetResourceVersion()
	}
	return ""
}

func isImmutable(obj runtime.Object) bool {
	switch o := obj.(type) {
	case *v1.Secret:
		return o.Immutable != nil && *o.Immutable
	case *v1.ConfigMap:
		return o.Immutable != nil && *o.Immutable
	}
	return false
}

type tokenKey struct {
	pod      types.UID
	audience string
	seconds  int64
}

type token struct {
	value string
	renew time.Time
	ends  time.Time
}

// Token returns a token of a pod's ServiceAccount that is bound to the pod, and when it is
// due for renewal: after four fifths of its life, or a day.
func (c *Cache) Token(ctx context.Context, pod *v1.Pod, audience string, seconds int64) (string, time.Time, error) {
	key := tokenKey{pod.UID, audience, seconds}
	c.mu.Lock()
	have := c.tokens[key]
	c.mu.Unlock()
	if have != nil && time.Now().Before(have.renew) {
		return have.value, have.renew, nil
	}
	request := &authv1.TokenRequest{Spec: authv1.TokenRequestSpec{
		ExpirationSeconds: &seconds,
		BoundObjectRef:    &authv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID},
	}}
	if audience != "" {
		request.Spec.Audiences = []string{audience}
	}
	asked := time.Now()
	got, err := c.client.CoreV1().ServiceAccounts(pod.Namespace).CreateToken(ctx, pod.Spec.ServiceAccountName, request, metav1.CreateOptions{})
	if err != nil {
		// An old token that is still good serves until the API server is back.
		if have != nil && time.Now().Before(have.ends) {
			klog.FromContext(ctx).Error(err, "Cannot renew a token yet", "pod", klog.KObj(pod))
			return have.value, time.Now().Add(time.Minute), nil
		}
		return "", time.Time{}, err
	}
	life := time.Until(got.Status.ExpirationTimestamp.Time)
	t := &token{value: got.Status.Token, ends: got.Status.ExpirationTimestamp.Time, renew: asked.Add(min(life*4/5, 24*time.Hour))}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pods[pod.UID] != nil {
		c.tokens[key] = t
	}
	return t.value, t.renew, nil
}
