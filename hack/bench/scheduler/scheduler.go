package main

import (
	"context"
	"fmt"
	"os"

	clientrest "k8s.io/client-go/rest"

	"github.com/leme-k8s/leme/hack/bench/internal/bench"
)

// scheduler is a scheduler's process and how its own port is reached.
type scheduler struct {
	process *os.Process
	config  *clientrest.Config
}

// configuration is everybody's defaults, but that the client's limit is not what is measured.
const configuration = `apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
leaderElection: {leaderElect: false}
clientConnection: {kubeconfig: %q, qps: 10000, burst: 10000}
`

func startScheduler(ctx context.Context, s *bench.Server, path string, flags ...string) (*scheduler, error) {
	kubeconfig, err := s.Kubeconfig()
	if err != nil {
		return nil, err
	}
	file := s.File("scheduler.yaml")
	if err := os.WriteFile(file, fmt.Appendf(nil, configuration, kubeconfig), 0o600); err != nil {
		return nil, err
	}
	process, config, err := s.StartComponent(ctx, path, kubeconfig, append(flags, "--config="+file)...)
	if err != nil {
		return nil, err
	}
	return &scheduler{process, config}, nil
}
