package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/dynamic"

	"github.com/leme-k8s/leme/config"
)

// corednsImage is the image of the cluster's DNS.
const corednsImage = "registry.k8s.io/coredns/coredns:v1.15.0"

// addons are the objects that every cluster is given.
func addons(s *State, upstreamDNS bool) ([]*unstructured.Unstructured, error) {
	forward := "# the machine has no name server that a pod could reach"
	if upstreamDNS {
		forward = "forward . /etc/resolv.conf {\n           max_concurrent 1000\n        }"
	}
	values := strings.NewReplacer(
		"$(DNS_IP)", s.dnsIP(), "$(DNS_DOMAIN)", s.Config.Networking.DNSDomain, "$(DNS_FORWARD)", forward)
	var out []*unstructured.Unstructured
	for _, file := range []string{"addons/rbac.yaml", "addons/coredns.yaml"} {
		data, err := fs.ReadFile(config.Addons, file)
		if err != nil {
			return nil, err
		}
		d := yaml.NewYAMLOrJSONDecoder(bytes.NewBufferString(values.Replace(string(data))), 4096)
		for {
			var o unstructured.Unstructured
			err := d.Decode(&o)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return nil, fmt.Errorf("%s: %w", file, err)
			}
			out = append(out, &o)
		}
	}
	return out, nil
}

// applyAddons applies them until the API server has taken all: just after its
// start, namespaces and roles may still be missing.
func applyAddons(ctx context.Context, client dynamic.Interface, objects []*unstructured.Unstructured) error {
	for _, o := range objects {
		resource, _ := meta.UnsafeGuessKindToResource(o.GroupVersionKind())
		for {
			_, err := client.Resource(resource).Namespace(o.GetNamespace()).Apply(ctx, o.GetName(), o, metav1.ApplyOptions{FieldManager: "leme", Force: true})
			if err == nil {
				break
			}
			if apierrors.IsInvalid(err) || apierrors.IsBadRequest(err) {
				return fmt.Errorf("addon %s %s: %w", o.GetKind(), o.GetName(), err)
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("addon %s %s: %w", o.GetKind(), o.GetName(), errors.Join(err, ctx.Err()))
			case <-time.After(50 * time.Millisecond):
			}
		}
	}
	return nil
}
