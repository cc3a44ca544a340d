package apiserver_test

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/yaml"

	"github.com/leme-k8s/leme/pkg/testcluster"
)

// example is one object of a resource.
type example struct {
	Key      string
	Manifest unstructured.Unstructured
}

func loadExamples(t *testing.T) []example {
	t.Helper()
	data, err := os.ReadFile("testdata/resources.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var raw []struct {
		Key      string
		Manifest map[string]any
	}
	if err := yaml.Unmarshal(data, &raw); err != nil {
		t.Fatal(err)
	}
	var all []example
	for _, r := range raw {
		all = append(all, example{r.Key, unstructured.Unstructured{Object: r.Manifest}})
	}
	return all
}

// TestResources does to an object of every resource what clients do.
func TestResources(t *testing.T) {
	c := testcluster.Start(t)
	dc := discovery.NewDiscoveryClientForConfigOrDie(c.Config)
	mapper := restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(dc))
	client := dynamic.NewForConfigOrDie(c.Config)
	examples := loadExamples(t)

	resource := func(t *testing.T, e example) dynamic.ResourceInterface {
		gvk := e.Manifest.GroupVersionKind()
		m, err := mapper.RESTMapping(gvk.GroupKind(), gvk.Version)
		if err != nil {
			t.Fatal(err)
		}
		if ns := e.Manifest.GetNamespace(); ns != "" {
			return client.Resource(m.Resource).Namespace(ns)
		}
		return client.Resource(m.Resource)
	}
	for _, e := range examples {
		t.Run(e.Key, func(t *testing.T) { exercise(t, c, resource(t, e), e) })
	}
	t.Run("tables", func(t *testing.T) {
		for _, e := range examples {
			gvk := e.Manifest.GroupVersionKind()
			m, _ := mapper.RESTMapping(gvk.GroupKind(), gvk.Version)
			checkTable(t, c.Config, m.Resource.GroupVersion().String(), m.Resource.Resource, e.Manifest.GetNamespace())
		}
	})
	t.Run("delete", func(t *testing.T) {
		for i := len(examples) - 1; i >= 0; i-- {
			e := examples[i]
			if err := resource(t, e).Delete(context.Background(), e.Manifest.GetName(), metav1.DeleteOptions{}); err != nil {
				t.Errorf("%s: %v", e.Key, err)
			}
		}
	})
}

func exercise(t *testing.T, c *testcluster.Cluster, r dynamic.ResourceInterface, e example) {
	ctx := context.Background()
	name := e.Manifest.GetName()

	// A dry run leaves nothing.
	if _, err := r.Create(ctx, e.Manifest.DeepCopy(), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}); err != nil {
		t.Fatalf("dry run: %v", err)
	}
	if got := stored(t, c, e.Key); got != nil {
		t.Fatalf("a dry run stored %s", e.Key)
	}
	// Field validation refuses what it does not know.
	unknown := e.Manifest.DeepCopy()
	unknown.Object["noSuchField"] = "x"
	if _, err := r.Create(ctx, unknown, metav1.CreateOptions{FieldValidation: metav1.FieldValidationStrict}); err == nil {
		t.Error("strict field validation took an unknown field")
	}

	created, err := r.Create(ctx, e.Manifest.DeepCopy(), metav1.CreateOptions{})
	if err != nil {
		t.Fatalf("create: %v", err)
	}
	if got, want := created.GroupVersionKind(), e.Manifest.GroupVersionKind(); got != want {
		t.Errorf("created a %v, want %v", got, want)
	}
	if got := stored(t, c, e.Key); !bytes.HasPrefix(got, []byte("k8s\x00")) {
		t.Errorf("%s holds %.20q, want protobuf", e.Key, got)
	}

	watch, err := r.Watch(ctx, metav1.ListOptions{ResourceVersion: created.GetResourceVersion(), FieldSelector: "metadata.name=" + name})
	if err != nil {
		t.Fatalf("watch: %v", err)
	}
	defer watch.Stop()
	patches := []struct {
		kind  types.PatchType
		label string
		patch string
	}{
		{types.JSONPatchType, "", `[{"op":"add","path":"/metadata/annotations","value":{"json":"1"}}]`},
		{types.MergePatchType, "merge", `{"metadata":{"annotations":{"merge":"1"}}}`},
		{types.StrategicMergePatchType, "strategic", `{"metadata":{"annotations":{"strategic":"1"}}}`},
	}
	for _, p := range patches {
		patched, err := r.Patch(ctx, name, p.kind, []byte(p.patch), metav1.PatchOptions{})
		if err != nil {
			t.Errorf("%s: %v", p.kind, err)
			continue
		}
		if p.label != "" && patched.GetAnnotations()[p.label] != "1" {
			t.Errorf("%s: annotations are %v", p.kind, patched.GetAnnotations())
		}
	}
	apply := &unstructured.Unstructured{}
	apply.SetGroupVersionKind(e.Manifest.GroupVersionKind())
	apply.SetName(name)
	apply.SetNamespace(e.Manifest.GetNamespace())
	apply.SetAnnotations(map[string]string{"apply": "1"})
	applied, err := r.Apply(ctx, name, apply, metav1.ApplyOptions{FieldManager: "test"})
	if err != nil {
		t.Errorf("apply: %v", err)
	} else if len(applied.GetManagedFields()) == 0 || applied.GetAnnotations()["apply"] != "1" {
		t.Errorf("applied object has managed fields %v and annotations %v", applied.GetManagedFields(), applied.GetAnnotations())
	}
	for range len(patches) {
		if event := <-watch.ResultChan(); event.Type != "MODIFIED" {
			t.Errorf("watched a %s event: %v", event.Type, event.Object)
			break
		}
	}

	// The server writes the status of some of its own resources at the same time.
	err = retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		got, err := r.Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		_, err = r.Update(ctx, got, metav1.UpdateOptions{})
		return err
	})
	if err != nil {
		t.Errorf("update: %v", err)
	}
	list, err := r.List(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + name})
	if err != nil {
		t.Fatalf("list: %v", err)
	}
	if len(list.Items) != 1 {
		t.Errorf("list has %d items, want 1", len(list.Items))
	}
}

// stored is the value of a key of etcd.
func stored(t *testing.T, c *testcluster.Cluster, key string) []byte {
	t.Helper()
	response, err := c.Etcd.Get(context.Background(), "/registry"+key)
	if err != nil {
		t.Fatal(err)
	}
	if len(response.Kvs) == 0 {
		return nil
	}
	return response.Kvs[0].Value
}

// checkTable wants a table with a row of as many cells as it has columns, and lists
// whose items do not repeat their kind.
func checkTable(t *testing.T, config *rest.Config, groupVersion, resource, namespace string) {
	t.Helper()
	path := "/apis/" + groupVersion
	if groupVersion == "v1" {
		path = "/api/v1"
	}
	if namespace != "" {
		path += "/namespaces/" + namespace
	}
	path += "/" + resource
	client := discovery.NewDiscoveryClientForConfigOrDie(config).RESTClient()
	get := func(accept string, into any) {
		body, err := client.Get().AbsPath(path).SetHeader("Accept", accept).DoRaw(context.Background())
		if err == nil {
			err = json.Unmarshal(body, into)
		}
		if err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
	var table metav1.Table
	get("application/json;as=Table;v=v1;g=meta.k8s.io", &table)
	if len(table.Rows) == 0 {
		t.Errorf("%s: no rows", path)
	}
	// The original prints an age for which IPAddress has no column.
	for _, row := range table.Rows {
		if len(row.Cells) != len(table.ColumnDefinitions) && resource != "ipaddresses" {
			t.Errorf("%s: %d cells in %d columns", path, len(row.Cells), len(table.ColumnDefinitions))
		}
	}
	var list struct{ Items []map[string]any }
	get("application/json", &list)
	for _, item := range list.Items {
		if item["kind"] != nil || item["apiVersion"] != nil {
			t.Errorf("%s: an item says its kind: %v, %v", path, item["kind"], item["apiVersion"])
		}
	}
}
