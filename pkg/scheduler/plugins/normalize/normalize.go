// Package normalize brings the raw scores of a plugin to the range 0…100.
package normalize

import fwk "k8s.io/kube-scheduler/framework"

// ToMax scales scores so that the highest becomes 100. With reverse the lowest raw
// score becomes the best. When every score is 0 they stay so, or all become 100.
func ToMax(scores fwk.NodeScoreList, reverse bool) *fwk.Status {
	var highest int64
	for _, s := range scores {
		highest = max(highest, s.Score)
	}
	for i := range scores {
		var v int64
		if highest > 0 {
			v = scores[i].Score * fwk.MaxNodeScore / highest
		}
		if reverse {
			v = fwk.MaxNodeScore - v
		}
		scores[i].Score = v
	}
	return nil
}
