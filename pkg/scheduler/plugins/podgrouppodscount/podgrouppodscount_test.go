package podgrouppodscount

import (
	"slices"
	"testing"

	fwk "k8s.io/kube-scheduler/framework"
)

func TestNormalize(t *testing.T) {
	for _, tc := range []struct{ counts, want []int64 }{
		{[]int64{10, 50, 110}, []int64{9, 45, 100}},
		{[]int64{50, 50}, []int64{100, 100}},
		{[]int64{50}, []int64{100}},
		{[]int64{0, 0}, nil},
	} {
		scores := make([]fwk.PlacementScore, len(tc.counts))
		for i, n := range tc.counts {
			scores[i].Score = n
		}
		s := (&Plugin{}).NormalizePlacementScore(t.Context(), nil, nil, scores)
		if !s.IsSuccess() {
			if tc.want != nil {
				t.Errorf("%v: %v", tc.counts, s)
			}
			continue
		}
		var got []int64
		for _, s := range scores {
			got = append(got, s.Score)
		}
		if !slices.Equal(got, tc.want) {
			t.Errorf("%v become %v, want %v", tc.counts, got, tc.want)
		}
	}
}
