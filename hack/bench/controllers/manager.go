package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	clientrest "k8s.io/client-go/rest"

	"github.com/leme-k8s/leme/hack/bench/internal/bench"
)

// manager is a controller manager's process and what has been measured of it.
type manager struct {
	name    string
	process *os.Process
	config  *clientrest.Config // reaches its own port
	client  *http.Client
	table   *bench.Table
	took    time.Duration // of the phases that are not rest
	first   sample
}

// sample is what a manager has used so far.
type sample struct {
	bench.Usage
	requests map[string]float64 // by method
}

func startManager(ctx context.Context, s *bench.Server, b bench.Binary, t *bench.Table) (*manager, error) {
	kubeconfig, err := s.Kubeconfig()
	if err != nil {
		return nil, err
	}
	args := []string{"--kubeconfig=" + kubeconfig, "--use-service-account-credentials", "--root-ca-file=" + s.File("ca.crt"),
		"--service-account-private-key-file=" + s.File("ca.key"), "--controllers=*",
		"--leader-elect=false",           // nobody else is there, and a starved machine would end it
		"--node-monitor-grace-period=2h"} // the nodes send one heartbeat
	if *qps > 0 {
		args = append(args, fmt.Sprintf("--kube-api-qps=%d", *qps), fmt.Sprintf("--kube-api-burst=%d", *qps))
	}
	m := &manager{name: b.Name, table: t}
	if m.process, m.config, err = s.StartComponent(ctx, b.Path, kubeconfig, args...); err != nil {
		return nil, err
	}
	m.client, err = clientrest.HTTPClientFor(m.config)
	return m, err
}

// measure adds to the table how long a phase takes and what the manager uses in it.
func (m *manager) measure(ctx context.Context, phase string, do func(context.Context) error) error {
	before, err := m.sample(ctx)
	if err != nil {
		return err
	}
	if m.first.requests == nil {
		m.first = before
	}
	began := time.Now()
	if *profiles == "" {
		err = do(ctx)
	} else {
		file := filepath.Join(*profiles, m.name+"-"+strings.ReplaceAll(phase, " ", "-"))
		err = bench.Profile(ctx, m.config, file+".pprof", func() error { return do(ctx) })
		err = errors.Join(err, bench.HeapProfile(ctx, m.config, file+".heap.pprof"))
	}
	if err != nil {
		return err
	}
	took := time.Since(began)
	after, err := m.sample(ctx)
	if err != nil {
		return err
	}
	if !strings.HasPrefix(phase, "rest") {
		m.table.Add(m.name, phase+": time, s", took.Seconds())
		m.took += took
	}
	m.report(phase, before, after)
	m.table.Add(m.name, phase+": resident memory then, MiB", float64(after.Resident)/(1<<20))
	return nil
}

// total adds what all phases have taken and used.
func (m *manager) total() error {
	last, err := m.sample(context.Background())
	if err != nil {
		return err
	}
	m.table.Add(m.name, "all: time, s", m.took.Seconds())
	m.report("all", m.first, last)
	for _, method := range []string{"GET", "POST", "PUT", "PATCH", "DELETE"} {
		m.table.Add(m.name, "all: "+method+" requests", last.requests[method]-m.first.requests[method])
	}
	return nil
}

func (m *manager) report(phase string, before, after sample) {
	m.table.Add(m.name, phase+": CPU, s", (after.CPU - before.CPU).Seconds())
	m.table.Add(m.name, phase+": requests", after.sum()-before.sum())
}

func (s sample) sum() (n float64) {
	for _, count := range s.requests {
		n += count
	}
	return n
}

// sample asks the kernel and the manager.
func (m *manager) sample(ctx context.Context) (sample, error) {
	s := sample{requests: map[string]float64{}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, m.config.Host+"/metrics", nil)
	if err != nil {
		return s, err
	}
	resp, err := m.client.Do(req)
	if err != nil {
		return s, err
	}
	defer resp.Body.Close()
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(resp.Body)
	if err != nil {
		return s, fmt.Errorf("/metrics (%s): %w", resp.Status, err)
	}
	requests := families["rest_client_requests_total"]
	if requests == nil {
		return s, fmt.Errorf("/metrics (%s) has no rest_client_requests_total", resp.Status)
	}
	for _, metric := range requests.GetMetric() {
		s.requests[label(metric, "method")] += metric.GetCounter().GetValue()
	}
	s.Usage, err = bench.ProcessUsage(m.process.Pid)
	return s, err
}

func label(m *dto.Metric, name string) string {
	for _, l := range m.GetLabel() {
		if l.GetName() == name {
			return l.GetValue()
		}
	}
	return ""
}
