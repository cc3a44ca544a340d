package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
)

// Lists are the two files that say what is known about each test.
type lists struct{ passing, status string }

// load returns the tests that pass, and the missing capability of those that do not.
// A name that the suite does not have is an error, so that none is lost by a typing slip.
func (l lists) load(specs []spec) (passing map[string]bool, missing map[string]string, err error) {
	known := map[string]bool{}
	for _, s := range specs {
		known[s.name] = true
	}
	passing, missing = map[string]bool{}, map[string]string{}
	data, err := os.ReadFile(l.passing)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, err
	}
	for _, name := range strings.Split(strings.TrimSpace(string(data)), "\n") {
		if name == "" {
			continue
		}
		if !known[name] {
			return nil, nil, fmt.Errorf("%s: the suite has no test %q", l.passing, name)
		}
		passing[name] = true
	}
	data, err = os.ReadFile(l.status)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, err
	}
	for name, capability := range parseStatus(string(data)) {
		if !known[name] {
			return nil, nil, fmt.Errorf("%s: the suite has no test %q", l.status, name)
		}
		missing[name] = capability
	}
	return passing, missing, nil
}

// parseStatus reads the document: a heading of the second level names a capability, and
// the list items below it the tests that miss it.
func parseStatus(document string) map[string]string {
	missing := map[string]string{}
	capability := ""
	for line := range strings.Lines(document) {
		line = strings.TrimSpace(line)
		if heading, ok := strings.CutPrefix(line, "## "); ok {
			capability = heading
		}
		if item, ok := strings.CutPrefix(line, "- ["); ok && capability != "" {
			missing["["+item] = capability
		}
	}
	return missing
}

// add lists what has passed and was not listed, and returns how many that is.
func (l lists) add(passing map[string]bool, results map[string]result) (int, error) {
	added := 0
	for name, r := range results {
		if r.State == passed && !passing[name] {
			passing[name] = true
			added++
		}
	}
	names := make([]string, 0, len(passing))
	for name := range passing {
		names = append(names, name)
	}
	slices.Sort(names)
	return added, os.WriteFile(l.passing, []byte(strings.Join(names, "\n")+"\n"), 0o644)
}
