package main

import (
	"fmt"
	"os"
	"regexp"

	"sigs.k8s.io/yaml"
)

// known is a difference that is there and is listed, with its reason.
type known struct {
	// Request and Difference are regular expressions; an empty one matches all.
	Request    string `json:"request,omitempty"`
	Difference string `json:"difference,omitempty"`
	Reason     string `json:"reason"`

	request, difference *regexp.Regexp
	seen                int
}

// knowns is the list of them.
type knowns []*known

func loadKnown(file string) (knowns, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	return parseKnown(data)
}

func parseKnown(data []byte) (knowns, error) {
	var list knowns
	if err := yaml.UnmarshalStrict(data, &list); err != nil {
		return nil, err
	}
	for i, k := range list {
		if k.Reason == "" || k.Request == "" && k.Difference == "" {
			return nil, fmt.Errorf("known difference %d: it needs a reason, and a request or a difference", i)
		}
		var err error
		if k.request, err = regexp.Compile(k.Request); err == nil {
			k.difference, err = regexp.Compile(k.Difference)
		}
		if err != nil {
			return nil, fmt.Errorf("known difference %d: %w", i, err)
		}
	}
	return list, nil
}

// has says whether a difference is listed, and remembers that it was there.
func (list knowns) has(request, difference string) bool {
	found := false
	for _, k := range list {
		if k.request.MatchString(request) && k.difference.MatchString(difference) {
			k.seen++
			found = true
		}
	}
	return found
}

// gone returns those that were not there any more.
func (list knowns) gone() []*known {
	var gone []*known
	for _, k := range list {
		if k.seen == 0 {
			gone = append(gone, k)
		}
	}
	return gone
}
