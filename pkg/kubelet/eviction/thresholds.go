// Package eviction watches over what the node itself lives on: memory, disk and
// process numbers. When one of them runs short it reports that in the Node's
// conditions, frees what it can without harm, and at last ends pods.
//
// The decision is a pure function: [Decide] makes of thresholds, observations and
// what was the case before what is the case now and what must be done about; [Rank]
// orders the pods by how much they deserve to go. [Manager] measures and acts.
package eviction

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	kubeletconfig "k8s.io/kubelet/config/v1beta1"
)

// A Signal is something of which the node must not run out.
type Signal string

// The signals.
const (
	MemoryAvailable       Signal = "memory.available"
	NodeFsAvailable       Signal = "nodefs.available"
	NodeFsInodesFree      Signal = "nodefs.inodesFree"
	ImageFsAvailable      Signal = "imagefs.available"
	ImageFsInodesFree     Signal = "imagefs.inodesFree"
	ContainerFsAvailable  Signal = "containerfs.available"
	ContainerFsInodesFree Signal = "containerfs.inodesFree"
	PIDAvailable          Signal = "pid.available"
)

// about says which condition a signal is reported in, and which resource pods take of it.
var about = map[Signal]struct {
	condition corev1.NodeConditionType
	resource  corev1.ResourceName
}{
	MemoryAvailable:       {corev1.NodeMemoryPressure, corev1.ResourceMemory},
	NodeFsAvailable:       {corev1.NodeDiskPressure, corev1.ResourceEphemeralStorage},
	NodeFsInodesFree:      {corev1.NodeDiskPressure, "inodes"},
	ImageFsAvailable:      {corev1.NodeDiskPressure, corev1.ResourceEphemeralStorage},
	ImageFsInodesFree:     {corev1.NodeDiskPressure, "inodes"},
	ContainerFsAvailable:  {corev1.NodeDiskPressure, corev1.ResourceEphemeralStorage},
	ContainerFsInodesFree: {corev1.NodeDiskPressure, "inodes"},
	PIDAvailable:          {corev1.NodePIDPressure, "pids"},
}

// An Amount is a quantity, or a part of what there is.
type Amount struct {
	Quantity resource.Quantity
	// Fraction is used if it is not 0.
	Fraction float64
}

// Of returns the amount where this is all there is.
func (a Amount) Of(capacity uint64) uint64 {
	if a.Fraction != 0 {
		return uint64(float64(capacity) * a.Fraction)
	}
	return uint64(max(a.Quantity.Value(), 0))
}

// A Threshold says how much there must be.
type Threshold struct {
	Signal Signal
	Value  Amount
	// Soft thresholds must not be met for longer than Grace; hard ones never.
	Soft  bool
	Grace time.Duration
	// MinReclaim is how much more than Value there must be before all is well again.
	MinReclaim Amount
}

// hardDefaults are the thresholds of a node whose configuration names none.
var hardDefaults = map[string]string{
	string(MemoryAvailable): "100Mi", string(NodeFsAvailable): "10%", string(NodeFsInodesFree): "5%",
	string(ImageFsAvailable): "15%", string(ImageFsInodesFree): "5%",
}

// Parse reads the thresholds of a configuration, most pressing first.
func Parse(k *kubeletconfig.KubeletConfiguration) ([]Threshold, error) {
	hard := k.EvictionHard
	if hard == nil {
		hard = hardDefaults
	} else if k.MergeDefaultEvictionSettings != nil && *k.MergeDefaultEvictionSettings {
		merged := maps.Clone(hardDefaults)
		maps.Copy(merged, hard)
		hard = merged
	}
	reclaim, err := parseAmounts("evictionMinimumReclaim", k.EvictionMinimumReclaim)
	if err != nil {
		return nil, err
	}
	hardAmounts, err := parseAmounts("evictionHard", hard)
	if err != nil {
		return nil, err
	}
	softAmounts, err := parseAmounts("evictionSoft", k.EvictionSoft)
	if err != nil {
		return nil, err
	}
	var out []Threshold
	for s, a := range hardAmounts {
		out = append(out, Threshold{Signal: s, Value: a, MinReclaim: reclaim[s]})
	}
	for s, a := range softAmounts {
		g, ok := k.EvictionSoftGracePeriod[string(s)]
		if !ok {
			return nil, fmt.Errorf("evictionSoftGracePeriod: needed for the soft threshold of %s", s)
		}
		grace, err := time.ParseDuration(g)
		if err != nil || grace < 0 {
			return nil, fmt.Errorf("evictionSoftGracePeriod[%s]: %q is not a duration", s, g)
		}
		out = append(out, Threshold{Signal: s, Value: a, MinReclaim: reclaim[s], Soft: true, Grace: grace})
	}
	for s := range k.EvictionSoftGracePeriod {
		if _, ok := softAmounts[Signal(s)]; !ok {
			return nil, fmt.Errorf("evictionSoftGracePeriod[%s]: there is no soft threshold of that name", s)
		}
	}
	slices.SortFunc(out, func(a, b Threshold) int {
		return cmp.Or(cmp.Compare(urgency(a.Signal), urgency(b.Signal)), cmp.Compare(a.Signal, b.Signal), cmp.Compare(a.Grace, b.Grace))
	})
	return out, nil
}

// urgency puts memory first: nothing else can be done without it.
func urgency(s Signal) int {
	if s == MemoryAvailable {
		return 0
	}
	return 1
}

func parseAmounts(field string, m map[string]string) (map[Signal]Amount, error) {
	out := map[Signal]Amount{}
	for k, v := range m {
		s := Signal(k)
		if _, ok := about[s]; !ok {
			return nil, fmt.Errorf("%s: unknown signal %q", field, k)
		}
		if p, ok := strings.CutSuffix(v, "%"); ok {
			f, err := strconv.ParseFloat(p, 64)
			if err != nil || f < 0 || f > 100 {
				return nil, fmt.Errorf("%s[%s]: %q is not a percentage", field, k, v)
			}
			// None and all both mean that nobody cares.
			if f == 0 || f == 100 {
				continue
			}
			out[s] = Amount{Fraction: f / 100}
			continue
		}
		q, err := resource.ParseQuantity(v)
		if err != nil || q.Sign() < 0 {
			return nil, fmt.Errorf("%s[%s]: %q is not a quantity", field, k, v)
		}
		out[s] = Amount{Quantity: q}
	}
	return out, nil
}

// Reserve is what hard thresholds keep free, and so what a node cannot offer.
func Reserve(thresholds []Threshold, capacity corev1.ResourceList) corev1.ResourceList {
	out := corev1.ResourceList{}
	for _, t := range thresholds {
		var n corev1.ResourceName
		switch {
		case t.Soft:
			continue
		case t.Signal == MemoryAvailable:
			n = corev1.ResourceMemory
		case t.Signal == NodeFsAvailable:
			n = corev1.ResourceEphemeralStorage
		default:
			continue
		}
		all := capacity[n]
		out[n] = *resource.NewQuantity(int64(t.Value.Of(uint64(all.Value()))), resource.BinarySI)
	}
	return out
}
