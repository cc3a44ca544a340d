package plan

import (
	"context"
	"errors"
	"fmt"
	"io"

	v1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes"
	clientscheme "k8s.io/client-go/kubernetes/scheme"
)

// Read reads the objects of a manifest, YAML or JSON, that are of Kubernetes' own kinds;
// others have no say in where pods go.
func Read(in io.Reader) ([]runtime.Object, error) {
	var out []runtime.Object
	docs := yaml.NewYAMLOrJSONDecoder(in, 4096)
	for i := 1; ; i++ {
		var raw runtime.RawExtension
		switch err := docs.Decode(&raw); {
		case errors.Is(err, io.EOF):
			return out, nil
		case err != nil:
			return nil, fmt.Errorf("document %d: %w", i, err)
		}
		if len(raw.Raw) == 0 || string(raw.Raw) == "null" {
			continue
		}
		found, err := decode(raw.Raw)
		if err != nil {
			return nil, fmt.Errorf("document %d: %w", i, err)
		}
		out = append(out, found...)
	}
}

func decode(data []byte) ([]runtime.Object, error) {
	obj, kind, err := clientscheme.Codecs.UniversalDeserializer().Decode(data, nil, nil)
	switch {
	case runtime.IsNotRegisteredError(err):
		return nil, nil
	case err != nil:
		return nil, err
	}
	list, ok := obj.(*v1.List)
	if !ok {
		obj.GetObjectKind().SetGroupVersionKind(*kind)
		return []runtime.Object{obj}, nil
	}
	var out []runtime.Object
	for i, item := range list.Items {
		found, err := decode(item.Raw)
		if err != nil {
			return nil, fmt.Errorf("items[%d]: %w", i, err)
		}
		out = append(out, found...)
	}
	return out, nil
}

// Asker makes requests of manifests: it has the API server admit the pods, as a dry run,
// so that defaults, priorities and the rules of admission are in them.
type Asker struct {
	Client kubernetes.Interface
	// Namespace is for objects that name none.
	Namespace string
	// Copies, if it is not 0, is how many pods there are to be of each kind.
	Copies int
}

// Request makes a request of the objects of a manifest.
func (a *Asker) Request(ctx context.Context, manifest []runtime.Object) (*Request, error) {
	r := &Request{}
	templates := map[string]*resourceapi.ResourceClaimTemplate{}
	for _, obj := range manifest {
		if o, err := meta.Accessor(obj); err == nil && o.GetNamespace() == "" {
			o.SetNamespace(a.Namespace)
		}
		if t, ok := obj.(*resourceapi.ResourceClaimTemplate); ok {
			templates[t.Namespace+"/"+t.Name] = t
		}
	}
	for _, obj := range manifest {
		g, aboutPods, err := podsOf(obj, a.Copies)
		switch {
		case err != nil:
			return nil, err
		case aboutPods:
			err = a.addPods(ctx, r, g, templates)
		default:
			err = a.addObject(ctx, r, obj)
		}
		if err != nil {
			return nil, err
		}
		if len(r.Pods) > MaxPods {
			return nil, r.Validate()
		}
	}
	if len(r.Pods) == 0 {
		return nil, errors.New("there are no pods in it: want a Pod, Deployment, ReplicaSet, StatefulSet, ReplicationController, Job or CronJob")
	}
	return r, nil
}

// AddNodes adds nodes that are to exist as well.
func (r *Request) AddNodes(manifest []runtime.Object) error {
	n := 0
	for _, obj := range manifest {
		node, ok := obj.(*v1.Node)
		if !ok {
			continue
		}
		n++
		if len(node.Status.Allocatable) == 0 {
			node.Status.Allocatable = node.Status.Capacity
		}
		if len(node.Status.Allocatable) == 0 {
			return fmt.Errorf("node %q: status.allocatable must say what it offers to pods", node.Name)
		}
		if node.Labels[v1.LabelHostname] == "" { // as its kubelet would
			metav1.SetMetaDataLabel(&node.ObjectMeta, v1.LabelHostname, node.Name)
		}
		if err := r.add(node); err != nil {
			return err
		}
	}
	if n == 0 {
		return errors.New("there is no Node in it")
	}
	return nil
}

func (r *Request) add(obj runtime.Object) error {
	if gvk := obj.GetObjectKind().GroupVersionKind(); gvk.Empty() {
		kinds, _, err := clientscheme.Scheme.ObjectKinds(obj)
		if err != nil {
			return err
		}
		obj.GetObjectKind().SetGroupVersionKind(kinds[0])
	}
	data, err := runtime.Encode(clientscheme.Codecs.LegacyCodec(obj.GetObjectKind().GroupVersionKind().GroupVersion()), obj)
	if err != nil {
		return err
	}
	r.Objects = append(r.Objects, runtime.RawExtension{Raw: data})
	return nil
}

// addPods adds pods, one of which the API server admits for all.
func (a *Asker) addPods(ctx context.Context, r *Request, g group, templates map[string]*resourceapi.ResourceClaimTemplate) error {
	if len(g.names) == 0 {
		return nil
	}
	if g.owner != nil {
		if err := r.add(g.owner); err != nil {
			return err
		}
	}
	pod := g.pod.DeepCopy()
	pod.GenerateName = g.names[0] + "-" // one of the name itself may exist
	own := pod.Spec.Volumes
	for i := range own {
		if c := own[i].PersistentVolumeClaim; c != nil && c.ClaimName == "" {
			c.ClaimName = claimName(own[i].Name, g.names[0])
		}
	}
	admitted, err := a.Client.CoreV1().Pods(pod.Namespace).Create(ctx, pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	if err != nil {
		return fmt.Errorf("pod %s: %w", g.names[0], err)
	}
	for _, name := range g.names {
		p := admitted.DeepCopy()
		p.GenerateName, p.Name, p.UID = "", name, uuid.NewUUID()
		for _, template := range g.claims {
			claim := template.DeepCopy()
			claim.Namespace, claim.Name = p.Namespace, claimName(template.Name, name)
			if err := a.addObject(ctx, r, claim); err != nil {
				return err
			}
			for i := range p.Spec.Volumes {
				if v := &p.Spec.Volumes[i]; v.Name == template.Name && v.PersistentVolumeClaim != nil {
					v.PersistentVolumeClaim.ClaimName = claim.Name
				}
			}
		}
		if err := a.addOwnClaims(ctx, r, p, templates); err != nil {
			return err
		}
		r.Pods = append(r.Pods, *p)
	}
	return nil
}

func claimName(template, pod string) string { return template + "-" + pod }

// addOwnClaims adds the claims that controllers would make for a pod: of its ephemeral
// volumes, and of the templates of devices.
func (a *Asker) addOwnClaims(ctx context.Context, r *Request, pod *v1.Pod, templates map[string]*resourceapi.ResourceClaimTemplate) error {
	owner := []metav1.OwnerReference{*metav1.NewControllerRef(pod, v1.SchemeGroupVersion.WithKind("Pod"))}
	for _, v := range pod.Spec.Volumes {
		if v.Ephemeral == nil || v.Ephemeral.VolumeClaimTemplate == nil {
			continue
		}
		t := v.Ephemeral.VolumeClaimTemplate
		claim := &v1.PersistentVolumeClaim{ObjectMeta: *t.ObjectMeta.DeepCopy(), Spec: *t.Spec.DeepCopy()}
		claim.Namespace, claim.Name, claim.OwnerReferences = pod.Namespace, pod.Name+"-"+v.Name, owner
		if err := a.addObject(ctx, r, claim); err != nil {
			return err
		}
	}
	for _, c := range pod.Spec.ResourceClaims {
		if c.ResourceClaimTemplateName == nil {
			continue
		}
		t := templates[pod.Namespace+"/"+*c.ResourceClaimTemplateName]
		if t == nil {
			var err error
			if t, err = a.Client.ResourceV1().ResourceClaimTemplates(pod.Namespace).Get(ctx, *c.ResourceClaimTemplateName, metav1.GetOptions{}); err != nil {
				return fmt.Errorf("pod %s: spec.resourceClaims: %w", pod.Name, err)
			}
		}
		claim := &resourceapi.ResourceClaim{ObjectMeta: *t.Spec.ObjectMeta.DeepCopy(), Spec: *t.Spec.Spec.DeepCopy()}
		claim.Namespace, claim.Name, claim.OwnerReferences = pod.Namespace, pod.Name+"-"+c.Name, owner
		pod.Status.ResourceClaimStatuses = append(pod.Status.ResourceClaimStatuses, v1.PodResourceClaimStatus{Name: c.Name, ResourceClaimName: &claim.Name})
		if err := a.addObject(ctx, r, claim); err != nil {
			return err
		}
	}
	return nil
}

// addObject adds another object, as the API server would have it. One of its name that
// exists is used as it is.
func (a *Asker) addObject(ctx context.Context, r *Request, obj runtime.Object) error {
	dryRun := metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}
	var (
		admitted runtime.Object
		err      error
		resource schema.GroupResource
	)
	switch o := obj.(type) {
	case *v1.PersistentVolumeClaim:
		resource = v1.Resource("persistentvolumeclaims")
		admitted, err = a.Client.CoreV1().PersistentVolumeClaims(o.Namespace).Create(ctx, o, dryRun)
	case *resourceapi.ResourceClaim:
		resource = resourceapi.Resource("resourceclaims")
		admitted, err = a.Client.ResourceV1().ResourceClaims(o.Namespace).Create(ctx, o, dryRun)
	case *v1.Service:
		resource = v1.Resource("services")
		admitted, err = a.Client.CoreV1().Services(o.Namespace).Create(ctx, o, dryRun)
	case *v1.Node:
		o.Namespace = ""
		return r.AddNodes([]runtime.Object{o})
	default:
		return nil // it has no say
	}
	switch {
	case apierrors.IsAlreadyExists(err):
		return nil
	case err != nil:
		return fmt.Errorf("%s: %w", resource, err)
	}
	if o, err := meta.Accessor(admitted); err == nil && o.GetUID() == "" {
		o.SetUID(uuid.NewUUID())
	}
	return r.add(admitted)
}
