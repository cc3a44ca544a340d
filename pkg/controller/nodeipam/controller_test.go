package nodeipam

import (
	"net"
	"testing"
)

func cidr(t *testing.T, s string) *net.IPNet {
	_, n, err := net.ParseCIDR(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestFree(t *testing.T) {
	for _, c := range []struct {
		cluster string
		mask    int
		taken   []string
		want    string
	}{
		{"10.244.0.0/16", 24, nil, "10.244.0.0/24"},
		{"10.244.0.0/16", 24, []string{"10.244.0.0/24", "10.244.2.0/24"}, "10.244.1.0/24"},
		{"10.244.0.0/16", 24, []string{"10.244.0.0/20"}, "10.244.16.0/24"},    // Services inside
		{"10.244.0.0/16", 24, []string{"10.0.0.0/8"}, ""},                     // and all around
		{"10.244.0.0/16", 24, []string{"10.96.0.0/12"}, "10.244.0.0/24"},      // or elsewhere
		{"10.244.0.0/30", 31, []string{"10.244.0.0/32"}, "10.244.0.2/31"},     // smaller than a part
		{"10.244.0.0/23", 24, []string{"10.244.0.0/24", "10.244.1.0/24"}, ""}, // full
		{"fd00:10:244::/56", 64, []string{"fd00:10:244::/64", "10.0.0.0/8"}, "fd00:10:244:1::/64"},
	} {
		r := &ranges{cluster: cidr(t, c.cluster), mask: c.mask}
		var taken []*net.IPNet
		for _, s := range c.taken {
			taken = append(taken, cidr(t, s))
		}
		got, err := r.free(taken)
		if c.want == "" {
			if err == nil {
				t.Errorf("%+v: got %s", c, got)
			}
		} else if err != nil || got.String() != c.want {
			t.Errorf("%+v: got %v, %v", c, got, err)
		}
	}
}

func TestRangesRest(t *testing.T) {
	r := &ranges{cluster: cidr(t, "10.244.0.0/22"), mask: 24}
	for _, want := range []string{"10.244.0.0/24", "10.244.1.0/24", "10.244.2.0/24", "10.244.3.0/24", "10.244.0.0/24"} {
		if got, err := r.free(nil); err != nil || got.String() != want {
			t.Errorf("got %v, %v, want %s", got, err, want)
		}
	}
}
