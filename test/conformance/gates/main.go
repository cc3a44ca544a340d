// Command gates prints the feature gates of Kubernetes: what each is by default, its stage if that is not the last, and which cannot be anything else.
package main

import (
	"fmt"
	"log"
	"slices"

	utilfeature "k8s.io/apiserver/pkg/util/feature"
	logsapi "k8s.io/component-base/logs/api/v1"
	metricsfeatures "k8s.io/component-base/metrics/features"
	_ "k8s.io/controller-manager/pkg/features/register"
	_ "k8s.io/kubernetes/pkg/features"
)

func main() {
	gates := utilfeature.DefaultMutableFeatureGate
	if err := logsapi.AddFeatureGates(gates); err != nil {
		log.Fatal(err)
	}
	if err := metricsfeatures.AddFeatureGates(gates); err != nil {
		log.Fatal(err)
	}
	var lines []string
	for name, spec := range gates.GetAll() {
		line := fmt.Sprintf("%s=%t", name, spec.Default)
		if spec.PreRelease != "" {
			line += " " + string(spec.PreRelease)
		}
		if spec.LockToDefault {
			line += " locked"
		}
		lines = append(lines, line)
	}
	slices.Sort(lines)
	for _, line := range lines {
		fmt.Println(line)
	}
}
