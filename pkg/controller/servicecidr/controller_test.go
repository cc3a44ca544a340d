package servicecidr

import (
	"strings"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestNeeded(t *testing.T) {
	for name, tc := range map[string]struct {
		// The first is asked about; a range with a - is being deleted.
		ranges, addresses string
		want              bool
	}{
		"unused":                       {ranges: "-10.0.0.0/24", addresses: "10.1.0.1"},
		"used":                         {ranges: "-10.0.0.0/24", addresses: "10.0.0.7", want: true},
		"in another as well":           {ranges: "-10.0.0.0/24 10.0.0.0/16", addresses: "10.0.0.7"},
		"in another that is going":     {ranges: "-10.0.0.0/24 -10.0.0.0/16", addresses: "10.0.0.7", want: true},
		"one address in another":       {ranges: "-10.0.0.0/24 10.0.0.0/28", addresses: "10.0.0.7 10.0.0.200", want: true},
		"the last of the other":        {ranges: "-10.0.0.0/24 10.0.0.0/28", addresses: "10.0.0.15", want: true},
		"the first of its own":         {ranges: "-10.0.0.0/24", addresses: "10.0.0.0"},
		"IPv6":                         {ranges: "-fd00::/112", addresses: "fd00::ffff", want: true},
		"another family":               {ranges: "-10.0.0.0/24", addresses: "fd00::1"},
		"of two families, one is used": {ranges: "-10.0.0.0/24,fd00::/112", addresses: "fd00::1", want: true},
	} {
		var all []networkingv1.ServiceCIDR
		for _, s := range strings.Fields(tc.ranges) {
			c := networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: s}}
			if strings.HasPrefix(s, "-") {
				c.DeletionTimestamp = &metav1.Time{}
			}
			c.Spec.CIDRs = strings.Split(strings.TrimPrefix(s, "-"), ",")
			all = append(all, c)
		}
		var addresses []networkingv1.IPAddress
		for _, s := range strings.Fields(tc.addresses) {
			addresses = append(addresses, networkingv1.IPAddress{ObjectMeta: metav1.ObjectMeta{Name: s}})
		}
		if got := needed(&all[0], all, addresses); got != tc.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}
