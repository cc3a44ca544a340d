package job

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

const indexEnv = "JOB_COMPLETION_INDEX"

// indexes is a set of completion indexes, kept as the ranges of their text form.
type indexes struct {
	ranges [][2]int // first and last, in order, neither touching nor overlapping
}

// parseIndexes reads "1,3-5,7", as far as it is below limit. What is not in order, as
// nobody but a stranger would have written it, is left out.
func parseIndexes(s string, limit int) indexes {
	var x indexes
	for part := range strings.SplitSeq(s, ",") {
		from, to, isRange := strings.Cut(part, "-")
		first, err := strconv.Atoi(from)
		if err != nil {
			continue
		}
		last := first
		if isRange {
			if last, err = strconv.Atoi(to); err != nil {
				continue
			}
		}
		if last = min(last, limit-1); first > last {
			continue
		}
		n := len(x.ranges)
		switch {
		case n == 0 || first > x.ranges[n-1][1]+1:
			x.ranges = append(x.ranges, [2]int{first, last})
		case first == x.ranges[n-1][1]+1: // "1,2" is one range
			x.ranges[n-1][1] = last
		}
	}
	return x
}

func (x indexes) has(i int) bool {
	_, found := slices.BinarySearchFunc(x.ranges, i, func(r [2]int, i int) int {
		switch {
		case r[1] < i:
			return -1
		case r[0] > i:
			return 1
		}
		return 0
	})
	return found
}

func (x *indexes) add(i int) {
	at, found := slices.BinarySearchFunc(x.ranges, i, func(r [2]int, i int) int {
		switch {
		case r[1] < i:
			return -1
		case r[0] > i:
			return 1
		}
		return 0
	})
	if found {
		return
	}
	x.ranges = slices.Insert(slices.Clone(x.ranges), at, [2]int{i, i})
	if at+1 < len(x.ranges) && x.ranges[at+1][0] == i+1 {
		x.ranges[at][1] = x.ranges[at+1][1]
		x.ranges = slices.Delete(x.ranges, at+1, at+2)
	}
	if at > 0 && x.ranges[at-1][1] == i-1 {
		x.ranges[at-1][1] = x.ranges[at][1]
		x.ranges = slices.Delete(x.ranges, at, at+1)
	}
}

func (x indexes) len() int {
	n := 0
	for _, r := range x.ranges {
		n += r[1] - r[0] + 1
	}
	return n
}

// within returns how many of x are in y.
func (x indexes) within(y indexes) int {
	n := 0
	for _, a := range x.ranges {
		for _, b := range y.ranges {
			n += max(0, min(a[1], b[1])-max(a[0], b[0])+1)
		}
	}
	return n
}

// String writes two neighbours as "1,2" and more as "1-3".
func (x indexes) String() string {
	var parts []string
	for _, r := range x.ranges {
		switch r[1] - r[0] {
		case 0:
			parts = append(parts, strconv.Itoa(r[0]))
		case 1:
			parts = append(parts, strconv.Itoa(r[0]), strconv.Itoa(r[1]))
		default:
			parts = append(parts, fmt.Sprintf("%d-%d", r[0], r[1]))
		}
	}
	return strings.Join(parts, ",")
}

// indexOf returns the completion index of a pod.
func indexOf(p *corev1.Pod) (int, bool) {
	i, err := strconv.Atoi(p.Annotations[batchv1.JobCompletionIndexAnnotation])
	return i, err == nil && i >= 0
}

// addIndex tells a pod its index, in an annotation, a label and the environment.
func (in *input) addIndex(p *corev1.Pod, index int) {
	text := strconv.Itoa(index)
	metav1.SetMetaDataAnnotation(&p.ObjectMeta, batchv1.JobCompletionIndexAnnotation, text)
	metav1.SetMetaDataLabel(&p.ObjectMeta, batchv1.JobCompletionIndexAnnotation, text)
	if in.job.Spec.BackoffLimitPerIndex != nil {
		failures, ignored := 0, 0
		if last := in.lastFailure(index); last != nil {
			failures, ignored = count(last, batchv1.JobIndexFailureCountAnnotation), count(last, ignoredFailuresAnnotation)
			if in.ignores(last) {
				ignored++
			} else {
				failures++
			}
		}
		metav1.SetMetaDataAnnotation(&p.ObjectMeta, batchv1.JobIndexFailureCountAnnotation, strconv.Itoa(failures))
		if ignored > 0 {
			metav1.SetMetaDataAnnotation(&p.ObjectMeta, ignoredFailuresAnnotation, strconv.Itoa(ignored))
		}
	}
	for _, containers := range [][]corev1.Container{p.Spec.InitContainers, p.Spec.Containers} {
		for i := range containers {
			if !slices.ContainsFunc(containers[i].Env, func(e corev1.EnvVar) bool { return e.Name == indexEnv }) {
				containers[i].Env = append(containers[i].Env, corev1.EnvVar{Name: indexEnv, ValueFrom: &corev1.EnvVarSource{
					FieldRef: &corev1.ObjectFieldSelector{FieldPath: fmt.Sprintf("metadata.labels['%s']", batchv1.JobCompletionIndexAnnotation)},
				}})
			}
		}
	}
}

const ignoredFailuresAnnotation = "batch.kubernetes.io/job-index-ignored-failure-count"

func count(p *corev1.Pod, annotation string) int {
	n, err := strconv.Atoi(p.Annotations[annotation])
	if err != nil {
		return 0
	}
	return n
}

// lastFailure returns the failed pod of an index that knows of the most failures.
func (in *input) lastFailure(index int) *corev1.Pod {
	var last *corev1.Pod
	total := func(p *corev1.Pod) int {
		return count(p, batchv1.JobIndexFailureCountAnnotation) + count(p, ignoredFailuresAnnotation)
	}
	for _, p := range in.pods {
		if i, ok := indexOf(p); ok && i == index && in.hasFailed(p) && (last == nil || total(p) > total(last)) {
			last = p
		}
	}
	return last
}

// refuses reports whether the failure of p is the last that its index is allowed.
func (in *input) refuses(p *corev1.Pod) bool {
	if in.job.Spec.BackoffLimitPerIndex == nil {
		return false
	}
	if action, _ := in.matchFailure(p); action == batchv1.PodFailurePolicyActionFailIndex {
		return true
	}
	return count(p, batchv1.JobIndexFailureCountAnnotation) >= int(ptr.Deref(in.job.Spec.BackoffLimitPerIndex, 0))
}
