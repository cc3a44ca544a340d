package controller

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/component-base/metrics"
	"k8s.io/controller-manager/pkg/clientbuilder"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"github.com/leme-k8s/leme/pkg/controller/internal/index"
	"github.com/leme-k8s/leme/pkg/controller/internal/ownwrites"
	"github.com/leme-k8s/leme/pkg/controller/replicaset"
)

// An entry says how one controller comes into being.
type entry struct {
	Name, Alias, Identity string
	// Source is who events say they are from, where that is not Identity.
	Source string
	// OffByDefault leaves the controller out unless --controllers names it.
	OffByDefault bool
	// Gate is the feature gate without which the controller is left out.
	Gate string
	// Workers is how many objects it works on at a time; nil means one.
	Workers func(Workers) int
	// Needs are kinds that not every API server serves. Without one of them the controller is left out.
	Needs []schema.GroupVersionKind
	// Indexes of the shared cache that it uses.
	Indexes []index.Index
	// With says what else it needs where a feature gate is on.
	With map[string]needs
	// New assembles it. An error made by notConfigured leaves it out.
	New func(d *dependencies, a *access) (registrar, error)
}

// needs are what a controller needs of the API server and the cache.
type needs struct {
	Kinds   []schema.GroupVersionKind
	Indexes []index.Index
}

// needs returns all that a controller needs with the given feature gates.
func (e entry) needs(gates map[string]bool) needs {
	all := needs{Kinds: slices.Clone(e.Needs), Indexes: slices.Clone(e.Indexes)}
	for gate, more := range e.With {
		if gates[gate] {
			all.Kinds, all.Indexes = append(all.Kinds, more.Kinds...), append(all.Indexes, more.Indexes...)
		}
	}
	return all
}

// A registrar adds its watches and itself to a manager.
type registrar interface {
	Register(mgr manager.Manager, o controller.Options) error
}

// dependencies are what the controllers of one manager are made from.
type dependencies struct {
	*Manager
	mgr        manager.Manager
	identities clientbuilder.ControllerClientBuilder
	events     *events
	metrics    metrics.KubeRegistry // of this manager alone
	pods       *replicaset.Metrics  // that two controllers share
	indexed    map[string]bool
	progress   *ownwrites.Progress
}

// errLeftOut is why a controller does not run here.
var errLeftOut = errors.New("left out")

func notConfigured(flag string) error { return fmt.Errorf("%w: %s is not set", errLeftOut, flag) }

// add brings one controller into the manager.
func (d *dependencies) add(ctx context.Context, e entry) error {
	if e.Gate != "" && !d.gates[e.Gate] {
		return fmt.Errorf("%w: feature gate %s is off", errLeftOut, e.Gate)
	}
	needs := e.needs(d.gates)
	for _, kind := range needs.Kinds {
		if _, err := d.mgr.GetRESTMapper().RESTMapping(kind.GroupKind(), kind.Version); meta.IsNoMatchError(err) {
			return fmt.Errorf("%w: %s is not served", errLeftOut, kind)
		} else if err != nil {
			return err
		}
	}
	a, err := d.access(e.Identity, cmp.Or(e.Source, e.Identity))
	if err != nil {
		return err
	}
	r, err := e.New(d, a)
	if err != nil {
		return err
	}
	for _, i := range needs.Indexes {
		key := fmt.Sprintf("%T %s", i.Object, i.Field)
		if d.indexed[key] {
			continue
		}
		if err := d.mgr.GetFieldIndexer().IndexField(ctx, i.Object, i.Field, i.Values); err != nil {
			return fmt.Errorf("indexing %s: %w", key, err)
		}
		d.indexed[key] = true
	}
	o := controller.Options{MaxConcurrentReconciles: 1, NewQueue: newQueue}
	if e.Workers != nil {
		o.MaxConcurrentReconciles = e.Workers(d.options.Workers)
	}
	return r.Register(d.mgr, o)
}

// selectControllers resolves the value of --controllers.
func selectControllers(list []string) (sets.Set[string], error) {
	on, off, all := sets.New[string](), sets.New[string](), false
	var errs []error
	for _, item := range list {
		if item == "*" {
			all = true
			continue
		}
		name, unwanted := strings.CutPrefix(item, "-")
		i := slices.IndexFunc(entries, func(e entry) bool { return name == e.Name || name == e.Alias })
		if i < 0 {
			errs = append(errs, fmt.Errorf("%q is not a controller; there are %s", name, allNames()))
			continue
		}
		if unwanted {
			off.Insert(entries[i].Name)
		} else {
			on.Insert(entries[i].Name)
		}
	}
	if all {
		for _, e := range entries {
			if !e.OffByDefault {
				on.Insert(e.Name)
			}
		}
	}
	return on.Difference(off), errors.Join(errs...)
}

func names(want func(entry) bool) string {
	var found []string
	for _, e := range entries {
		if want(e) {
			found = append(found, e.Name)
		}
	}
	slices.Sort(found)
	return strings.Join(found, ", ")
}

func allNames() string { return names(func(entry) bool { return true }) }

func offByDefaultNames() string { return names(func(e entry) bool { return e.OffByDefault }) }
