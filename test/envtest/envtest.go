// Package envtest pins what controller-runtime's own integration tests are built from.
// `make envtest` runs them, with the control plane that KUBEBUILDER_ASSETS names: Leme's
// kube-apiserver on the pinned etcd.
package envtest

// The tests import these; without them here, go mod tidy would forget their checksums.
import (
	_ "github.com/evanphx/json-patch/v5"
	_ "github.com/go-logr/logr/funcr"
	_ "github.com/google/go-cmp/cmp"
	_ "github.com/google/gofuzz"
	_ "github.com/onsi/ginkgo/v2"
	_ "github.com/onsi/gomega"
	_ "github.com/onsi/gomega/ghttp"
	_ "github.com/prometheus/client_model/go"
	_ "go.uber.org/goleak"
	_ "go.uber.org/zap"
	_ "golang.org/x/mod/semver"
	_ "k8s.io/apiserver/pkg/authentication/user"
	_ "sigs.k8s.io/controller-runtime/pkg/builder"
	_ "sigs.k8s.io/controller-runtime/pkg/envtest"
	_ "sigs.k8s.io/controller-runtime/pkg/manager"
	_ "sigs.k8s.io/controller-runtime/pkg/metrics/filters"
	_ "sigs.k8s.io/controller-runtime/pkg/webhook"
)
