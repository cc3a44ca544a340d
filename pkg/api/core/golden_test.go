package core

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/yaml"
)

// With -original, TestValidation asks a running kube-apiserver of Kubernetes
// instead of this package and writes its answers into testdata.
var original = flag.String("original", "", "kubeconfig of an original kube-apiserver, to record its answers in testdata")

// A suite is a valid object and what happens to it when fields are changed.
type suite struct {
	Kind     string         `json:"kind"`
	Resource string         `json:"resource"`
	Base     map[string]any `json:"base"`
	Cases    []*change      `json:"cases"`
}

// A change sets fields of the base object, by their paths; null removes one. It
// is tried as a creation or, if Update says which part is written, as an update
// of the base with the fields Old.
type change struct {
	Update string         `json:"update,omitempty"`
	Old    map[string]any `json:"old,omitempty"`
	Set    map[string]any `json:"set,omitempty"`
	Want   []string       `json:"want,omitempty"`
	Warn   []string       `json:"warn,omitempty"` // of what is accepted
}

func TestValidation(t *testing.T) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no testdata: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var s suite
			if err := yaml.UnmarshalStrict(data, &s); err != nil {
				t.Fatal(err)
			}
			if *original != "" {
				s.record(t, file)
				return
			}
			for _, c := range s.Cases {
				t.Run(c.name(), func(t *testing.T) {
					got := s.validate(t, c)
					if d := cmp.Diff(sorted(c.Want), sorted(got)); d != "" {
						t.Errorf("(-original +here)\n%s", d)
					}
					if len(c.Want) > 0 || c.Update == "resize" || c.Update == "ephemeralcontainers" || c.Update == "status" {
						return
					}
					o, old := s.objects(t, c)
					if d := cmp.Diff(sorted(c.Warn), sorted(warners[s.Kind](t, o, old))); d != "" {
						t.Errorf("warnings (-original +here)\n%s", d)
					}
				})
			}
		})
	}
}

func sorted(list []string) []string {
	if len(list) == 0 {
		return nil
	}
	return slices.Sorted(slices.Values(list))
}

func (c *change) name() string {
	b, _ := json.Marshal(c.Set)
	return strings.TrimSpace(c.Update + " " + string(b))
}

// objects are the object that is written and, for an update, the one it replaces.
func (s *suite) objects(t *testing.T, c *change) (o, old map[string]any) {
	t.Helper()
	o = runtime.DeepCopyJSON(s.Base)
	apply(t, o, c.Old)
	if c.Update != "" {
		if *original == "" { // what stored objects have
			setField(o, []any{"metadata", "resourceVersion"}, "1")
			if s.Kind == "Pod" {
				setField(o, []any{"status", "qosClass"}, string(PodQOS(typed[corev1.Pod](t, o))))
			}
		}
		old = runtime.DeepCopyJSON(o)
	}
	apply(t, o, c.Set)
	return o, old
}

func apply(t *testing.T, o map[string]any, set map[string]any) {
	t.Helper()
	paths := make([]string, 0, len(set))
	for p := range set {
		paths = append(paths, p)
	}
	sort.Strings(paths)
	for _, p := range paths {
		setField(o, splitPath(p), runtime.DeepCopyJSONValue(set[p]))
	}
}

func splitPath(p string) []any {
	var steps []any
	for _, part := range strings.Split(p, ".") {
		name, rest, _ := strings.Cut(part, "[")
		steps = append(steps, name)
		for rest != "" {
			var index string
			index, rest, _ = strings.Cut(rest, "]")
			i, _ := strconv.Atoi(index)
			steps = append(steps, i)
			rest = strings.TrimPrefix(rest, "[")
		}
	}
	return steps
}

func setField(at any, steps []any, v any) any {
	if len(steps) == 0 {
		return v
	}
	switch step := steps[0].(type) {
	case string:
		m, _ := at.(map[string]any)
		if m == nil {
			m = map[string]any{}
		}
		if v = setField(m[step], steps[1:], v); v == nil {
			delete(m, step)
		} else {
			m[step] = v
		}
		return m
	default:
		list, _ := at.([]any)
		i := step.(int)
		for len(list) <= i {
			list = append(list, nil)
		}
		list[i] = setField(list[i], steps[1:], v)
		return list
	}
}

// typed reads an object as the API server does, and sets its defaults.
func typed[T any](t *testing.T, o map[string]any) *T {
	t.Helper()
	if o == nil {
		return nil
	}
	b, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	v := new(T)
	if err := json.Unmarshal(b, v); err != nil {
		t.Fatal(err)
	}
	scheme := runtime.NewScheme()
	if err := AddDefaults(scheme); err != nil {
		t.Fatal(err)
	}
	if object, ok := any(v).(runtime.Object); ok {
		scheme.Default(object)
	}
	return v
}

func untyped(t *testing.T, o any) map[string]any {
	t.Helper()
	m, err := runtime.DefaultUnstructuredConverter.ToUnstructured(o)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// kindOf makes a validator of the functions for one kind. "create" and "update"
// are what the object itself goes through, the others its subresources.
func kindOf[T any](create func(*T) field.ErrorList, updates map[string]func(o, old *T) field.ErrorList) func(*testing.T, string, map[string]any, map[string]any) field.ErrorList {
	return func(t *testing.T, update string, o, old map[string]any) field.ErrorList {
		if update == "" {
			return create(typed[T](t, o))
		}
		f := updates[update]
		if f == nil {
			t.Fatalf("no update of %s", update)
		}
		return f(typed[T](t, o), typed[T](t, old))
	}
}

type updates[T any] = map[string]func(o, old *T) field.ErrorList

var validators = map[string]func(*testing.T, string, map[string]any, map[string]any) field.ErrorList{
	"Pod": kindOf(validateServedPod, updates[corev1.Pod]{
		"spec": ValidatePodUpdate, "status": ValidatePodStatusUpdate,
		"ephemeralcontainers": ValidatePodEphemeralContainersUpdate, "resize": ValidatePodResize,
	}),
	"Service": kindOf(ValidateService, updates[corev1.Service]{"spec": ValidateServiceUpdate, "status": ValidateServiceStatusUpdate}),
	"Node":    kindOf(ValidateNode, updates[corev1.Node]{"spec": ValidateNodeUpdate, "status": ValidateNodeStatusUpdate}),
	"Namespace": kindOf(ValidateNamespace, updates[corev1.Namespace]{
		"spec": ValidateNamespaceUpdate, "status": ValidateNamespaceStatusUpdate, "finalize": ValidateNamespaceFinalizeUpdate,
	}),
	"Endpoints":             kindOf(ValidateEndpoints, updates[corev1.Endpoints]{"spec": ValidateEndpointsUpdate}),
	"ConfigMap":             kindOf(ValidateConfigMap, updates[corev1.ConfigMap]{"spec": ValidateConfigMapUpdate}),
	"Secret":                kindOf(ValidateSecret, updates[corev1.Secret]{"spec": ValidateSecretUpdate}),
	"ServiceAccount":        kindOf(ValidateServiceAccount, updates[corev1.ServiceAccount]{"spec": ValidateServiceAccountUpdate}),
	"Event":                 kindOf(ValidateEvent, updates[corev1.Event]{"spec": ValidateEventUpdate}),
	"ReplicationController": kindOf(ValidateReplicationController, updates[corev1.ReplicationController]{"spec": ValidateReplicationControllerUpdate, "status": ValidateReplicationControllerStatusUpdate}),
	"ResourceQuota":         kindOf(ValidateResourceQuota, updates[corev1.ResourceQuota]{"spec": ValidateResourceQuotaUpdate, "status": ValidateResourceQuotaStatusUpdate}),
	"LimitRange":            kindOf(ValidateLimitRange, updates[corev1.LimitRange]{"spec": ValidateLimitRangeUpdate}),
	"PodTemplate":           kindOf(ValidatePodTemplate, updates[corev1.PodTemplate]{"spec": ValidatePodTemplateUpdate}),
	"PersistentVolume":      kindOf(ValidatePersistentVolume, updates[corev1.PersistentVolume]{"spec": ValidatePersistentVolumeUpdate, "status": ValidatePersistentVolumeStatusUpdate}),
	"PersistentVolumeClaim": kindOf(ValidatePersistentVolumeClaim, updates[corev1.PersistentVolumeClaim]{"spec": ValidatePersistentVolumeClaimUpdate, "status": ValidatePersistentVolumeClaimStatusUpdate}),
}

func warner[T any](f func(o, old *T) []string) func(*testing.T, map[string]any, map[string]any) []string {
	return func(t *testing.T, o, old map[string]any) []string { return f(typed[T](t, o), typed[T](t, old)) }
}

func none[T any](*T, *T) []string { return nil }

var warners = map[string]func(*testing.T, map[string]any, map[string]any) []string{
	"Pod":                   warner(WarningsPod),
	"Service":               warner(WarningsService),
	"Node":                  warner(WarningsNode),
	"Namespace":             warner(none[corev1.Namespace]),
	"Endpoints":             warner(WarningsEndpoints),
	"ConfigMap":             warner(none[corev1.ConfigMap]),
	"Secret":                warner(WarningsSecret),
	"ServiceAccount":        warner(WarningsServiceAccount),
	"Event":                 warner(none[corev1.Event]),
	"ReplicationController": warner(WarningsReplicationController),
	"ResourceQuota":         warner(none[corev1.ResourceQuota]),
	"LimitRange":            warner(none[corev1.LimitRange]),
	"PodTemplate":           warner(WarningsPodTemplate),
	"PersistentVolume":      warner(WarningsPersistentVolume),
	"PersistentVolumeClaim": warner(WarningsPersistentVolumeClaim),
}

func (s *suite) validate(t *testing.T, c *change) []string {
	o, old := s.objects(t, c)
	if s.Kind == "Service" { // what happens to a Service before it is validated
		svc, was := typed[corev1.Service](t, o), typed[corev1.Service](t, old)
		if was != nil {
			settleService(was, nil)
			old = untyped(t, was)
		}
		if c.Update != "status" {
			settleService(svc, was)
			o = untyped(t, svc)
		}
	}
	if s.Kind == "Pod" && c.Update == "" {
		pod := typed[corev1.Pod](t, o)
		MergeMatchLabelKeys(pod)
		o = untyped(t, pod)
	}
	if s.Kind == "PersistentVolumeClaim" && c.Update == "" {
		claim := typed[corev1.PersistentVolumeClaim](t, o)
		SettleClaim(&claim.Spec, nil)
		o = untyped(t, claim)
	}
	errs := validators[s.Kind](t, c.Update, o, old)
	got := make([]string, 0, len(errs))
	// The server's answer for objects is a Status; its causes are what clients see.
	for _, cause := range errors.NewInvalid(corev1.SchemeGroupVersion.WithKind(s.Kind).GroupKind(), "x", errs).ErrStatus.Details.Causes {
		got = append(got, cause.Field+": "+cause.Message)
	}
	return got
}

// settleService does what happens to a written Service before it is validated.
func settleService(svc, old *corev1.Service) {
	if old != nil {
		KeepAllocated(svc, old)
	}
	SyncClusterIPs(svc, old)
	DropMeaningless(svc, old)
}

// validateServedPod validates what the server makes of a new pod.
func validateServedPod(pod *corev1.Pod) field.ErrorList {
	DropDisabledPodFields(&pod.Spec, nil, nil)
	return ValidatePod(pod)
}
