// Package devices knows the devices of the cluster (dynamic resource allocation,
// KEP-4381): which there are and which are tainted, which classes they are asked for by,
// and which of them claims have, or are about to be given. All profiles share it, and
// plugins ask for it as their handle's SharedDRAManager.
package devices

import (
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	resourcelisters "k8s.io/client-go/listers/resource/v1"
	"k8s.io/dynamic-resource-allocation/cel"
	"k8s.io/dynamic-resource-allocation/structured"
	fwk "k8s.io/kube-scheduler/framework"
)

// Features are those of devices that are on by default in this version.
var Features = structured.Features{
	AdminAccess:             true,
	ConsumableCapacity:      true,
	DeviceBindingAndStatus:  true,
	DeviceTaints:            true,
	FractionalCapacityRange: true,
	PartitionableDevices:    true,
	PrioritizedList:         true,
}

// Manager is what is known of devices. It reads informers, and learns of claims before these do.
type Manager struct {
	claims  *Claims
	slices  sliceLister
	classes classLister
	cel     *cel.Cache
}

// maxExpressions is how many compiled CEL expressions are kept.
const maxExpressions = 100

var _ fwk.SharedDRAManager = &Manager{}

// NewManager returns a Manager that reads the informers of a factory.
func NewManager(f informers.SharedInformerFactory) *Manager {
	r := f.Resource().V1()
	return &Manager{
		claims:  newClaims(r.ResourceClaims().Lister()),
		slices:  sliceLister{r.ResourceSlices().Lister(), r.DeviceTaintRules().Lister()},
		classes: classLister{r.DeviceClasses().Lister()},
		cel:     cel.NewCache(maxExpressions, cel.Features{EnableConsumableCapacity: Features.ConsumableCapacity}),
	}
}

// Claims returns the claims, with all that this scheduler can say of them.
func (m *Manager) Claims() *Claims { return m.claims }

// CEL returns the compiled selectors of devices.
func (m *Manager) CEL() *cel.Cache { return m.cel }

// ResourceClaims returns the claims.
func (m *Manager) ResourceClaims() fwk.ResourceClaimTracker { return m.claims }

// ResourceSlices returns the devices, tainted by the rules that select them.
func (m *Manager) ResourceSlices() fwk.ResourceSliceLister { return m.slices }

// DeviceClasses returns the classes.
func (m *Manager) DeviceClasses() fwk.DeviceClassLister { return m.classes }

// DeviceClassResolver finds classes by the extended resources that they stand for.
func (m *Manager) DeviceClassResolver() fwk.DeviceClassResolver { return m.classes }

// classLister reads an informer as the interfaces want it.
type classLister struct {
	resourcelisters.DeviceClassLister
}

// List returns all classes.
func (l classLister) List() ([]*resourceapi.DeviceClass, error) {
	return l.DeviceClassLister.List(labels.Everything())
}
