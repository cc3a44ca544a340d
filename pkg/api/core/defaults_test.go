package core

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"
)

// A defaulted is a manifest and what the original stores of it.
type defaulted struct {
	Resource string         `json:"resource"`
	Manifest map[string]any `json:"manifest"`
	Want     map[string]any `json:"want"`
}

func TestDefaults(t *testing.T) {
	const file = "testdata/defaults/core.yaml"
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var cases []*defaulted
	if err := yaml.UnmarshalStrict(data, &cases); err != nil {
		t.Fatal(err)
	}
	if *original != "" {
		recordDefaults(t, cases, file)
		return
	}
	scheme := runtime.NewScheme()
	if err := corev1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	if err := AddDefaults(scheme); err != nil {
		t.Fatal(err)
	}
	for i, c := range cases {
		t.Run(fmt.Sprintf("%d_%s", i, c.Resource), func(t *testing.T) {
			object, err := scheme.New(corev1.SchemeGroupVersion.WithKind(c.Manifest["kind"].(string)))
			if err != nil {
				t.Fatal(err)
			}
			manifest, err := json.Marshal(c.Manifest)
			if err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal(manifest, object); err != nil {
				t.Fatal(err)
			}
			scheme.Default(object)
			switch o := object.(type) { // what else happens on creation
			case *corev1.Service:
				settleService(o, nil)
			case *corev1.Pod:
				DropDisabledPodFields(&o.Spec, nil, nil)
				MergeMatchLabelKeys(o)
			case *corev1.Node:
				DropDisabledNodeFields(o, nil)
			}
			if d := cmp.Diff(c.Want, withoutServerFields(untyped(t, object))); d != "" {
				t.Errorf("(-original +here)\n%s", d)
			}
			again := object.DeepCopyObject()
			scheme.Default(again)
			if d := cmp.Diff(object, again); d != "" {
				t.Errorf("defaults of defaults differ:\n%s", d)
			}
		})
	}
}

// withoutServerFields leaves out what a server sets on creation.
func withoutServerFields(o map[string]any) map[string]any {
	meta, _ := o["metadata"].(map[string]any)
	for _, k := range []string{"uid", "creationTimestamp", "managedFields", "generation", "resourceVersion", "finalizers"} {
		delete(meta, k)
	}
	switch o["kind"] {
	case "Node":
	default:
		delete(o, "status")
	}
	spec, _ := o["spec"].(map[string]any)
	switch o["kind"] {
	case "Service":
		for _, k := range []string{"ipFamilies", "ipFamilyPolicy", "healthCheckNodePort"} {
			delete(spec, k)
		}
	case "Namespace":
		delete(spec, "finalizers")
	}
	// Through JSON, so that numbers are of one kind and absent is absent.
	b, err := json.Marshal(o)
	if err != nil {
		panic(err)
	}
	var out map[string]any
	if err := json.Unmarshal(b, &out); err != nil {
		panic(err)
	}
	return prune(out).(map[string]any)
}

// prune drops what is null or was left empty by a pointerless field.
func prune(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k, e := range v {
			if e = prune(e); e == nil {
				delete(v, k)
			}
		}
	case []any:
		for i := range v {
			v[i] = prune(v[i])
		}
	}
	return v
}

func recordDefaults(t *testing.T, cases []*defaulted, file string) {
	server := newServer(t, *original)
	var out bytes.Buffer
	for _, c := range cases {
		where := "/api/v1/" + c.Resource
		if ns, ok := c.Manifest["metadata"].(map[string]any)["namespace"]; ok {
			where = fmt.Sprintf("/api/v1/namespaces/%s/%s", ns, c.Resource)
		}
		answer, status := server.do(http.MethodPost, where+"?dryRun=All", c.Manifest)
		if status != nil {
			t.Fatalf("%s: %s", compact(t, c.Manifest), status.Message)
		}
		fmt.Fprintf(&out, "- resource: %s\n  manifest: %s\n  want: %s\n", c.Resource, compact(t, c.Manifest), compact(t, withoutServerFields(answer)))
	}
	if err := os.WriteFile(file, out.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}
