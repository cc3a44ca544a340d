package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/onsi/ginkgo/v2/reporters"
	"github.com/onsi/ginkgo/v2/types"
)

// The states of a test.
const (
	passed = "passed"
	failed = "failed"
	notRun = "not run"
)

// A result is how a test ended, or why it was not run.
type result struct {
	State   string  `json:"state"`
	Message string  `json:"message,omitempty"`
	Seconds float64 `json:"seconds,omitempty"`
}

func unrun(names []string, reason string) map[string]result {
	results := make(map[string]result, len(names))
	for _, n := range names {
		results[n] = result{State: notRun, Message: reason}
	}
	return results
}

// A store keeps results from stage to stage, and for a run that goes on where another
// has stopped.
type store struct {
	dir     string
	results map[string]result
	report  types.Report
	again   []string // failed at first, and passed when run again
}

func openStore(dir string, resume bool) (*store, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	s := &store{dir: dir, results: map[string]result{}}
	if !resume {
		return s, nil
	}
	data, err := os.ReadFile(s.file())
	if errors.Is(err, os.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(data, &s.results); err != nil {
		return nil, fmt.Errorf("%s: %w", s.file(), err)
	}
	return s, nil
}

func (s *store) file() string { return filepath.Join(s.dir, "results.json") }

func (s *store) set(results map[string]result) {
	for name, r := range results {
		s.results[name] = r
	}
}

// settle has the second attempt of these tests count if it passed, and the first
// otherwise.
func (s *store) settle(names []string, first map[string]result) {
	for _, n := range names {
		if s.results[n].State == passed {
			s.again = append(s.again, n)
		} else {
			s.results[n] = first[n]
		}
	}
}

// merge adds the results of a stage and saves all.
func (s *store) merge(results map[string]result, report *types.Report) error {
	s.set(results)
	if report != nil {
		specs := append(s.report.SpecReports, selected(*report, results)...)
		s.report = s.report.Add(*report)
		s.report.SpecReports = specs
		if err := reporters.GenerateJUnitReportWithConfig(s.report, filepath.Join(s.dir, "junit.xml"),
			reporters.JunitReportConfig{OmitSpecLabels: true, OmitTimelinesForSpecState: types.SpecStatePassed, OmitCapturedStdOutErr: true}); err != nil {
			return fmt.Errorf("junit.xml: %w", err)
		}
	}
	return s.save()
}

// selected leaves out of a report the thousands of tests that were never meant.
func selected(report types.Report, results map[string]result) types.SpecReports {
	var specs types.SpecReports
	for _, r := range report.SpecReports {
		if _, ok := results[r.FullText()]; ok {
			specs = append(specs, r)
		}
	}
	return specs
}

func (s *store) save() error {
	data, err := json.MarshalIndent(s.results, "", "  ")
	if err != nil {
		return err
	}
	tmp := s.file() + ".new"
	if err := os.WriteFile(tmp, append(data, '\n'), 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, s.file())
}

// summarize writes the failures and the table.
func summarize(w io.Writer, specs []spec, results map[string]result) {
	type row struct{ passed, failed, notRun int }
	rows, total := map[string]*row{}, &row{}
	reasons := map[string]int{}
	first := true
	for _, s := range specs {
		r := rows[s.sig]
		if r == nil {
			r = &row{}
			rows[s.sig] = r
		}
		switch res := results[s.name]; res.State {
		case passed:
			r.passed++
			total.passed++
		case failed:
			r.failed++
			total.failed++
			if first {
				fmt.Fprintln(w, "\nFailed:")
				first = false
			}
			fmt.Fprintf(w, "  %s (%s)\n      %s\n", s.name, time.Duration(res.Seconds*float64(time.Second)).Round(time.Second), res.Message)
		default:
			r.notRun++
			total.notRun++
			reasons[res.Message]++
		}
	}
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "passed\tfailed\tnot run\tof\t  ")
	sigs := make([]string, 0, len(rows))
	for sig := range rows {
		sigs = append(sigs, sig)
	}
	slices.Sort(sigs)
	for _, sig := range sigs {
		r := rows[sig]
		fmt.Fprintf(t, "%d\t%d\t%d\t%d\t  %s\n", r.passed, r.failed, r.notRun, r.passed+r.failed+r.notRun, sig)
	}
	fmt.Fprintf(t, "%d\t%d\t%d\t%d\t  all\n", total.passed, total.failed, total.notRun, len(specs))
	_ = t.Flush() // the summary is for a person: where it cannot be written, nobody reads it
	if total.notRun > 0 {
		fmt.Fprintln(w, "\nNot run:")
		keys := make([]string, 0, len(reasons))
		for k := range reasons {
			keys = append(keys, k)
		}
		slices.SortFunc(keys, func(a, b string) int { return reasons[b] - reasons[a] })
		for _, k := range keys {
			reason := k
			if reason == "" {
				reason = "no result yet"
			}
			fmt.Fprintf(w, "%5d  %s\n", reasons[k], reason)
		}
	}
}
