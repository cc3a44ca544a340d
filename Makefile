# Leme: a Kubernetes in Go. `make help` lists what there is.
SHELL := /bin/bash
.DEFAULT_GOAL := help

BIN        := $(CURDIR)/bin
KUBE       := 1.37.2
VERSION    := v$(KUBE)
COMMIT     := $(shell git rev-parse HEAD 2>/dev/null || echo unknown)
COMPONENTS := kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy
VERSION_PKG := k8s.io/component-base/version
LDFLAGS    := -s -w \
	-X $(VERSION_PKG).gitVersion=$(VERSION) -X $(VERSION_PKG).gitMajor=1 -X $(VERSION_PKG).gitMinor=37 \
	-X $(VERSION_PKG).gitCommit=$(COMMIT) -X $(VERSION_PKG).gitTreeState=clean
# The same for builds and tests, so that what one compiles the other need not.
export CGO_ENABLED := 0
export GOFLAGS := -trimpath -buildvcs=false

include hack/runtime.mk hack/images.mk hack/clients.mk hack/conformance.mk hack/generate.mk

##@ A cluster
.PHONY: up down
up: runtime images $(BIN)/leme ## Build what is missing and run a cluster on this machine (root; UPFLAGS adds flags)
	$(BIN)/leme up $(UPFLAGS)

down: $(BIN)/leme ## Remove the cluster and everything that belongs to it
	$(BIN)/leme down $(UPFLAGS)

##@ Development
.PHONY: build $(BIN)/leme $(addprefix $(BIN)/,$(COMPONENTS))
build: $(BIN)/leme $(addprefix $(BIN)/,$(COMPONENTS)) ## Build leme and the component binaries into bin/

$(BIN)/leme $(addprefix $(BIN)/,$(COMPONENTS)):
	go build -ldflags '$(LDFLAGS)' -o $@ ./cmd/$(@F)

.PHONY: test
test: prerequisites ## Pass the unit and integration tests: all but those that need a cluster
	go test ./apis/... ./cmd/... ./hack/... ./pkg/... ./test/rules/...
	go -C test/conformance test -mod=readonly . ./differential/...
	go -C test/conformance/differential/scheduler test -mod=readonly .
	$(MAKE) --no-print-directory testcluster-example scheduler-plugin

.PHONY: faults
faults: ## Let controllers work for ten minutes on an API server that answers with errors at random
	go test -count=1 -timeout 30m -v -run TestFaults ./pkg/controller -faults 10m

.PHONY: e2e
e2e: runtime images build ## Pass the end-to-end tests on clusters that they start themselves (root; RUN=regexp narrows)
	go test -count=1 -timeout 40m -v $(if $(RUN),-run '$(RUN)') ./test/e2e/...
	$(if $(RUN),,$(MAKE) --no-print-directory envtest helm-test)

.PHONY: lint
lint: ## go vet and golangci-lint
	go vet ./...
	go tool -modfile=hack/tools/go.mod golangci-lint run

.PHONY: verify
verify: ## Generated code and formatting are up to date
	hack/verify.sh

.PHONY: bench
bench: build runtime images ## Measure Leme beside the originals (BENCH="startup pods apiserver scheduler controllers testcluster")
	hack/bench/run.sh $(BENCH)

.PHONY: help
help: ## This list
	@awk 'BEGIN {FS = ":.*##"} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z0-9-]+:.*##/ {printf "  %-20s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
