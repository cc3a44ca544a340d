// Package listed keeps the differences between the originals and Leme that are known, with
// their reasons, and reports the others.
package listed

import (
	"fmt"
	"os"
	"regexp"

	"sigs.k8s.io/yaml"
)

// Known is a difference that is there and is listed, with its reason.
type Known struct {
	// Request, or Scenario, and Difference are regular expressions; an empty one matches all.
	Request    string `json:"request,omitempty"`
	Scenario   string `json:"scenario,omitempty"`
	Difference string `json:"difference,omitempty"`
	Reason     string `json:"reason"`
	// Sometimes says that it is there in some runs and not in others.
	Sometimes bool `json:"sometimes,omitempty"`

	where, difference *regexp.Regexp
	seen              int
}

// List is what is known.
type List []*Known

// Load reads a list from a file.
func Load(file string) (List, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	return Parse(data)
}

// Parse reads a list.
func Parse(data []byte) (List, error) {
	var list List
	if err := yaml.UnmarshalStrict(data, &list); err != nil {
		return nil, err
	}
	for i, k := range list {
		if k.Reason == "" || k.Request+k.Scenario+k.Difference == "" || k.Request != "" && k.Scenario != "" {
			return nil, fmt.Errorf("known difference %d: it needs a reason, and a request, a scenario or a difference", i)
		}
		var err error
		if k.where, err = regexp.Compile(k.Request + k.Scenario); err == nil {
			k.difference, err = regexp.Compile(k.Difference)
		}
		if err != nil {
			return nil, fmt.Errorf("known difference %d: %w", i, err)
		}
	}
	return list, nil
}

// has says whether a difference is listed, and remembers that it was there.
func (list List) has(where, difference string) bool {
	found := false
	for _, k := range list {
		if k.where.MatchString(where) && k.difference.MatchString(difference) {
			k.seen++
			found = true
		}
	}
	return found
}

// gone returns those that were not there any more.
func (list List) gone() []*Known {
	var gone []*Known
	for _, k := range list {
		if k.seen == 0 && !k.Sometimes {
			gone = append(gone, k)
		}
	}
	return gone
}
