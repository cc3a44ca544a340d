package main

import (
	"fmt"
	"regexp"
)

// A selection says which tests to run.
type selection struct {
	focus, skip      string
	passingOnly, all bool
}

// A stage is tests that run together.
type stage struct {
	name   string
	serial bool
	specs  []string
}

func count(stages []stage) int {
	n := 0
	for _, s := range stages {
		n += len(s.specs)
	}
	return n
}

// plan divides the tests into stages and names why the others are not run. What is known
// to pass comes before what is not, the parallel part before the serial one: a test that
// misses something waits minutes for it, and must not take the time of the others.
func (s selection) plan(specs []spec, passing map[string]bool, missing map[string]string, done map[string]result) ([]stage, map[string]result, error) {
	focus, err := regexp.Compile(s.focus)
	if err != nil {
		return nil, nil, fmt.Errorf("focus: %w", err)
	}
	skip, err := regexp.Compile(s.skip)
	if err != nil {
		return nil, nil, fmt.Errorf("skip: %w", err)
	}
	stages := []stage{{name: "parallel"}, {name: "serial", serial: true}, {name: "parallel-not-passing-yet"}, {name: "serial-not-passing-yet", serial: true}}
	reasons := map[string]result{}
	for _, t := range specs {
		if done[t.name].State == passed || done[t.name].State == failed {
			continue
		}
		switch {
		case !focus.MatchString(t.name), s.skip != "" && skip.MatchString(t.name):
			reasons[t.name] = result{State: notRun, Message: "not selected"}
			continue
		case s.passingOnly && !passing[t.name]:
			reasons[t.name] = result{State: notRun, Message: "does not pass yet"}
			continue
		case missing[t.name] != "" && !passing[t.name] && !s.all:
			reasons[t.name] = result{State: notRun, Message: "missing: " + missing[t.name]}
			continue
		}
		i := 0
		if t.serial {
			i++
		}
		if !passing[t.name] {
			i += 2
		}
		stages[i].specs = append(stages[i].specs, t.name)
	}
	var used []stage
	for _, st := range stages {
		if len(st.specs) > 0 {
			used = append(used, st)
		}
	}
	return used, reasons, nil
}
