package dynamicresources

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/util/wait"
)

// Binding conditions (KEP-5007): a pod is bound only when the devices that it was given
// are attached, say, to its node. Drivers tell in the claim's status.

// lookAtDevices is how often it is looked whether devices are ready.
const lookAtDevices = 200 * time.Millisecond

var errBindingTimeout = errors.New("device binding timeout")

// conditional reports whether some device of a claim is to become ready before the pod is bound.
func conditional(c *resourceapi.ResourceClaim) bool {
	return c.Status.Allocation != nil && slices.ContainsFunc(c.Status.Allocation.Devices.Results, func(r resourceapi.DeviceRequestAllocationResult) bool {
		return len(r.BindingConditions) > 0
	})
}

// ready reports whether all devices of an allocated claim are ready. It is an error if
// one of them cannot become so: its driver says so, or it took too long.
func ready(c *resourceapi.ResourceClaim, now time.Time, timeout time.Duration) (bool, error) {
	all := true
	for i := range c.Status.Allocation.Devices.Results {
		r := &c.Status.Allocation.Devices.Results[i]
		if len(r.BindingConditions) == 0 {
			continue
		}
		is := func(condition string) bool {
			return slices.ContainsFunc(c.Status.Devices, func(d resourceapi.AllocatedDeviceStatus) bool {
				same := d.Driver == r.Driver && d.Pool == r.Pool && d.Device == r.Device && (d.ShareID == nil) == (r.ShareID == nil) && (d.ShareID == nil || *d.ShareID == string(*r.ShareID))
				return same && meta.IsStatusConditionTrue(d.Conditions, condition)
			})
		}
		if i := slices.IndexFunc(r.BindingFailureConditions, is); i >= 0 {
			return false, fmt.Errorf("claim %s binding failed: device %s/%s/%s has condition %s", c.Name, r.Driver, r.Pool, r.Device, r.BindingFailureConditions[i])
		}
		for _, condition := range r.BindingConditions {
			all = all && is(condition)
		}
	}
	if at := c.Status.Allocation.AllocationTimestamp; !all && at != nil && now.Sub(at.Time) > timeout {
		return false, fmt.Errorf("%w: claim=%s", errBindingTimeout, c.Name)
	}
	return all, nil
}

// waitForDevices waits until the devices of all claims are ready.
func (p *Plugin) waitForDevices(ctx context.Context, claims []*resourceapi.ResourceClaim) error {
	if len(claims) == 0 {
		return nil
	}
	began := time.Now()
	err := wait.PollUntilContextTimeout(ctx, lookAtDevices, p.bindingTimeout, true, func(context.Context) (bool, error) { return p.allReady(claims) })
	switch {
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	case wait.Interrupted(err):
		err = errBindingTimeout
	}
	p.metrics.waited(p.handle.ProfileName(), claims, time.Since(began), err)
	return err
}

func (p *Plugin) allReady(claims []*resourceapi.ResourceClaim) (bool, error) {
	for _, c := range claims {
		current, err := p.claims.Get(c.Namespace, c.Name)
		if err != nil {
			return false, err
		}
		if current.UID != c.UID || current.Status.Allocation == nil {
			return false, fmt.Errorf("claim %s got deallocated elsewhere in the meantime", c.Name)
		}
		if ok, err := ready(current, time.Now(), p.bindingTimeout); err != nil || !ok {
			return false, err
		}
	}
	return true, nil
}
