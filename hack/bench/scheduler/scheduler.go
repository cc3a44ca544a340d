package main

import (
	"context"
	"fmt"
	"os"

	clientrest "k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

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

func startScheduler(ctx context.Context, s *bench.Server, path string) (*scheduler, error) {
	tls := s.Config.TLSClientConfig
	kubeconfig, file := s.File("scheduler.conf"), s.File("scheduler.yaml")
	if err := clientcmd.WriteToFile(clientcmdapi.Config{
		Clusters:       map[string]*clientcmdapi.Cluster{"c": {Server: s.Config.Host, CertificateAuthority: tls.CAFile}},
		AuthInfos:      map[string]*clientcmdapi.AuthInfo{"u": {ClientCertificate: tls.CertFile, ClientKey: tls.KeyFile}},
		Contexts:       map[string]*clientcmdapi.Context{"c": {Cluster: "c", AuthInfo: "u"}},
		CurrentContext: "c",
	}, kubeconfig); err != nil {
		return nil, err
	}
	if err := os.WriteFile(file, fmt.Appendf(nil, configuration, kubeconfig), 0o600); err != nil {
		return nil, err
	}
	port := bench.FreePort()
	process, err := s.Start(ctx, path, "--config="+file, "--authentication-kubeconfig="+kubeconfig, "--authorization-kubeconfig="+kubeconfig,
		"--bind-address=127.0.0.1", fmt.Sprintf("--secure-port=%d", port), "--tls-cert-file="+s.File("server.crt"), "--tls-private-key-file="+s.File("server.key"))
	if err != nil {
		return nil, err
	}
	config := clientrest.CopyConfig(s.Config)
	config.Host = fmt.Sprintf("https://127.0.0.1:%d", port)
	return &scheduler{process, config}, nil
}
