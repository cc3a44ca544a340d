package rules

import (
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"
)

// NonSpecialIP refuses addresses that no endpoint can have: they mean the machine
// that uses them, or no machine.
func NonSpecialIP(address string, p *field.Path) field.ErrorList {
	ip := netutils.ParseIPSloppy(address)
	if ip == nil {
		return field.ErrorList{field.Invalid(p, address, "must be a valid IP address")}
	}
	var errs field.ErrorList
	refuse := func(yes bool, detail string) {
		if yes {
			errs = append(errs, field.Invalid(p, address, detail))
		}
	}
	refuse(ip.IsUnspecified(), "may not be unspecified ("+address+")")
	refuse(ip.IsLoopback(), "may not be in the loopback range (127.0.0.0/8, ::1/128)")
	refuse(ip.IsLinkLocalUnicast(), "may not be in the link-local range (169.254.0.0/16, fe80::/10)")
	refuse(ip.IsLinkLocalMulticast(), "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)")
	return errs
}
