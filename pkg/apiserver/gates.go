package apiserver

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	apiextensionsfeatures "k8s.io/apiextensions-apiserver/pkg/features"
	"k8s.io/apimachinery/pkg/util/sets"
	genericfeatures "k8s.io/apiserver/pkg/features"
	cliflag "k8s.io/component-base/cli/flag"
	"k8s.io/component-base/featuregate"
	metricsfeatures "k8s.io/component-base/metrics/features"

	"github.com/leme-k8s/leme/pkg/api/batch"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/coordination/lease"
	"github.com/leme-k8s/leme/pkg/component"
)

// heeded are the feature gates that are wholly the libraries' affair, or that the server asks the
// libraries' gates about, so that they can be switched.
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
	genericfeatures.UnknownVersionInteroperabilityProxy,
	genericfeatures.WatchList,
	genericfeatures.WatchListCompression,
	genericfeatures.WebhookRoundTripLoadBalancing,
	metricsfeatures.NativeHistograms,
)

// letIn are feature gates that serve more, or give a role to one more controller, when they are on, each with those that
// must then be on with it. All but StorageVersionAPI are the original's own.
var letIn = map[string][]string{
	"CompositePodGroup":                       {"GenericWorkload", "TopologyAwareWorkloadScheduling"},
	lease.CoordinatedElection:                 nil,
	"DRAResourcePoolStatus":                   nil,
	"DRAWorkloadResourceClaims":               {"GenericWorkload"},
	"EvictionRequestAPI":                      nil,
	"GenericWorkload":                         nil,
	"PodGroupPreemptionPolicy":                {"GenericWorkload"},
	string(genericfeatures.StorageVersionAPI): nil,
	"TopologyAwareWorkloadScheduling":         {"GenericWorkload"},
	batch.SchedulingFeature:                   {"GenericWorkload"},
}

// gates are the library's, where no others than those heeded can be switched, and those that let more in.
type gates struct {
	featuregate.MutableVersionedFeatureGate
	// on says of those of letIn whether they are.
	on map[string]bool
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
		f := featuregate.Feature(name)
		if _, ok := letIn[name]; ok {
			g.on[name] = on
			if _, library := known[f]; library {
				continue // it is its affair as well
			}
		} else if !heeded.Has(f) || known[f].PreRelease == "" {
			others[name] = on
		} else {
			continue
		}
		delete(given, name)
	}
	return errors.Join(component.CheckFeatureGates(others), g.checkDependencies(), g.SetFromMap(given))
}

// checkDependencies says which gates are on without those that they depend on.
func (g gates) checkDependencies() error {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(letIn)) {
		off := slices.DeleteFunc(slices.Clone(letIn[name]), func(other string) bool { return g.on[other] })
		if g.on[name] && len(off) > 0 {
			errs = append(errs, fmt.Errorf("%s is enabled, but depends on features that are disabled: %v", name, off))
		}
	}
	return errors.Join(errs...)
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
	for name := range letIn {
		all = append(all, name+"=true|false (default=false)")
	}
	slices.Sort(all)
	return all
}
