package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/onsi/ginkgo/v2/types"
)

// A suite is the official test suite, built as it is.
type suite struct {
	dir     string
	labels  string // of Ginkgo: which tests it is about
	workers int
}

// A spec is one of the suite's tests.
type spec struct {
	name, sig string
	serial    bool
}

func (s suite) test() string    { return filepath.Join(s.dir, "e2e.test") }
func (s suite) ginkgo() string  { return filepath.Join(s.dir, "ginkgo") }
func (s suite) kubectl() string { return filepath.Join(s.dir, "kubectl") }

func (s suite) check() error {
	for _, program := range []string{s.test(), s.ginkgo(), s.kubectl()} {
		if _, err := os.Stat(program); err != nil {
			return fmt.Errorf("%s is missing: `make suite` builds it", program)
		}
	}
	return nil
}

// specs lists the tests.
func (s suite) specs(ctx context.Context) ([]spec, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "conformance-*")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	out := filepath.Join(dir, "specs.json")
	cmd := exec.CommandContext(ctx, s.test(), "--provider=skeleton",
		"--ginkgo.dry-run", "--ginkgo.label-filter="+s.labels, "--ginkgo.silence-skips", "--ginkgo.json-report="+out)
	if output, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("listing the suite's tests: %w\n%s", err, output)
	}
	reports, err := readReports(out)
	if err != nil {
		return nil, fmt.Errorf("listing the suite's tests: %w", err)
	}
	var specs []spec
	for _, r := range reports.SpecReports {
		if r.State == types.SpecStatePassed && r.LeafNodeType == types.NodeTypeIt {
			specs = append(specs, newSpec(r.FullText()))
		}
	}
	if len(specs) == 0 {
		return nil, errors.New("listing the suite's tests: there are none")
	}
	slices.SortFunc(specs, func(a, b spec) int { return strings.Compare(a.name, b.name) })
	return specs, nil
}

var sigPattern = regexp.MustCompile(`^\[(sig-[a-z-]+)\]`)

func newSpec(name string) spec {
	s := spec{name: name, sig: "other", serial: strings.Contains(name, "[Serial]") || strings.Contains(name, "[Disruptive]")}
	if m := sigPattern.FindStringSubmatch(name); m != nil {
		s.sig = m[1]
	}
	return s
}

// readReports reads the one suite of a JSON report.
func readReports(path string) (types.Report, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return types.Report{}, err
	}
	var reports []types.Report
	if err := json.Unmarshal(data, &reports); err != nil {
		return types.Report{}, fmt.Errorf("%s: %w", path, err)
	}
	if len(reports) != 1 {
		return types.Report{}, fmt.Errorf("%s: has reports of %d suites", path, len(reports))
	}
	return reports[0], nil
}

// focus is a pattern that matches these tests and no others.
func focus(names []string) string {
	quoted := make([]string, len(names))
	for i, n := range names {
		quoted[i] = regexp.QuoteMeta(n)
	}
	return "(?:" + strings.Join(quoted, "|") + ")$"
}

// grace is how long tests may clean up when they are interrupted, and then once more how
// long the suite may take to write its report.
const grace = 20 * time.Second

// run runs a stage and returns a result for each of its tests. When the context ends,
// the tests that run are interrupted, and their results are those of not having run.
func (s suite) run(ctx context.Context, st stage, c cluster, out string, timeout time.Duration, p *progress) (map[string]result, *types.Report, error) {
	workers := s.workers
	if st.serial {
		workers = 1
	}
	reportFile := filepath.Join(out, st.name+".json")
	if err := os.Remove(reportFile); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, nil, err
	}
	log, err := os.Create(filepath.Join(out, st.name+".log"))
	if err != nil {
		return nil, nil, err
	}
	defer log.Close()
	// The suite looks for kubectl and keeps files in its directory.
	cmd := exec.Command(s.ginkgo(), "run", "-v", "--no-color", "--timeout=24h", "--grace-period="+grace.String(),
		"--procs="+strconv.Itoa(workers), "--silence-skips", "--focus="+focus(st.specs),
		"--output-dir="+out, "--json-report="+filepath.Base(reportFile), s.test(), "--",
		"--provider=skeleton", "--kubectl-path="+s.kubectl(), "--disable-log-dump")
	cmd.Args = append(cmd.Args, c.flags()...)
	cmd.Dir = out
	cmd.Env = append(os.Environ(), "KUBECONFIG="+c.kubeconfig)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // an interrupt reaches it once, from here
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		return nil, nil, err
	}
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		return nil, nil, err
	}
	p.stage(st)
	ended := make(chan struct{})
	go func() {
		select {
		case <-ended:
			return
		case <-ctx.Done():
		case <-time.After(timeout):
		}
		// The first interrupt ends tests, the second their cleaning up: the cluster goes anyway.
		for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGINT, syscall.SIGKILL} {
			group := 1
			if signal == syscall.SIGKILL {
				group = -1
			}
			_ = syscall.Kill(group*cmd.Process.Pid, signal)
			select {
			case <-ended:
				return
			case <-time.After(grace):
			}
		}
	}()
	seen := p.follow(io.TeeReader(pipe, log))
	err = cmd.Wait()
	close(ended)
	results := unrun(st.specs, "out of time")
	if ctx.Err() != nil {
		results = unrun(st.specs, "interrupted")
	}

	report, readErr := readReports(reportFile)
	if readErr != nil {
		for name, r := range seen {
			if _, ok := results[name]; ok {
				results[name] = r
			}
		}
		if ctx.Err() != nil {
			return results, nil, nil
		}
		return results, nil, fmt.Errorf("the suite ended without a report (%w), its log is %s", errors.Join(err, readErr), log.Name())
	}
	fill(results, report)
	return results, &report, nil
}

// fill puts the results of a report in the place of those that stand for not having run.
func fill(results map[string]result, report types.Report) {
	setup := ""
	for _, r := range report.SpecReports {
		message := firstLine(r.FailureMessage())
		if r.LeafNodeType.Is(types.NodeTypesForSuiteLevelNodes) && r.Failed() {
			setup = message
		}
		name := r.FullText()
		if _, ok := results[name]; !ok {
			continue
		}
		switch r.State {
		case types.SpecStatePassed:
			results[name] = result{State: passed, Seconds: r.RunTime.Seconds()}
		case types.SpecStateFailed, types.SpecStatePanicked, types.SpecStateTimedout:
			results[name] = result{State: failed, Message: message, Seconds: r.RunTime.Seconds()}
		case types.SpecStateSkipped, types.SpecStatePending:
			if message != "" {
				results[name] = result{State: notRun, Message: "skipped: " + message}
			}
		}
	}
	if setup == "" {
		return
	}
	for name, r := range results {
		if r.State == notRun {
			results[name] = result{State: notRun, Message: "the suite's set-up failed: " + setup}
		}
	}
}

func firstLine(message string) string {
	for line := range strings.Lines(message) {
		if line = strings.TrimSpace(line); line != "" {
			return line
		}
	}
	return ""
}

// A progress follows ginkgo's output and says how far it has come.
type progress struct {
	w                   io.Writer
	terminal            bool
	start               time.Time
	total, done, failed int
	last                time.Time
	name                string
}

func newProgress(w io.Writer, terminal bool, start time.Time, total int) *progress {
	return &progress{w: w, terminal: terminal, start: start, total: total}
}

func (p *progress) stage(st stage) {
	p.name = st.name
	p.line("%d tests: %s", len(st.specs), st.name)
}

var (
	specEnd = regexp.MustCompile(`^(?:• (?:\[([A-Z]+)[^\]]*\] )?\[[0-9.]+ seconds\]|S \[SKIPPED\].*)$`)
	// failedNode stands in the name of a test before the part that has failed.
	failedNode = regexp.MustCompile(` \[(?:It|BeforeEach|JustBeforeEach|AfterEach|JustAfterEach|DeferCleanup \(Each\))\]`)
)

// follow reads until the output ends. It returns the results that it has seen: of a
// suite that does not live to write its report, there are no others.
func (p *progress) follow(r io.Reader) map[string]result {
	results := map[string]result{}
	lines := bufio.NewReader(r)
	state, current := "", ""
	for {
		line, err := lines.ReadString('\n')
		line = strings.TrimRight(line, "\n")
		if state != "" { // the line after a result has the name, and labels in brackets
			current = failedNode.ReplaceAllString(line[:max(0, strings.LastIndex(line, " ["))], "")
			if state != notRun {
				results[current] = result{State: state}
			}
			if state == failed {
				p.line("FAILED %s", current)
			}
			state = ""
		}
		if message, ok := strings.CutPrefix(strings.TrimSpace(line), "[FAILED] "); ok && !strings.HasPrefix(message, "in [") {
			if r := results[current]; r.State == failed && r.Message == "" {
				results[current] = result{State: failed, Message: message}
			}
		}
		if m := specEnd.FindStringSubmatch(line); m != nil {
			p.done++
			switch m[1] {
			case "":
				state = passed
				if strings.HasPrefix(line, "S") {
					state = notRun
				}
			case "INTERRUPTED", "TIMEDOUT", "ABORTED":
				state = notRun
			default:
				state = failed
				p.failed++
			}
			p.show()
		}
		if err != nil {
			return results
		}
	}
}

// show writes where the run stands: at once on a terminal, at times elsewhere.
func (p *progress) show() {
	status := fmt.Sprintf("%d of %d, %d failed, %s", p.done, p.total, p.failed, time.Since(p.start).Round(time.Second))
	if p.terminal {
		fmt.Fprintf(p.w, "\r\033[K%s", status)
	} else if time.Since(p.last) > 30*time.Second || p.done == p.total {
		p.last = time.Now()
		fmt.Fprintln(p.w, status)
	}
}

func (p *progress) line(format string, args ...any) {
	if p.terminal {
		fmt.Fprint(p.w, "\r\033[K")
	}
	fmt.Fprintf(p.w, format+"\n", args...)
}

func (p *progress) end() {
	if p.terminal {
		fmt.Fprintln(p.w)
	}
}
