package apiserver

import (
	"errors"
	"strings"

	apiextensionsfeatures "k8s.io/apiextensions-apiserver/pkg/features"
	"k8s.io/apimachinery/pkg/util/sets"
	genericfeatures "k8s.io/apiserver/pkg/features"
	cliflag "k8s.io/component-base/cli/flag"
	"k8s.io/component-base/featuregate"

	"github.com/leme-k8s/leme/pkg/component"
)

// heeded are the feature gates that are wholly the libraries' affair, so that they
// can be switched.
var heeded = sets.New(
	apiextensionsfeatures.CRDObservedGenerationTracking,
	genericfeatures.APIResponseCompression,
	genericfeatures.APIServingWithRoutine,
	genericfeatures.AggregatedDiscoveryRemoveBetaType,
	genericfeatures.AllowParsingUserUIDFromCertAuth,
	genericfeatures.AllowUnsafeMalformedObjectDeletion,
	genericfeatures.ConcurrentWatchObjectDecode,
	genericfeatures.ConsistentListFromCacheSkipTimeoutFallback,
	genericfeatures.ConstrainedImpersonation,
	genericfeatures.DetectCacheInconsistency,
	genericfeatures.EtcdRangeStream,
	genericfeatures.KMSv1,
	genericfeatures.ListFromCacheSnapshot,
	genericfeatures.RemoteRequestHeaderUID,
	genericfeatures.SeparateCacheWatchRPC,
	genericfeatures.ShardedListAndWatch,
	genericfeatures.SizeBasedListCostEstimate,
	genericfeatures.StorageVersionHash,
	genericfeatures.StructuredAuthenticationConfigurationEgressSelector,
	genericfeatures.StructuredAuthenticationConfigurationJWKSMetrics,
	genericfeatures.UnauthenticatedHTTP2DOSMitigation,
	genericfeatures.WatchList,
	genericfeatures.WatchListCompression,
	genericfeatures.WebhookRoundTripLoadBalancing,
)

// gates are the library's, where no others than those heeded can be switched.
type gates struct {
	featuregate.MutableVersionedFeatureGate
}

// Set implements pflag.Value.
func (g gates) Set(value string) error {
	var given map[string]bool
	if err := cliflag.NewMapStringBool(&given).Set(value); err != nil {
		return err
	}
	known := g.GetAll()
	others := map[string]bool{}
	for name, on := range given {
		if f := featuregate.Feature(name); !heeded.Has(f) || known[f].PreRelease == "" {
			others[name] = on
			delete(given, name)
		}
	}
	return errors.Join(component.CheckFeatureGates(others), g.SetFromMap(given))
}

// KnownFeatures implements featuregate.FeatureGate: what --help lists.
func (g gates) KnownFeatures() []string {
	var all []string
	for _, line := range g.MutableVersionedFeatureGate.KnownFeatures() {
		name, _, _ := strings.Cut(line, "=")
		if heeded.Has(featuregate.Feature(name)) {
			all = append(all, line)
		}
	}
	return all
}
