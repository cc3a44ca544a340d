// Package rules holds the tests that keep the repository's ground rules: what may
// import what, and that what the documents list exists.
package rules

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const module = "github.com/leme-k8s/leme"

type pkg struct {
	ImportPath string
	Doc        string
	Imports    []string
	Deps       []string
	GoFiles    []string
}

func packages(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-deps=false", "-json=ImportPath,Doc,Imports,Deps,GoFiles", "./...")
	cmd.Dir = "../.."
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, &stderr)
	}
	var pkgs []pkg
	dec := json.NewDecoder(bytes.NewReader(out))
	for {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return pkgs
		} else if err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, p)
	}
}

// The original is a peer to compare with, never a library.
func TestNothingDependsOnTheOriginal(t *testing.T) {
	for _, p := range packages(t) {
		for _, d := range p.Deps {
			if d == "k8s.io/kubernetes" || strings.HasPrefix(d, "k8s.io/kubernetes/") {
				t.Errorf("%s depends on %s", p.ImportPath, d)
			}
		}
	}
	mod, err := os.ReadFile("../../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	if regexp.MustCompile(`(?m)^\s*(require\s+)?k8s\.io/kubernetes\s`).Match(mod) {
		t.Error("go.mod requires k8s.io/kubernetes")
	}
}

// A component can be replaced only while no other knows it.
func TestComponentsDoNotImportEachOther(t *testing.T) {
	components := []string{"apiserver", "controller", "scheduler", "kubelet", "proxy", "cloud"}
	owner := func(path string) string {
		rest, ok := strings.CutPrefix(path, module+"/pkg/")
		if !ok {
			return ""
		}
		first, _, _ := strings.Cut(rest, "/")
		for _, c := range components {
			if c == first {
				return c
			}
		}
		return ""
	}
	shared := []string{module + "/pkg/api", module + "/pkg/component"}
	for _, p := range packages(t) {
		from := owner(p.ImportPath)
		for _, s := range shared {
			if p.ImportPath == s || strings.HasPrefix(p.ImportPath, s+"/") {
				from = "what components share"
			}
		}
		if from == "" {
			continue
		}
		for _, imp := range p.Imports {
			if to := owner(imp); to != "" && to != from {
				t.Errorf("%s (%s) imports %s (%s)", p.ImportPath, from, imp, to)
			}
		}
	}
}

// A controller imports no other controller.
func TestControllersDoNotImportEachOther(t *testing.T) {
	const root = module + "/pkg/controller/"
	shared := regexp.MustCompile(`^` + regexp.QuoteMeta(root) + `(internal|shared|util|framework)`)
	for _, p := range packages(t) {
		rest, ok := strings.CutPrefix(p.ImportPath, root)
		if !ok || shared.MatchString(p.ImportPath) {
			continue
		}
		own, _, _ := strings.Cut(rest, "/")
		for _, imp := range p.Imports {
			if other, ok := strings.CutPrefix(imp, root); ok && !shared.MatchString(imp) {
				if name, _, _ := strings.Cut(other, "/"); name != own {
					t.Errorf("controller %s imports controller %s", own, name)
				}
			}
		}
	}
}

// Each package says what it is for.
func TestPackagesAreDocumented(t *testing.T) {
	for _, p := range packages(t) {
		if len(p.GoFiles) > 0 && p.Doc == "" {
			t.Errorf("%s has no package comment", p.ImportPath)
		}
	}
}

// What README and CONTRIBUTING tell people to run is there.
func TestDocumentedTargetsExist(t *testing.T) {
	makefiles, err := filepath.Glob("../../hack/*.mk")
	if err != nil {
		t.Fatal(err)
	}
	targets := map[string]bool{}
	for _, f := range append(makefiles, "../../Makefile") {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`(?m)^([a-z0-9-]+):`).FindAllStringSubmatch(string(data), -1) {
			targets[m[1]] = true
		}
	}
	for _, doc := range []string{"../../README.md", "../../CONTRIBUTING.md"} {
		data, err := os.ReadFile(doc)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile("(?m)(?:`|^ *)make ([a-z0-9-]+)").FindAllStringSubmatch(string(data), -1) {
			if !targets[m[1]] {
				t.Errorf("%s mentions `make %s`, which does not exist", filepath.Base(doc), m[1])
			}
		}
	}
	for _, want := range strings.Fields("up down build test e2e lint generate verify images runtime bench") {
		if !targets[want] {
			t.Errorf("make %s is missing", want)
		}
	}
}
