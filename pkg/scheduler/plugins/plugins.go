// Package plugins lists the plugins that kube-scheduler has.
package plugins

import (
	"slices"

	"github.com/leme-k8s/leme/pkg/scheduler/framework"
	"github.com/leme-k8s/leme/pkg/scheduler/plugins/defaultbinder"
	"github.com/leme-k8s/leme/pkg/scheduler/plugins/defaultpreemption"
	"github.com/leme-k8s/leme/pkg/scheduler/plugins/dynamicresources"
	"github.com/leme-k8s/leme/pkg/scheduler/plugins/gangscheduling"
	"github.com/leme-k8s/leme/pkg/scheduler/plugins/imagelocality"
	"github.com/leme-k8s/leme/pkg/scheduler/plugins/interpodaffinity"
	"github.com/leme-k8s/leme/pkg/scheduler/plugins/nodeaffinity"
	"github.com/leme-k8s/leme/pkg/scheduler/plugins/nodedeclaredfeatures"
	"github.com/leme-k8s/leme/pkg/scheduler/plugins/nodename"
	"github.com/leme-k8s/leme/pkg/scheduler/plugins/nodeports"
	"github.com/leme-k8s/leme/pkg/scheduler/plugins/noderesources"
	"github.com/leme-k8s/leme/pkg/scheduler/plugins/nodeunschedulable"
	"github.com/leme-k8s/leme/pkg/scheduler/plugins/nodevolumelimits"
	"github.com/leme-k8s/leme/pkg/scheduler/plugins/podgrouppodscount"
	"github.com/leme-k8s/leme/pkg/scheduler/plugins/podtopologyspread"
	"github.com/leme-k8s/leme/pkg/scheduler/plugins/prioritysort"
	"github.com/leme-k8s/leme/pkg/scheduler/plugins/schedulinggates"
	"github.com/leme-k8s/leme/pkg/scheduler/plugins/tainttoleration"
	"github.com/leme-k8s/leme/pkg/scheduler/plugins/topologyplacement"
	"github.com/leme-k8s/leme/pkg/scheduler/plugins/volumebinding"
	"github.com/leme-k8s/leme/pkg/scheduler/plugins/volumerestrictions"
	"github.com/leme-k8s/leme/pkg/scheduler/plugins/volumezone"
)

// A Default is a plugin that every profile runs unless it is disabled, and the weight
// of its score.
type Default struct {
	Name   string
	Weight int64
}

// Defaults are in the order in which plugins run at each extension point.
var Defaults = []Default{
	{schedulinggates.Name, 0},
	{prioritysort.Name, 0},
	{nodename.Name, 0},
	{nodeunschedulable.Name, 0},
	{tainttoleration.Name, 3},
	{nodeaffinity.Name, 2},
	{nodeports.Name, 0},
	{noderesources.FitName, 1},
	{volumerestrictions.Name, 0},
	{nodevolumelimits.Name, 0},
	{volumebinding.Name, 0},
	{volumezone.Name, 0},
	{podtopologyspread.Name, 2},
	{interpodaffinity.Name, 2},
	// Before preemption: a claim that nobody uses is freed before pods are evicted.
	{dynamicresources.Name, 2},
	{defaultpreemption.Name, 0},
	{noderesources.BalancedName, 1},
	{imagelocality.Name, 1},
	{defaultbinder.Name, 0},
	{nodedeclaredfeatures.Name, 0},
}

// DefaultsWith returns the Defaults, and after them those that feature gates let in.
func DefaultsWith(g framework.Gates) []Default {
	all := slices.Clone(Defaults)
	if g.GenericWorkload {
		all = append(all, Default{gangscheduling.Name, 0})
	}
	if g.TopologyAwareWorkloadScheduling {
		all = append(all, Default{topologyplacement.Name, 0}, Default{podgrouppodscount.Name, 1})
	}
	return all
}

// Registry returns the factories of all plugins.
func Registry() framework.Registry {
	return framework.Registry{
		schedulinggates.Name:       schedulinggates.New,
		prioritysort.Name:          prioritysort.New,
		nodeunschedulable.Name:     nodeunschedulable.New,
		nodename.Name:              nodename.New,
		tainttoleration.Name:       tainttoleration.New,
		nodeaffinity.Name:          nodeaffinity.New,
		nodeports.Name:             nodeports.New,
		noderesources.FitName:      noderesources.NewFit,
		noderesources.BalancedName: noderesources.NewBalancedAllocation,
		imagelocality.Name:         imagelocality.New,
		defaultbinder.Name:         defaultbinder.New,
		defaultpreemption.Name:     defaultpreemption.New,
		podtopologyspread.Name:     podtopologyspread.New,
		interpodaffinity.Name:      interpodaffinity.New,
		volumerestrictions.Name:    volumerestrictions.New,
		nodevolumelimits.Name:      nodevolumelimits.New,
		volumebinding.Name:         volumebinding.New,
		volumezone.Name:            volumezone.New,
		dynamicresources.Name:      dynamicresources.New,
		nodedeclaredfeatures.Name:  nodedeclaredfeatures.New,
		gangscheduling.Name:        gangscheduling.New,
		topologyplacement.Name:     topologyplacement.New,
		podgrouppodscount.Name:     podgrouppodscount.New,
	}
}
