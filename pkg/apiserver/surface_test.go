package apiserver_test

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/leme-k8s/leme/pkg/testcluster"
)

// TestSurface compares what clients are told that there is, by discovery and by OpenAPI,
// with what the original tells them: each resource, each path and each definition, the
// latter two by a hash of what is said about them. With LEME_RECORD_KUBECONFIG set to the
// kubeconfig of an original server, what that says is recorded anew.
func TestSurface(t *testing.T) {
	const file = "testdata/surface.txt"
	if kubeconfig := os.Getenv("LEME_RECORD_KUBECONFIG"); kubeconfig != "" {
		config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(strings.Join(surface(t, config), "\n")+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(strings.TrimSpace(string(want)), "\n"), surface(t, testcluster.Start(t).Config)); diff != "" {
		t.Errorf("-original +ours:\n%s", diff)
	}
}

func surface(t *testing.T, config *rest.Config) []string {
	t.Helper()
	client := discovery.NewDiscoveryClientForConfigOrDie(config).RESTClient()
	get := func(path, accept string, into any) {
		body, err := client.Get().AbsPath(path).SetHeader("Accept", accept).DoRaw(context.Background())
		if err == nil {
			err = json.Unmarshal(body, into)
		}
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
	}
	var lines []string
	for _, path := range []string{"/api", "/apis"} {
		var groups apidiscoveryv2.APIGroupDiscoveryList
		get(path, "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList", &groups)
		for _, g := range groups.Items {
			for i, v := range g.Versions {
				for _, r := range v.Resources {
					lines = append(lines, fmt.Sprintf("resource %s/%s(%d) %s", g.Name, v.Version, i, describe(t, r)))
				}
			}
		}
	}
	var document struct{ Paths, Definitions map[string]any }
	get("/openapi/v2", "application/json", &document)
	for path, item := range document.Paths {
		var operations []string
		for operation := range item.(map[string]any) {
			if operation != "parameters" {
				operations = append(operations, operation)
			}
		}
		slices.Sort(operations)
		lines = append(lines, fmt.Sprintf("path %s %s %s", path, strings.Join(operations, ","), hash(t, item)))
	}
	for name, definition := range document.Definitions {
		lines = append(lines, fmt.Sprintf("definition %s %s", name, hash(t, definition)))
	}
	slices.Sort(lines)
	return lines
}

// describe says in a line what discovery says of a resource.
func describe(t *testing.T, r apidiscoveryv2.APIResourceDiscovery) string {
	t.Helper()
	slices.SortFunc(r.Subresources, func(a, b apidiscoveryv2.APISubresourceDiscovery) int {
		return strings.Compare(a.Subresource, b.Subresource)
	})
	data, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func hash(t *testing.T, v any) string {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", sha256.Sum256(data))[:12]
}
