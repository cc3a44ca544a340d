package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
)

// awaitTimeout is how long what a step waits for may take.
const awaitTimeout = 150 * time.Second

// An outcome is how a scenario stands on one control plane.
type outcome struct {
	// objects has what there is, normalised, by kind and name.
	objects map[string]any
	// trouble says what has not gone as the scenario says.
	trouble []string
}

// outcome returns how the scenario stands.
func (a *stage) outcome() outcome {
	objects, prefixes := a.world.snapshot(a.ns)
	n := newNormaliser(a.ns, prefixes)
	o := outcome{objects: n.objects(objects)}
	for _, t := range a.trouble {
		o.trouble = append(o.trouble, n.text(t))
	}
	return o
}

// step does one step, and notes what does not go as it says.
func (a *stage) step(ctx context.Context, i int) {
	st := a.steps[i]
	err := a.do(ctx, st)
	if apierrors.IsInternalError(err) || st.Refused != isRefusal(err) || err != nil && !isRefusal(err) {
		a.trouble = append(a.trouble, fmt.Sprintf("step %d: %v", i, err))
	}
	a.world.touch(a.ns)
}

func isRefusal(err error) bool {
	var status apierrors.APIStatus
	return errors.As(err, &status)
}

// A stage is a scenario on a control plane.
type stage struct {
	*plane
	*scenario
	trouble []string
}

// open makes the namespace and waits until pods can be made there.
func (a *stage) open(ctx context.Context) {
	a.world.add(a.ns)
	if err := a.makeNamespace(ctx); err != nil {
		a.trouble = append(a.trouble, fmt.Sprintf("no namespace: %v", err))
	}
}

func (a *stage) makeNamespace(ctx context.Context) error {
	ns := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": a.ns}}}
	if _, err := a.client.Resource(corev1.SchemeGroupVersion.WithResource("namespaces")).Create(ctx, ns, metav1.CreateOptions{}); err != nil {
		return err
	}
	for _, wanted := range []struct{ resource, name string }{{"serviceaccounts", "default"}, {"configmaps", "kube-root-ca.crt"}} {
		err := a.until(ctx, func() (bool, string) {
			return a.world.get(a.ns, schema.GroupResource{Resource: wanted.resource}, a.ns, wanted.name) != nil, wanted.name + " is missing"
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// until waits for what a watch will tell.
func (a *stage) until(ctx context.Context, done func() (bool, string)) error {
	end := time.Now().Add(awaitTimeout)
	for {
		ok, why := done()
		if ok {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("after %s, %s", awaitTimeout, why)
		}
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
}

// do does one step.
func (a *stage) do(ctx context.Context, st step) error {
	client := a.client
	if st.As != "" {
		var err error
		if client, err = a.as(st.As); err != nil {
			return err
		}
	}
	of := string(a.filled([]byte(cmp.Or(st.Of, a.of))))
	switch {
	case st.Create != nil:
		for _, raw := range st.Create {
			if err := a.create(ctx, client, raw); err != nil {
				return err
			}
		}
		return nil
	case st.Merge != nil:
		api, _, name, err := a.resource(client, of)
		if err != nil {
			return err
		}
		var subs []string
		if st.Sub != "" {
			subs = []string{st.Sub}
		}
		_, err = api.Patch(ctx, name, types.MergePatchType, a.filled(st.Merge), metav1.PatchOptions{}, subs...)
		return err
	case st.Delete != "":
		api, _, name, err := a.resource(client, string(a.filled([]byte(st.Delete))))
		if err != nil {
			return err
		}
		return api.Delete(ctx, name, deleteOptions(st.Propagation))
	case st.Pods != nil:
		return a.pods(ctx, st.Pods)
	case st.Await != nil:
		return a.await(ctx, of, a.filled(st.Await))
	case st.Node != nil:
		return a.nodes.add(ctx, string(a.filled([]byte(st.Node.Name))), a.filledMap(st.Node.Labels))
	default:
		a.nodes.silence(string(a.filled([]byte(st.Silence))))
		return nil
	}
}

// as returns the client of a user: "name,group,group".
func (a *stage) as(user string) (dynamic.Interface, error) {
	config := rest.CopyConfig(a.config)
	names := strings.Split(string(a.filled([]byte(user))), ",")
	config.Impersonate = rest.ImpersonationConfig{UserName: names[0], Groups: names[1:]}
	return dynamic.NewForConfig(config)
}

func (a *stage) filledMap(set map[string]string) map[string]string {
	all := map[string]string{}
	for k, v := range set {
		all[k] = string(a.filled([]byte(v)))
	}
	return all
}

// create makes an object, in the namespace of the scenario unless it names another. An
// owner reference with a name and no UID gets that of the object that it names.
func (a *stage) create(ctx context.Context, client dynamic.Interface, raw json.RawMessage) error {
	var u unstructured.Unstructured
	if err := json.Unmarshal(a.filled(raw), &u.Object); err != nil {
		return err
	}
	gvk := u.GroupVersionKind()
	m, err := a.mapper.RESTMapping(gvk.GroupKind(), gvk.Version)
	if err != nil {
		return err
	}
	if err := a.setOwnerUIDs(ctx, &u); err != nil {
		return err
	}
	api := client.Resource(m.Resource)
	if m.Scope.Name() == "root" {
		_, err = api.Create(ctx, &u, metav1.CreateOptions{})
		return err
	}
	if u.GetNamespace() == "" {
		u.SetNamespace(a.ns)
	}
	_, err = api.Namespace(u.GetNamespace()).Create(ctx, &u, metav1.CreateOptions{})
	return err
}

func (a *stage) setOwnerUIDs(ctx context.Context, u *unstructured.Unstructured) error {
	owners := u.GetOwnerReferences()
	for i, o := range owners {
		if o.UID != "" {
			continue
		}
		gvk := schema.FromAPIVersionAndKind(o.APIVersion, o.Kind)
		m, err := a.mapper.RESTMapping(gvk.GroupKind(), gvk.Version)
		if err != nil {
			return err
		}
		api := dynamic.ResourceInterface(a.client.Resource(m.Resource))
		if m.Scope.Name() != "root" {
			api = a.client.Resource(m.Resource).Namespace(a.ns)
		}
		owner, err := api.Get(ctx, o.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		owners[i].UID = owner.GetUID()
	}
	if len(owners) > 0 {
		u.SetOwnerReferences(owners)
	}
	return nil
}

// resource returns the client for "resource/name" or "namespace/resource/name".
func (a *stage) resource(client dynamic.Interface, of string) (api dynamic.ResourceInterface, gr schema.GroupResource, name string, err error) {
	parts := strings.Split(of, "/")
	namespace := a.ns
	if len(parts) == 3 {
		namespace, parts = parts[0], parts[1:]
	}
	if len(parts) != 2 {
		return nil, gr, "", fmt.Errorf("%q is no resource/name", of)
	}
	gvr, err := a.mapper.ResourceFor(schema.GroupVersionResource{Resource: parts[0]})
	if err != nil {
		return nil, gr, "", err
	}
	gvk, err := a.mapper.KindFor(gvr)
	if err != nil {
		return nil, gr, "", err
	}
	m, err := a.mapper.RESTMapping(gvk.GroupKind(), gvk.Version)
	if err != nil {
		return nil, gr, "", err
	}
	if m.Scope.Name() == "root" {
		return client.Resource(gvr), gvr.GroupResource(), parts[1], nil
	}
	return client.Resource(gvr).Namespace(namespace), gvr.GroupResource(), parts[1], nil
}

// await waits until an object has what is wanted, or is gone.
func (a *stage) await(ctx context.Context, of string, want []byte) error {
	api, _, name, err := a.resource(a.client, of)
	if err != nil {
		return err
	}
	var wanted any
	if err := json.Unmarshal(want, &wanted); err != nil {
		return err
	}
	end := time.Now().Add(awaitTimeout)
	for {
		u, err := api.Get(ctx, name, metav1.GetOptions{})
		switch {
		case err != nil && !apierrors.IsNotFound(err):
			return err
		case err != nil && wanted == "gone", err == nil && wanted != "gone" && has(u.Object, wanted):
			return nil
		case time.Now().After(end):
			return fmt.Errorf("%s has not become %s", of, want)
		}
		if err := pause(ctx, 200*time.Millisecond); err != nil {
			return err
		}
	}
}

// has says whether a value has all that another has: of an object the fields, of a list
// an item for each. "*" is anything.
func has(value, want any) bool {
	if want == "*" {
		return value != nil
	}
	switch w := want.(type) {
	case map[string]any:
		v, ok := value.(map[string]any)
		if !ok {
			return false
		}
		for k := range w {
			if !has(v[k], w[k]) {
				return false
			}
		}
		return true
	case []any:
		v, _ := value.([]any)
		for _, wanted := range w {
			found := false
			for _, item := range v {
				found = found || has(item, wanted)
			}
			if !found {
				return false
			}
		}
		return true
	case float64: // the API's numbers are integers
		n, ok := value.(int64)
		return ok && float64(n) == w
	}
	return value == want
}

// pods makes something of pods.
func (a *stage) pods(ctx context.Context, st *podStep) error {
	selector, err := labels.Parse(string(a.filled([]byte(st.Labels))))
	if err != nil {
		return err
	}
	name := string(a.filled([]byte(st.Name)))
	api := a.client.Resource(corev1.SchemeGroupVersion.WithResource("pods")).Namespace(a.ns)
	taken := 0
	for _, u := range a.world.pods(a.ns) {
		if !selector.Matches(labels.Set(u.GetLabels())) || name != "" && u.GetName() != name || st.Take > 0 && taken == st.Take {
			continue
		}
		taken++
		if err := a.pod(ctx, api, u, st); err != nil && !apierrors.IsNotFound(err) {
			return err
		}
	}
	if taken == 0 {
		return errors.New("there is no such pod")
	}
	return nil
}

func (a *stage) pod(ctx context.Context, api dynamic.ResourceInterface, u *unstructured.Unstructured, st *podStep) error {
	switch {
	case st.Delete:
		return api.Delete(ctx, u.GetName(), metav1.DeleteOptions{})
	case st.Merge != nil:
		_, err := api.Patch(ctx, u.GetName(), types.MergePatchType, a.filled(st.Merge), metav1.PatchOptions{})
		return err
	case st.Status != nil:
		patch := fmt.Appendf(nil, `{"status":%s}`, a.filled(st.Status))
		_, err := api.Patch(ctx, u.GetName(), types.MergePatchType, patch, metav1.PatchOptions{}, "status")
		return err
	}
	var p corev1.Pod
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, &p); err != nil {
		return err
	}
	a.nodes.become(&p, st.Become)
	patch, err := json.Marshal(map[string]any{"status": p.Status})
	if err != nil {
		return err
	}
	_, err = api.Patch(ctx, u.GetName(), types.MergePatchType, patch, metav1.PatchOptions{}, "status")
	return err
}
