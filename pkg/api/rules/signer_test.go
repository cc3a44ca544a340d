package rules

import (
	"slices"
	"testing"
)

func TestSignerName(t *testing.T) {
	for name, want := range map[string][]string{
		"example.com/signer":    nil,
		"example.com/ns.signer": nil,
		"":                      {"Required value"},
		"/abs/../path":          {`Invalid value: "/abs/../path": must be a fully qualified domain and path of the form 'example.com/signer-name'`},
		"example/signer":        {`Invalid value: "example": should be a domain with at least two segments separated by dots`},
		"a_b.c_d/signer": {`Invalid value: "a_b.c_d": validating label "a_b": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', ` +
			`and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')`},
	} {
		var got []string
		for _, err := range SignerName(name, nil) {
			got = append(got, err.ErrorBody())
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}
