package config

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/util/sets"

	"github.com/leme-k8s/leme/pkg/scheduler/framework"
	"github.com/leme-k8s/leme/pkg/scheduler/plugins"
)

func load(t *testing.T, text string) (string, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(path, []byte("apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n"+text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Load(path)
	if err != nil {
		return "", err
	}
	if errs := Validate(c, sets.KeySet(plugins.Registry()), framework.Gates{}); len(errs) > 0 {
		return "", errs.ToAggregate()
	}
	spec := Specs(c, framework.Gates{})[0]
	score := spec.Plugins
	if p, ok := spec.Points["score"]; ok {
		score = p.Plugins
	}
	var out []string
	for _, name := range score {
		if spec.Weights[name] > 0 {
			out = append(out, name)
		}
	}
	return strings.Join(out, " "), nil
}

func TestProfiles(t *testing.T) {
	for _, tc := range []struct{ name, text, want string }{
		{"defaults", "", "TaintToleration NodeAffinity NodeResourcesFit PodTopologySpread InterPodAffinity DynamicResources NodeResourcesBalancedAllocation ImageLocality"},
		{"one score off", "profiles: [{plugins: {score: {disabled: [{name: ImageLocality}]}}}]",
			"TaintToleration NodeAffinity NodeResourcesFit PodTopologySpread InterPodAffinity DynamicResources NodeResourcesBalancedAllocation"},
		{"one score first", "profiles: [{plugins: {score: {enabled: [{name: ImageLocality, weight: 9}]}}}]",
			"ImageLocality TaintToleration NodeAffinity NodeResourcesFit PodTopologySpread InterPodAffinity DynamicResources NodeResourcesBalancedAllocation"},
		{"all off but one", "profiles: [{plugins: {multiPoint: {disabled: [{name: '*'}], enabled: [{name: PrioritySort}, {name: DefaultBinder}, {name: NodeResourcesFit, weight: 2}]}}}]",
			"NodeResourcesFit"},
	} {
		got, err := load(t, tc.text)
		if err != nil || got != tc.want {
			t.Errorf("%s: scores by %q (%v), want %q", tc.name, got, err, tc.want)
		}
	}
}

func TestBadConfigurationNamesTheField(t *testing.T) {
	for text, want := range map[string]string{
		"parallellism: 3":               `unknown field "parallellism"`,
		"parallelism: 0":                "parallelism: Invalid value: 0: must be greater than 0",
		"percentageOfNodesToScore: 101": "percentageOfNodesToScore: Invalid value: 101",
		"profiles: [{schedulerName: a}, {schedulerName: a}]":                                                                                                                                                 `profiles[1].schedulerName: Duplicate value: "a"`,
		"profiles: [{schedulerName: a}, {}]":                                                                                                                                                                 "profiles[1].schedulerName: Required value",
		"profiles: [{plugins: {filter: {enabled: [{name: Nope}]}}}]":                                                                                                                                         `profiles[0].plugins.filter.enabled[0].name: Unsupported value: "Nope"`,
		"profiles: [{plugins: {multiPoint: {enabled: [{name: Nope}]}}}]":                                                                                                                                     `profiles[0].plugins.multiPoint.enabled[0].name: Unsupported value: "Nope"`,
		"profiles: [{plugins: {multiPoint: {enabled: [{name: NodeName}, {name: NodeName}]}}}]":                                                                                                               `profiles[0].plugins.multiPoint.enabled[1].name: Duplicate value: "NodeName"`,
		"profiles: [{pluginConfig: [{name: Nope, args: {}}]}]":                                                                                                                                               "profiles[0].pluginConfig[0]",
		"profiles: [{plugins: {score: {enabled: [{name: ImageLocality, weight: 2147483647}]}}}]":                                                                                                             "profiles[0].plugins.score.enabled[0].weight: Invalid value: 2147483647",
		"profiles: [{plugins: {score: {enabled: [{name: ImageLocality, weight: 2147483648}]}}}]":                                                                                                             "score.enabled",
		"profiles: [{plugins: {score: {enabled: [{name: ImageLocality, weight: -1}]}}}]":                                                                                                                     "profiles[0].plugins.score.enabled[0].weight: Invalid value: -1",
		"profiles: [{pluginConfig: [{name: NodeResourcesFit, args: {scoring: 1}}]}]":                                                                                                                         `unknown field "scoring"`,
		"profiles: [{pluginConfig: [{name: NodeResourcesFit, args: {scoringStrategy: {type: Best}}}]}]":                                                                                                      `profiles[0].pluginConfig[0].args.scoringStrategy.type: Unsupported value: "Best"`,
		"profiles: [{pluginConfig: [{name: NodeResourcesFit, args: {scoringStrategy: {type: MostAllocated, resources: [{name: cpu, weight: 200}]}}}]}]":                                                      "resources[0].weight: Invalid value: 200",
		"profiles: [{pluginConfig: [{name: DefaultPreemption, args: {minCandidateNodesPercentage: 101}}]}]":                                                                                                  "profiles[0].pluginConfig[0].args.minCandidateNodesPercentage: Invalid value: 101",
		"profiles: [{pluginConfig: [{name: DefaultPreemption, args: {minCandidateNodesPercentage: 0, minCandidateNodesAbsolute: 0}}]}]":                                                                      "args.minCandidateNodesPercentage: Invalid value: 0",
		"profiles: [{pluginConfig: [{name: InterPodAffinity, args: {hardPodAffinityWeight: 101}}]}]":                                                                                                         "args.hardPodAffinityWeight: Invalid value: 101",
		"profiles: [{pluginConfig: [{name: PodTopologySpread, args: {defaultConstraints: [{maxSkew: 1, topologyKey: zone, whenUnsatisfiable: DoNotSchedule}]}}]}]":                                           "args.defaultingType: Invalid value",
		"profiles: [{pluginConfig: [{name: PodTopologySpread, args: {defaultingType: List, defaultConstraints: [{maxSkew: 0, topologyKey: zone, whenUnsatisfiable: Never}]}}]}]":                             "args.defaultConstraints[0].maxSkew: Invalid value: 0",
		"profiles: [{pluginConfig: [{name: NodeResourcesBalancedAllocation, args: {resources: [{name: cpu, weight: 2}]}}]}]":                                                                                 "args.resources[0].weight: Invalid value: 2",
		"profiles: [{pluginConfig: [{name: NodeAffinity, args: {addedAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: a, operator: Near}]}]}}}}]}]": "args.addedAffinity.requiredDuringSchedulingIgnoredDuringExecution",
		"profiles: [{pluginConfig: [{name: DynamicResources, args: {filterTimeout: -1s}}]}]":                                                                                                                 "args.filterTimeout: Invalid value",
		"profiles: [{pluginConfig: [{name: DynamicResources, args: {bindingTimeout: 999ms}}]}]":                                                                                                              "args.bindingTimeout: Invalid value",
		"extenders: [{filterVerb: filter}]":                                                       "extenders[0].urlPrefix: Required value",
		"extenders: [{urlPrefix: 'http://x', prioritizeVerb: p}]":                                 "extenders[0].weight: Invalid value: 0",
		"extenders: [{urlPrefix: 'http://x', bindVerb: b}, {urlPrefix: 'http://y', bindVerb: b}]": "extenders[1].bindVerb: Invalid value",
		"extenders: [{urlPrefix: 'http://x', managedResources: [{name: cpu}]}]":                   "extenders[0].managedResources[0].name: Invalid value",
		"profiles: [{pluginConfig: [{name: VolumeBinding, args: {bindTimeoutSeconds: -1}}]}]":     "args.bindTimeoutSeconds: Invalid value: -1",
	} {
		if _, err := load(t, text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
}

// The plugins that are on by default, in order, and their weights are the original's.
func TestDefaults(t *testing.T) {
	want := "SchedulingGates PrioritySort NodeName NodeUnschedulable TaintToleration:3 NodeAffinity:2 NodePorts NodeResourcesFit:1 VolumeRestrictions NodeVolumeLimits " +
		"VolumeBinding VolumeZone PodTopologySpread:2 InterPodAffinity:2 DynamicResources:2 DefaultPreemption NodeResourcesBalancedAllocation:1 ImageLocality:1 DefaultBinder NodeDeclaredFeatures"
	var got []string
	for _, d := range plugins.Defaults {
		if d.Weight > 0 {
			d.Name += fmt.Sprint(":", d.Weight)
		}
		got = append(got, d.Name)
	}
	if strings.Join(got, " ") != want {
		t.Errorf("%s, want %s", strings.Join(got, " "), want)
	}
}

func TestEveryDefaultPluginExists(t *testing.T) {
	known := plugins.Registry()
	for _, d := range plugins.Defaults {
		if known[d.Name] == nil {
			t.Errorf("%s is on by default and not there", d.Name)
		}
	}
	if !slices.ContainsFunc(plugins.Defaults, func(d plugins.Default) bool { return d.Name == "DefaultBinder" }) {
		t.Error("nothing binds pods by default")
	}
}
