package apiserver_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apiextensionsclient "k8s.io/apiextensions-apiserver/pkg/client/clientset/clientset/typed/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"github.com/leme-k8s/leme/pkg/component"
	"github.com/leme-k8s/leme/pkg/testcluster"
)

// sea is a cluster where boats are defined.
type sea struct {
	*testcluster.Cluster
	crds  apiextensionsclient.CustomResourceDefinitionInterface
	boats dynamic.ResourceInterface
	raw   rest.Interface
}

func startSea(t *testing.T) *sea {
	t.Helper()
	c := testcluster.Start(t)
	s := &sea{
		Cluster: c,
		crds:    apiextensionsclient.NewForConfigOrDie(c.Config).CustomResourceDefinitions(),
		boats:   dynamic.NewForConfigOrDie(c.Config).Resource(schema.GroupVersionResource{Group: "sea.example.com", Version: "v1", Resource: "boats"}).Namespace("default"),
		raw:     discovery.NewDiscoveryClientForConfigOrDie(c.Config).RESTClient(),
	}
	data, err := os.ReadFile("testdata/crd.yaml")
	if err != nil {
		t.Fatal(err)
	}
	crd := &apiextensionsv1.CustomResourceDefinition{}
	if err := yaml.UnmarshalStrict(data, crd); err != nil {
		t.Fatal(err)
	}
	if _, err := s.crds.Create(t.Context(), crd, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "boats to be served", func(ctx context.Context) bool {
		_, err := s.boats.List(ctx, metav1.ListOptions{})
		return err == nil
	})
	return s
}

// get returns what the server says at a path.
func (s *sea) get(t *testing.T, path string, header ...string) string {
	t.Helper()
	r := s.raw.Get().AbsPath(path)
	if len(header) > 0 {
		r = r.SetHeader(header[0], header[1])
	}
	body, err := r.DoRaw(t.Context())
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return string(body)
}

func boat(name string, spec map[string]any) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "sea.example.com/v1", "kind": "Boat", "metadata": map[string]any{"name": name}, "spec": spec,
	}}
}

func TestCustomResources(t *testing.T) {
	s := startSea(t)
	t.Run("defaults and pruning", s.testDefaults)
	t.Run("validation", s.testValidation)
	t.Run("writes", s.testWrites)
	t.Run("subresources", s.testSubresources)
	t.Run("published", s.testPublished)
	t.Run("storage", s.testStorage)
	t.Run("conversion", s.testConversion)
	t.Run("end", s.testEnd)
}

func (s *sea) testDefaults(t *testing.T) {
	got, err := s.boats.Create(t.Context(), boat("defaulted", map[string]any{"sail": true}), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if spec := got.Object["spec"].(map[string]any); spec["oars"] != int64(2) || spec["sail"] != nil {
		t.Errorf("spec is %v, want two oars and no sail", spec)
	}
	if got.GetGeneration() != 1 {
		t.Errorf("generation is %d, want 1", got.GetGeneration())
	}
}

func (s *sea) testValidation(t *testing.T) {
	for name, tc := range map[string]struct {
		spec map[string]any
		want string
	}{
		"minimum":       {map[string]any{"oars": -2}, `spec.oars: Invalid value: -2: spec.oars in body should be greater than or equal to 0`},
		"enum":          {map[string]any{"colour": "blue"}, `spec.colour: Unsupported value: "blue": supported values: "red", "green"`},
		"type":          {map[string]any{"oars": "two"}, `spec.oars in body must be of type integer: "string"`},
		"rule":          {map[string]any{"oars": 3}, `Boat.sea.example.com "x" is invalid: spec.oars: Invalid value: must be even`},
		"unknown field": {map[string]any{"sail": true}, `strict decoding error: unknown field "spec.sail"`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := s.boats.Create(t.Context(), boat("x", tc.spec), metav1.CreateOptions{FieldValidation: metav1.FieldValidationStrict})
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got: %v\nwant: %s", err, tc.want)
			}
		})
	}
}

func (s *sea) testWrites(t *testing.T) {
	created, err := s.boats.Create(t.Context(), boat("written", map[string]any{"colour": "red"}), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	w, err := s.boats.Watch(t.Context(), metav1.ListOptions{ResourceVersion: created.GetResourceVersion(), FieldSelector: "metadata.name=written"})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	if _, err := s.boats.Patch(t.Context(), "written", types.MergePatchType, []byte(`{"spec":{"oars":4}}`), metav1.PatchOptions{}); err != nil {
		t.Error(err)
	}
	if _, err := s.boats.Patch(t.Context(), "written", types.JSONPatchType, []byte(`[{"op":"replace","path":"/spec/oars","value":6}]`), metav1.PatchOptions{}); err != nil {
		t.Error(err)
	}
	if _, err := s.boats.Patch(t.Context(), "written", types.StrategicMergePatchType, []byte(`{}`), metav1.PatchOptions{}); !apierrors.IsUnsupportedMediaType(err) {
		t.Errorf("strategic merge patch: %v, want that it is not supported", err)
	}
	applied, err := s.boats.Apply(t.Context(), "written", boat("written", map[string]any{"colour": "green"}), metav1.ApplyOptions{FieldManager: "test", Force: true})
	if err != nil {
		t.Fatal(err)
	}
	if spec := applied.Object["spec"].(map[string]any); spec["oars"] != int64(6) || spec["colour"] != "green" || applied.GetGeneration() != 4 {
		t.Errorf("applied: spec %v of generation %d, want six oars, green, 4", spec, applied.GetGeneration())
	}
	green, err := s.boats.List(t.Context(), metav1.ListOptions{FieldSelector: "spec.colour=green"})
	if err != nil {
		t.Fatal(err)
	}
	if len(green.Items) != 1 {
		t.Errorf("%d boats are green, want 1", len(green.Items))
	}
	if err := s.boats.Delete(t.Context(), "written", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	var events []watch.EventType
	for e := range w.ResultChan() {
		if events = append(events, e.Type); e.Type == watch.Deleted {
			break
		}
	}
	if want := []watch.EventType{watch.Modified, watch.Modified, watch.Modified, watch.Deleted}; !slices.Equal(events, want) {
		t.Errorf("watched %v, want %v", events, want)
	}
}

func (s *sea) testSubresources(t *testing.T) {
	ctx := t.Context()
	b, err := s.boats.Create(ctx, boat("sub", map[string]any{}), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	b.Object["status"] = map[string]any{"oars": int64(2), "selector": "a=b"}
	b.Object["spec"] = map[string]any{"oars": int64(8)}
	b, err = s.boats.UpdateStatus(ctx, b, metav1.UpdateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if oars, _, _ := unstructured.NestedInt64(b.Object, "spec", "oars"); oars != 2 || b.GetGeneration() != 1 {
		t.Errorf("an update of the status left %d oars and generation %d, want 2 and 1", oars, b.GetGeneration())
	}
	scale, err := s.boats.Get(ctx, "sub", metav1.GetOptions{}, "scale")
	if err != nil {
		t.Fatal(err)
	}
	if scale.GetKind() != "Scale" || scale.Object["status"].(map[string]any)["selector"] != "a=b" {
		t.Errorf("scale is %v", scale.Object)
	}
	if err := unstructured.SetNestedField(scale.Object, int64(10), "spec", "replicas"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.boats.Update(ctx, scale, metav1.UpdateOptions{}, "scale"); err != nil {
		t.Fatal(err)
	}
	if b, err = s.boats.Get(ctx, "sub", metav1.GetOptions{}); err != nil {
		t.Fatal(err)
	}
	if oars, _, _ := unstructured.NestedInt64(b.Object, "spec", "oars"); oars != 10 {
		t.Errorf("scaled to %d oars, want 10", oars)
	}
}

// testPublished looks at all that says that there are boats.
func (s *sea) testPublished(t *testing.T) {
	if got := s.get(t, "/apis/sea.example.com/v1"); !strings.Contains(got, `"shortNames":["bt"]`) || !strings.Contains(got, "boats/scale") {
		t.Errorf("resources of the version: %s", got)
	}
	eventually(t, "the group to be listed", func(context.Context) bool {
		return strings.Contains(s.get(t, "/apis"), `{"groupVersion":"sea.example.com/v1","version":"v1"}`)
	})
	const aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
	if got := s.get(t, "/apis", "Accept", aggregated); !strings.Contains(got, `"responseKind":{"group":"sea.example.com","version":"v1","kind":"Boat"}`) {
		t.Errorf("aggregated discovery knows no boats")
	}
	var service struct {
		Metadata metav1.ObjectMeta
		Spec     map[string]any
	}
	if err := json.Unmarshal([]byte(s.get(t, "/apis/apiregistration.k8s.io/v1/apiservices/v1.sea.example.com")), &service); err != nil {
		t.Fatal(err)
	}
	if service.Metadata.Labels["kube-aggregator.kubernetes.io/automanaged"] != "true" || service.Spec["groupPriorityMinimum"] != 1000. || service.Spec["versionPriority"] != 100. {
		t.Errorf("APIService: labels %v, spec %v", service.Metadata.Labels, service.Spec)
	}
	for _, path := range []string{"/openapi/v2", "/openapi/v3/apis/sea.example.com/v1"} {
		got := s.get(t, path)
		for _, want := range []string{"A boat is moved by oars.", "How many there are.", "/apis/sea.example.com/v1/namespaces/{namespace}/boats/{name}/scale"} {
			if !strings.Contains(got, want) {
				t.Errorf("%s does not say %q", path, want)
			}
		}
	}
	if got := s.get(t, "/openapi/v2"); !strings.Contains(got, "/apis/apps/v1/deployments") || !strings.Contains(got, "/apis/apiregistration.k8s.io/v1/apiservices") {
		t.Error("/openapi/v2 lost built-in kinds")
	}
	if got := s.get(t, "/openapi/v3"); !strings.Contains(got, "/openapi/v3/apis/sea.example.com/v1beta1?hash=") || !strings.Contains(got, "/openapi/v3/apis/apps/v1?hash=") {
		t.Errorf("/openapi/v3 is %s", got)
	}
	const table = "application/json;as=Table;v=v1;g=meta.k8s.io"
	if got := s.get(t, "/apis/sea.example.com/v1/namespaces/default/boats", "Accept", table); !strings.Contains(got, `"name":"Oars","type":"integer"`) || !strings.Contains(got, `"cells":["sub",10]`) {
		t.Errorf("table of boats: %.500s", got)
	}
	checkTable(t, s.Config, "apiextensions.k8s.io/v1", "customresourcedefinitions", "")
	checkTable(t, s.Config, "apiregistration.k8s.io/v1", "apiservices", "")
}

// testStorage wants what another server would find: keys and encodings.
func (s *sea) testStorage(t *testing.T) {
	for key, want := range map[string]string{
		"/apiextensions.k8s.io/customresourcedefinitions/boats.sea.example.com": `{"kind":"CustomResourceDefinition","apiVersion":"apiextensions.k8s.io/v1beta1"`,
		"/sea.example.com/boats/default/sub":                                    `{"apiVersion":"sea.example.com/v1","kind":"Boat"`,
		"/apiregistration.k8s.io/apiservices/v1.apps":                           `{"kind":"APIService","apiVersion":"apiregistration.k8s.io/v1"`,
	} {
		if got := string(stored(t, s.Cluster, key)); !strings.HasPrefix(got, want) {
			t.Errorf("%s holds %.100s", key, got)
		}
	}
}

// testConversion lets a webhook convert boats, which notes that it did.
func (s *sea) testConversion(t *testing.T) {
	cert, key, err := component.SelfSigned("localhost", net.IPv4(127, 0, 0, 1))
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	hook := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		review := apiextensionsv1.ConversionReview{}
		if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		review.Response = &apiextensionsv1.ConversionResponse{UID: review.Request.UID, Result: metav1.Status{Status: metav1.StatusSuccess}}
		for _, raw := range review.Request.Objects {
			o := &unstructured.Unstructured{}
			if err := o.UnmarshalJSON(raw.Raw); err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			o.SetAPIVersion(review.Request.DesiredAPIVersion)
			o.SetAnnotations(map[string]string{"converted": "yes"})
			review.Response.ConvertedObjects = append(review.Response.ConvertedObjects, runtime.RawExtension{Object: o})
		}
		_ = json.NewEncoder(w).Encode(review)
	}))
	hook.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	hook.StartTLS()
	t.Cleanup(hook.Close)

	patch, err := json.Marshal(map[string]any{"spec": map[string]any{"conversion": apiextensionsv1.CustomResourceConversion{
		Strategy: apiextensionsv1.WebhookConverter,
		Webhook: &apiextensionsv1.WebhookConversion{
			ClientConfig:             &apiextensionsv1.WebhookClientConfig{URL: &hook.URL, CABundle: cert},
			ConversionReviewVersions: []string{"v1"},
		},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.crds.Patch(t.Context(), "boats.sea.example.com", types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "boats to be converted", func(ctx context.Context) bool {
		body, err := s.raw.Get().AbsPath("/apis/sea.example.com/v1beta1/namespaces/default/boats/sub").DoRaw(ctx)
		return err == nil && strings.Contains(string(body), `"converted":"yes"`) && strings.Contains(string(body), "sea.example.com/v1beta1")
	})
}

// testEnd stops one version, then all.
func (s *sea) testEnd(t *testing.T) {
	const name = "boats.sea.example.com"
	_, err := s.crds.Patch(t.Context(), name, types.JSONPatchType, []byte(`[{"op":"replace","path":"/spec/versions/1/served","value":false}]`), metav1.PatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	gone := func(ctx context.Context, path string) bool {
		return apierrors.IsNotFound(s.raw.Get().AbsPath(path).Do(ctx).Error())
	}
	eventually(t, "v1beta1 to go", func(ctx context.Context) bool {
		return gone(ctx, "/apis/sea.example.com/v1beta1/boats") && gone(ctx, "/apis/apiregistration.k8s.io/v1/apiservices/v1beta1.sea.example.com") &&
			!strings.Contains(s.get(t, "/openapi/v3"), "sea.example.com/v1beta1") && !strings.Contains(s.get(t, "/openapi/v2"), "sea.example.com/v1beta1")
	})
	if err := s.crds.Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "boats to go", func(ctx context.Context) bool {
		return gone(ctx, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/"+name) && gone(ctx, "/apis/sea.example.com/v1") &&
			stored(t, s.Cluster, "/sea.example.com/boats/default/sub") == nil &&
			gone(ctx, "/apis/apiregistration.k8s.io/v1/apiservices/v1.sea.example.com") &&
			!strings.Contains(s.get(t, "/apis"), "sea.example.com") &&
			!strings.Contains(s.get(t, "/openapi/v3"), "sea.example.com") && !strings.Contains(s.get(t, "/openapi/v2"), "sea.example.com")
	})
}

// Definitions that nobody has used go as soon as they are deleted: their stores are ready
// when the server asks them what is left.
func TestUnusedDefinitionsEnd(t *testing.T) {
	crds := apiextensionsclient.NewForConfigOrDie(testcluster.Start(t).Config).CustomResourceDefinitions()
	for range 3 {
		for i := range 5 {
			plural := fmt.Sprint("fish", i)
			if _, err := crds.Create(t.Context(), &apiextensionsv1.CustomResourceDefinition{
				ObjectMeta: metav1.ObjectMeta{Name: plural + ".sea.example.com"},
				Spec: apiextensionsv1.CustomResourceDefinitionSpec{
					Group: "sea.example.com", Scope: apiextensionsv1.NamespaceScoped,
					Names: apiextensionsv1.CustomResourceDefinitionNames{Plural: plural, Kind: fmt.Sprint("Fish", i)},
					Versions: []apiextensionsv1.CustomResourceDefinitionVersion{{
						Name: "v1", Served: true, Storage: true,
						Schema: &apiextensionsv1.CustomResourceValidation{OpenAPIV3Schema: &apiextensionsv1.JSONSchemaProps{Type: "object"}},
					}},
				},
			}, metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		eventually(t, "five definitions", func(ctx context.Context) bool {
			list, err := crds.List(ctx, metav1.ListOptions{})
			return err == nil && !slices.ContainsFunc(list.Items, func(crd apiextensionsv1.CustomResourceDefinition) bool {
				return !slices.ContainsFunc(crd.Status.Conditions, func(c apiextensionsv1.CustomResourceDefinitionCondition) bool {
					return c.Type == apiextensionsv1.Established && c.Status == apiextensionsv1.ConditionTrue
				})
			})
		})
		if err := crds.DeleteCollection(t.Context(), metav1.DeleteOptions{}, metav1.ListOptions{}); err != nil {
			t.Fatal(err)
		}
		eventually(t, "their end", func(ctx context.Context) bool {
			list, err := crds.List(ctx, metav1.ListOptions{})
			return err == nil && len(list.Items) == 0
		})
	}
}
