// Command differential starts the original kube-apiserver and Leme's, each on an etcd
// of its own, sends both the same requests, and says where they answer differently.
//
//	resources.go   what the original serves, and a valid object of each resource
//	schema.go      what a field may be, from the original's OpenAPI documents
//	breakage.go    each field broken in each way
//	change.go      one change of an object, and the ways to ask for it
//	corpus.go      the requests
//	request.go     sends them
//	normalise.go   takes out names, times and versions
//	compare.go     what is different
//	storage.go     each server on what the other has written
//
// The differences that are known are in known.yaml, with their reasons; internal/listed reads
// them and makes the summary, internal/peers starts the servers.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/leme-k8s/leme/test/conformance/differential/internal/listed"
	"github.com/leme-k8s/leme/test/conformance/differential/internal/peers"
)

type options struct {
	original, leme, etcd string
	objects, fixtures    string
	known, out           string
	only                 string
	seed                 uint
	timeout              time.Duration
}

func main() {
	var o options
	flag.StringVar(&o.original, "original", "bin/originals/kube-apiserver", "the original kube-apiserver `binary`")
	flag.StringVar(&o.leme, "leme", "bin/kube-apiserver", "Leme's kube-apiserver `binary`")
	flag.StringVar(&o.etcd, "etcd", "bin/runtime/etcd", "the etcd `binary`")
	flag.StringVar(&o.objects, "objects", "", "`files` with one valid object of each resource, separated by commas")
	flag.StringVar(&o.fixtures, "fixtures", "", "`directory` of the round-trip fixtures of k8s.io/api")
	flag.StringVar(&o.known, "known", "known.yaml", "`file` of the known differences")
	flag.StringVar(&o.out, "out", "bin/differential", "`directory` for logs and differences.txt")
	flag.StringVar(&o.only, "only", "", "`regexp` of groups and requests: send these alone, and miss nothing that is known")
	flag.UintVar(&o.seed, "seed", 1, "`number` that the corpus is drawn with")
	flag.DurationVar(&o.timeout, "timeout", 45*time.Minute, "`time` after which the run is ended")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "differential:", err)
		os.Exit(1)
	}
}

// everything serves what is off by default, too.
func everything() []string {
	return []string{
		"--runtime-config=api/all=true",
		"--feature-gates=GenericWorkload=true,TopologyAwareWorkloadScheduling=true,CompositePodGroup=true,PodGroupPreemptionPolicy=true,DRAWorkloadResourceClaims=true,EvictionRequestAPI=true",
	}
}

// errDifferent says that the answers are not as they should be.
var errDifferent = errors.New("the servers differ where they are not known to: see differences.txt")

func run(ctx context.Context, o options) error {
	list, err := listed.Load(o.known)
	if err != nil {
		return err
	}
	only, err := regexp.Compile(o.only)
	if err != nil {
		return fmt.Errorf("-only: %w", err)
	}
	p, err := peers.New(o.out)
	if err != nil {
		return err
	}
	defer p.Stop()
	original, err := startPeer(ctx, p, "original", o.original, o.etcd)
	if err != nil {
		return err
	}
	leme, err := startPeer(ctx, p, "leme", o.leme, o.etcd)
	if err != nil {
		return err
	}
	c, openAPI, err := newCorpus(ctx, original.server, o)
	if err != nil {
		return err
	}
	r := &runner{original: original, leme: leme, report: &listed.Report{Unit: "requests", Known: list}}
	err = r.stages(ctx, p, o, c, openAPI, only)
	if o.only != "" {
		r.report.Known = nil
	}
	good := r.report.Summary(os.Stdout)
	if err := errors.Join(err, r.report.Write(filepath.Join(o.out, "differences.txt"))); err != nil {
		return err
	}
	if !good {
		return errDifferent
	}
	p.Stop()
	return p.Remove()
}

// stages sends the corpus.
func (r *runner) stages(ctx context.Context, p *peers.Processes, o options, c *corpus, openAPI []string, only *regexp.Regexp) error {
	matching := func(requests []Request) []Request {
		return slices.DeleteFunc(requests, func(q Request) bool { return !only.MatchString(q.Group + " " + q.String()) })
	}
	if err := r.send(ctx, matching(c.documents(openAPI)), false); err != nil {
		return err
	}
	if err := r.send(ctx, c.setup(), true); err != nil {
		return err
	}
	stateless := slices.Concat(c.reads(), c.wrongs(), c.fixtureRequests(), c.creates(), c.updates())
	if err := r.send(ctx, matching(stateless), false); err != nil {
		return err
	}
	if err := r.send(ctx, matching(c.lives()), true); err != nil {
		return err
	}
	if o.only != "" && !only.MatchString("stored") {
		return nil
	}
	if err := r.swap(ctx, p, o, c.resources); err != nil {
		return err
	}
	return r.send(ctx, c.ends(), true)
}

func startPeer(ctx context.Context, p *peers.Processes, name, binary, etcd string) (*peer, error) {
	url, err := p.StartEtcd(name+"-etcd", etcd)
	if err != nil {
		return nil, err
	}
	s, err := p.StartServer(ctx, name, binary, url, everything()...)
	if err != nil {
		return nil, err
	}
	return &peer{server: &server{s}, objects: map[string]any{}}, nil
}

// newCorpus asks the original what it serves, and reads the examples and fixtures.
func newCorpus(ctx context.Context, original *server, o options) (*corpus, []string, error) {
	c := &corpus{schemas: &Schemas{}, seed: uint32(o.seed)}
	fetch := func(path, accept string) ([]byte, error) {
		a, err := original.send(ctx, Request{Method: http.MethodGet, Path: path, Accept: accept})
		if err == nil && a.Code != http.StatusOK {
			err = fmt.Errorf("%s of the original: %d", path, a.Code)
		}
		return a.Raw, err
	}
	const aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
	core, err := fetch("/api", aggregated)
	if err != nil {
		return nil, nil, err
	}
	groups, err := fetch("/apis", aggregated)
	if err != nil {
		return nil, nil, err
	}
	if c.resources, err = parseResources(core, groups); err != nil {
		return nil, nil, err
	}
	index, err := fetch("/openapi/v3", "")
	if err != nil {
		return nil, nil, err
	}
	var paths struct{ Paths map[string]any }
	if err := json.Unmarshal(index, &paths); err != nil {
		return nil, nil, fmt.Errorf("/openapi/v3: %w", err)
	}
	var openAPI []string
	for _, path := range slices.Sorted(maps.Keys(paths.Paths)) {
		openAPI = append(openAPI, "/openapi/v3/"+path)
		document, err := fetch("/openapi/v3/"+path, "")
		if err != nil {
			return nil, nil, err
		}
		if err := c.schemas.add(document); err != nil {
			return nil, nil, err
		}
	}
	var files [][]byte
	for _, name := range strings.Split(o.objects, ",") {
		data, err := os.ReadFile(name)
		if err != nil {
			return nil, nil, err
		}
		files = append(files, data)
	}
	if c.examples, err = parseExamples(files...); err != nil {
		return nil, nil, err
	}
	c.fixtures, err = readFixtures(o.fixtures)
	return c, openAPI, err
}

func readFixtures(dir string) ([]fixture, error) {
	names, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		return nil, err
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("no fixtures in %q", dir)
	}
	var all []fixture
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		f := fixture{}
		if f.object, _ = decode(data).(map[string]any); f.object == nil {
			return nil, fmt.Errorf("%s is no object", name)
		}
		if f.protobuf, err = os.ReadFile(strings.TrimSuffix(name, ".json") + ".pb"); err != nil {
			return nil, err
		}
		all = append(all, f)
	}
	return all, nil
}

// runner sends requests to both servers and reports what is different.
type runner struct {
	original, leme *peer
	report         *listed.Report
}

// send sends requests, in their order or several at once.
func (r *runner) send(ctx context.Context, requests []Request, ordered bool) error {
	r.original.forget()
	r.leme.forget()
	n := workers
	if ordered {
		n = 1
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	queue := make(chan Request)
	var group sync.WaitGroup
	for range n {
		group.Go(func() {
			for q := range queue {
				if err := r.one(ctx, q); err != nil {
					cancel(err)
				}
			}
		})
	}
	for _, q := range requests {
		select {
		case queue <- q:
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			break
		}
	}
	close(queue)
	group.Wait()
	return context.Cause(ctx)
}

// one sends one request to both.
func (r *runner) one(ctx context.Context, q Request) error {
	var answers [2]Answer
	var errs [2]error
	var group sync.WaitGroup
	for i, p := range []*peer{r.original, r.leme} {
		group.Go(func() { answers[i], errs[i] = p.ask(ctx, q) })
	}
	group.Wait()
	if err := errors.Join(errs[:]...); err != nil {
		return err
	}
	today := []string{time.Now().UTC().Format(time.DateOnly), time.Now().Add(-time.Hour).UTC().Format(time.DateOnly)}
	lines := compare(
		normaliser{r.original.Port, today}.answer(answers[0]),
		normaliser{r.leme.Port, today}.answer(answers[1]))
	r.report.Add(q.Group, q.String(), lines)
	return nil
}
