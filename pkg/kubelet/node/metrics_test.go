package node

import (
	"math"
	"testing"
	"time"

	"github.com/leme-k8s/leme/pkg/kubelet/metric/metrictest"
)

func TestStartup(t *testing.T) {
	boot := time.Unix(1000, 0)
	at := func(s float64) time.Time { return boot.Add(time.Duration(s * float64(time.Second))) }
	for name, c := range map[string]struct {
		do                                                               func(*startup)
		preKubelet, preRegistration, registration, postRegistration, all float64
	}{
		"nothing yet":           {do: func(*startup) {}},
		"only tried":            {do: func(s *startup) { s.attempted(at(1)) }},
		"was a node before":     {do: func(s *startup) { s.attempted(at(1)); s.wrote(true, at(2)) }},
		"registered, not ready": {do: func(s *startup) { s.attempted(at(1)); s.created(false, at(3)); s.wrote(false, at(4)) }, preKubelet: .5, preRegistration: .5, registration: 2},
		"ready at once":         {do: func(s *startup) { s.attempted(at(1)); s.created(true, at(3)) }, preKubelet: .5, preRegistration: .5, registration: 2, all: 3},
		"ready, and then anew": {do: func(s *startup) {
			s.attempted(at(1))
			s.created(false, at(3))
			s.wrote(true, at(4))
			s.wrote(false, at(5))
			s.created(true, at(9))
		}, preKubelet: .5, preRegistration: .5, registration: 2, postRegistration: 1, all: 4},
		"tried for a while": {do: func(s *startup) { s.attempted(at(1)); s.attempted(at(5)); s.created(true, at(6)) }, preKubelet: .5, preRegistration: .5, registration: 5, all: 6},
	} {
		s := startup{boot: boot, kubelet: at(.5)}
		c.do(&s)
		got := map[string]float64{}
		s.emit(func(name string, value float64, _ ...string) { got[name] = value })
		for key, want := range map[string]float64{"pre_kubelet_": c.preKubelet, "pre_registration_": c.preRegistration, "registration_": c.registration, "post_registration_": c.postRegistration, "": c.all} {
			if v, ok := got["kubelet_node_startup_"+key+"duration_seconds"]; !ok || math.Abs(v-want) > 1e-9 {
				t.Errorf("%s: %s%v, want %v", name, key, v, want)
			}
		}
	}
	metrictest.New(New(Config{Name: "n"}, Dependencies{})).Expect(t, map[string]float64{`kubelet_node_name{node="n"}`: 1, "kubelet_node_startup_duration_seconds": 0})
}
