package registry

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	genericregistry "k8s.io/apiserver/pkg/registry/generic"
	registryrest "k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/storage/storagebackend"
	"k8s.io/apiserver/pkg/storage/storagebackend/factory"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/yaml"

	"github.com/leme-k8s/leme/pkg/api/scheme"
	"github.com/leme-k8s/leme/pkg/apiserver/authentication"
	"github.com/leme-k8s/leme/pkg/apiserver/authorization"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/generic"
)

// recordVariable names the kubeconfig of an original server. When it is set, the
// tables are fetched from there anew.
const recordVariable = "LEME_RECORD_KUBECONFIG"

// TestTables compares the tables that kubectl prints with those of the original
// for the objects in testdata/objects.yaml.
func TestTables(t *testing.T) {
	if kubeconfig := os.Getenv(recordVariable); kubeconfig != "" {
		recordTables(t, kubeconfig)
	}
	s, err := scheme.New()
	if err != nil {
		t.Fatal(err)
	}
	options := generic.Options{Scheme: s, RESTOptions: nowhere{}}
	config := Config{Authentication: &authentication.Authentication{}, Authorization: &authorization.Authorization{}}
	for _, g := range Groups(config) {
		if g.Group == "" {
			continue // core has reaches of its own, to kubelets
		}
		stores, err := g.Storage(options)
		if err != nil {
			t.Fatal(err)
		}
		for name, store := range stores {
			data, err := os.ReadFile(tableFile(g.WithResource(name)))
			if err != nil {
				continue
			}
			t.Run(g.Group+"/"+name, func(t *testing.T) {
				checkTable(t, s, store.(registryrest.StandardStorage), data)
			})
		}
	}
}

func checkTable(t *testing.T, s *runtime.Scheme, store registryrest.StandardStorage, data []byte) {
	var want metav1.Table
	if err := json.Unmarshal(data, &want); err != nil {
		t.Fatal(err)
	}
	list := store.NewList()
	var items []runtime.Object
	for _, row := range want.Rows {
		obj := store.New()
		if err := json.Unmarshal(row.Object.Raw, obj); err != nil {
			t.Fatal(err)
		}
		s.Default(obj)
		items = append(items, obj)
	}
	if err := meta.SetList(list, items); err != nil {
		t.Fatal(err)
	}
	got, err := store.ConvertToTable(context.Background(), list, &metav1.TableOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want.ColumnDefinitions, got.ColumnDefinitions); diff != "" {
		t.Errorf("columns, -original +ours:\n%s", diff)
	}
	for i := range want.Rows {
		if diff := cmp.Diff(cells(t, &want, i), cells(t, got, i)); diff != "" {
			t.Errorf("row %d, -original +ours:\n%s", i, diff)
		}
	}
}

var age = regexp.MustCompile(`^([0-9]+[smhdy])+$`)

// cells are a row's cells as a client reads them, without what the clock decides.
func cells(t *testing.T, table *metav1.Table, row int) []any {
	t.Helper()
	data, err := json.Marshal(table.Rows[row].Cells)
	if err != nil {
		t.Fatal(err)
	}
	var cells []any
	if err := json.Unmarshal(data, &cells); err != nil {
		t.Fatal(err)
	}
	for i, cell := range cells {
		text, ok := cell.(string)
		column := "Age"
		if i < len(table.ColumnDefinitions) {
			column = table.ColumnDefinitions[i].Name
		}
		timed := slices.Contains([]string{"Age", "Last Schedule", "TimeAdded"}, column) && age.MatchString(text)
		if ok && (timed || column == "Duration" && strings.HasSuffix(text, "d")) {
			cells[i] = "some time"
		}
	}
	return cells
}

func tableFile(r schema.GroupVersionResource) string {
	return filepath.Join("testdata", "tables", r.Resource+"."+r.Group+".json")
}

// nowhere stores nothing: what is tested never gets that far.
type nowhere struct{}

// GetRESTOptions implements generic.RESTOptionsGetter.
func (nowhere) GetRESTOptions(resource schema.GroupResource, _ runtime.Object) (genericregistry.RESTOptions, error) {
	return genericregistry.RESTOptions{
		StorageConfig:  &storagebackend.ConfigForResource{GroupResource: resource},
		ResourcePrefix: resource.Resource,
		Decorator: func(*storagebackend.ConfigForResource, string, func(runtime.Object) (string, error), func() runtime.Object, func() runtime.Object,
			storage.AttrFunc, storage.IndexerFuncs, *cache.Indexers,
		) (storage.Interface, factory.DestroyFunc, error) {
			return nil, func() {}, nil
		},
	}, nil
}

// recordTables creates the objects on an original server and saves the tables that
// it prints them in.
func recordTables(t *testing.T, kubeconfig string) {
	ctx := context.Background()
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	config.QPS = -1
	groups, err := restmapper.GetAPIGroupResources(discovery.NewDiscoveryClientForConfigOrDie(config))
	if err != nil {
		t.Fatal(err)
	}
	mapper := restmapper.NewDiscoveryRESTMapper(groups)
	client := dynamic.NewForConfigOrDie(config)
	names := map[schema.GroupVersionResource][]string{}
	data, err := os.ReadFile("testdata/objects.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, document := range strings.Split(string(data), "\n---\n") {
		obj := &unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte(document), &obj.Object); err != nil {
			t.Fatal(err)
		}
		mapping, err := mapper.RESTMapping(obj.GroupVersionKind().GroupKind(), obj.GroupVersionKind().Version)
		if err != nil {
			t.Fatal(err)
		}
		names[mapping.Resource] = append(names[mapping.Resource], obj.GetName())
		one := client.Resource(mapping.Resource).Namespace(obj.GetNamespace())
		created, err := one.Create(ctx, obj, metav1.CreateOptions{})
		if apierrors.IsAlreadyExists(err) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if obj.Object["status"] == nil {
			continue
		}
		subresources := []string{"status"}
		if obj.GetKind() == "CertificateSigningRequest" {
			subresources = []string{"approval"}
		}
		created.Object["status"] = obj.Object["status"]
		if _, err := one.Update(ctx, created, metav1.UpdateOptions{}, subresources...); err != nil {
			t.Fatal(err)
		}
	}
	for resource, names := range names {
		saveTable(t, config, resource, names)
	}
}

// saveTable saves the rows of the named objects.
func saveTable(t *testing.T, config *rest.Config, resource schema.GroupVersionResource, names []string) {
	t.Helper()
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet,
		config.Host+"/apis/"+resource.GroupVersion().String()+"/"+resource.Resource+"?includeObject=Object", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io")
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var table metav1.Table
	if err := json.NewDecoder(resp.Body).Decode(&table); err != nil {
		t.Fatal(err)
	}
	saved := metav1.Table{ColumnDefinitions: table.ColumnDefinitions}
	for _, row := range table.Rows {
		obj := &unstructured.Unstructured{}
		if err := json.Unmarshal(row.Object.Raw, &obj.Object); err != nil {
			t.Fatal(err)
		}
		if !slices.Contains(names, obj.GetName()) {
			continue
		}
		obj.SetManagedFields(nil)
		saved.Rows = append(saved.Rows, metav1.TableRow{Cells: row.Cells, Object: runtime.RawExtension{Object: obj}})
	}
	data, err := json.MarshalIndent(saved, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(tableFile(resource)), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(tableFile(resource), append(data, '\n'), 0o644); err != nil {
		t.Fatal(err)
	}
}
