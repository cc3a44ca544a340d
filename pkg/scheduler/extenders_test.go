package scheduler

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"

	v1 "k8s.io/api/core/v1"
	configv1 "k8s.io/kube-scheduler/config/v1"
	extenderv1 "k8s.io/kube-scheduler/extender/v1"

	"github.com/leme-k8s/leme/pkg/scheduler/extender"
)

// answers is an extender that dislikes some nodes and likes one best.
func answers(t *testing.T, dislikes map[string]string, likes string) string {
	mux := http.NewServeMux()
	mux.HandleFunc("/filter", func(w http.ResponseWriter, r *http.Request) {
		var args extenderv1.ExtenderArgs
		if err := json.NewDecoder(r.Body).Decode(&args); err != nil {
			t.Error(err)
		}
		names := slices.DeleteFunc(*args.NodeNames, func(n string) bool { return dislikes[n] != "" })
		if err := json.NewEncoder(w).Encode(extenderv1.ExtenderFilterResult{NodeNames: &names, FailedNodes: dislikes}); err != nil {
			t.Error(err)
		}
	})
	mux.HandleFunc("/prioritize", func(w http.ResponseWriter, r *http.Request) {
		if err := json.NewEncoder(w).Encode(extenderv1.HostPriorityList{{Host: likes, Score: 10}}); err != nil {
			t.Error(err)
		}
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return server.URL
}

func TestExtenders(t *testing.T) {
	small, big := makeNode("small", "2", "4Gi"), makeNode("big", "8", "16Gi")
	gpu := func(p *v1.Pod) {
		p.Spec.Containers[0].Resources.Limits = v1.ResourceList{"example.com/gpu": *p.Spec.Containers[0].Resources.Requests.Cpu()}
	}
	for _, tc := range []struct {
		name   string
		pod    *v1.Pod
		config configv1.Extender
		want   string
	}{
		{"strikes a node out", makePod("p", "1", ""), configv1.Extender{URLPrefix: answers(t, map[string]string{"big": "too big"}, ""), FilterVerb: "filter"}, "small"},
		{"strikes all out", makePod("p", "1", ""), configv1.Extender{URLPrefix: answers(t, map[string]string{"big": "no", "small": "no"}, ""), FilterVerb: "filter"},
			"0/2 nodes are available: 2 no."},
		{"likes one", makePod("p", "1", ""), configv1.Extender{URLPrefix: answers(t, nil, "small") + "/", PrioritizeVerb: "prioritize", Weight: 50}, "small"},
		{"is not asked about pods that are none of its business", makePod("p", "1", ""), configv1.Extender{
			URLPrefix: answers(t, map[string]string{"big": "no"}, ""), FilterVerb: "filter", ManagedResources: []configv1.ExtenderManagedResource{{Name: "example.com/gpu"}},
		}, "big"},
		{"is asked about those that are", makePod("p", "1", "", gpu), configv1.Extender{
			URLPrefix: answers(t, map[string]string{"big": "no"}, ""), FilterVerb: "filter", ManagedResources: []configv1.ExtenderManagedResource{{Name: "example.com/gpu"}},
		}, "small"},
		{"does not answer and may be ignored", makePod("p", "1", ""), configv1.Extender{URLPrefix: answers(t, nil, "") + "/nothing", FilterVerb: "filter", Ignorable: true}, "big"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.config.NodeCacheCapable = true
			e, err := extender.New(tc.config)
			if err != nil {
				t.Fatal(err)
			}
			w := newWorld(t, []*v1.Node{small, big}, nil)
			w.fw.Deps.Extenders = append(w.fw.Deps.Extenders, e)
			if got := w.where(t, tc.pod); got != tc.want {
				t.Errorf("%s, want %s", got, tc.want)
			}
		})
	}
}
