# The official conformance suite and the original components, from test/conformance.

SUITE          := bin/conformance
ORIGINALS      := bin/originals
ORIGINAL_FLAGS := -s -w -X $(VERSION_PKG).gitVersion=$(VERSION) -X $(VERSION_PKG).gitMajor=1 -X $(VERSION_PKG).gitMinor=37
original-go     = go -C test/conformance $(1) -mod=readonly -ldflags '$(ORIGINAL_FLAGS)' -o $(CURDIR)/$(2)

.PHONY: suite
suite: $(SUITE)/.done ## Build the official conformance suite

$(SUITE)/.done: test/conformance/go.mod
	@mkdir -p $(SUITE)
	$(call original-go,test -c -vet=off,$(SUITE)/e2e.test) k8s.io/kubernetes/test/e2e
	$(call original-go,build,$(SUITE)/ginkgo) github.com/onsi/ginkgo/v2/ginkgo
	$(call original-go,build,$(SUITE)/kubectl) k8s.io/kubernetes/cmd/kubectl
	@touch $@

.PHONY: originals
originals: $(COMPONENTS:%=$(ORIGINALS)/%) ## Build the original components, as peers to compare with

$(COMPONENTS:%=$(ORIGINALS)/%): test/conformance/go.mod
	@mkdir -p $(ORIGINALS)
	$(call original-go,build,$@) k8s.io/kubernetes/cmd/$(@F)

# make conformance FOCUS=regexp SKIP=regexp PARALLEL=6 NODES=2 WITH='kubelet=/path …' TIMEOUT=45m
# PASSING=1 runs only what passing.txt lists, ALL=1 also what STATUS.md gives up, RESUME=1 only what
# has no result yet; UPDATE=1 adds to passing.txt. BEYOND=1 runs the suite's other tests instead, those that need no
# driver, cloud or feature that is off by default; beyond.txt and BEYOND.md are then the lists.
BEYOND_LABELS := !Conformance && !Slow && !Flaky && Feature: isSubsetOf {SchedulerAsyncPreemption}
.PHONY: conformance conformance-passing
conformance: build runtime conformance-images suite ## Run the official conformance suite on a cluster of Leme (root; FOCUS, SKIP, PASSING=1, RESUME=1 …)
	go -C test/conformance build -mod=readonly -o $(CURDIR)/$(SUITE)/run .
	$(SUITE)/run $(if $(BEYOND),-labels '$(BEYOND_LABELS)') -passing-list test/conformance/$(if $(BEYOND),beyond,passing).txt -status test/conformance/$(if $(BEYOND),BEYOND,STATUS).md \
		$(if $(FOCUS),-focus '$(FOCUS)') $(if $(SKIP),-skip '$(SKIP)') $(if $(PARALLEL),-parallel $(PARALLEL)) \
		$(if $(NODES),-nodes $(NODES)) $(if $(WITH),-with '$(WITH)') $(if $(TIMEOUT),-timeout $(TIMEOUT)) \
		$(if $(PASSING),-passing) $(if $(ALL),-all) $(if $(RESUME),-resume) $(if $(UPDATE),-update)

conformance-passing: ## Run the conformance tests that have passed before
	$(MAKE) conformance PASSING=1

.PHONY: swap
swap: build runtime conformance-images suite originals ## Run the swap matrix: each original among Leme's components, and each of Leme's among originals (root)
	go -C test/conformance build -mod=readonly -o $(CURDIR)/$(SUITE)/run .
	$(SUITE)/run -originals $(ORIGINALS) -out $(SUITE)/swap -passing-list test/conformance/passing.txt -status test/conformance/STATUS.md \
		$(if $(PARALLEL),-parallel $(PARALLEL)) $(if $(NODES),-nodes $(NODES)) $(if $(TESTS),-per-cell $(TESTS))

# make differential ONLY='^discovery' SEED=1 ORIGINAL=path: ONLY is a regexp of groups and requests.
.PHONY: differential
differential: $(BIN)/kube-apiserver $(RUNTIME)/.etcd $(if $(ORIGINAL),,$(ORIGINALS)/kube-apiserver) ## Compare the answers of the original kube-apiserver and Leme's (ONLY, SEED)
	go -C test/conformance build -mod=readonly -o $(CURDIR)/bin/differential/run ./differential
	bin/differential/run -original $(or $(ORIGINAL),$(ORIGINALS)/kube-apiserver) -leme $(BIN)/kube-apiserver -etcd bin/runtime/etcd \
		-objects pkg/apiserver/testdata/resources.yaml,test/conformance/differential/testdata/examples.yaml,test/conformance/differential/testdata/versions.yaml \
		-fixtures $$(go list -m -f '{{.Dir}}' k8s.io/api)/testdata/HEAD -known test/conformance/differential/known.yaml \
		-out bin/differential $(if $(ONLY),-only '$(ONLY)') $(if $(SEED),-seed $(SEED))

# make differential-controllers ONLY='^gang/' FEATURES=WorkloadWithJob=true ENDS=/tmp/ends: ONLY is a regexp of scenarios, FEATURES are more feature
# gates, ENDS is a directory for what is compared.
.PHONY: differential-controllers
differential-controllers: $(BIN)/kube-apiserver $(BIN)/kube-controller-manager $(RUNTIME)/.etcd $(ORIGINALS)/kube-controller-manager ## Compare where the original kube-controller-manager and Leme's end the same scenarios (ONLY, FEATURES, ENDS)
	go -C test/conformance build -mod=readonly -o $(CURDIR)/bin/differential/controllers ./differential/controllers
	bin/differential/controllers -original $(ORIGINALS)/kube-controller-manager -leme $(BIN)/kube-controller-manager -server $(BIN)/kube-apiserver \
		-etcd bin/runtime/etcd -scenarios test/conformance/differential/controllers/scenarios -known test/conformance/differential/controllers/known.yaml \
		-out bin/differential $(if $(ONLY),-only '$(ONLY)') $(if $(FEATURES),-features '$(FEATURES)') $(if $(ENDS),-ends $(ENDS))

# make differential-scheduler CASES=600 SEED=1: a case is a cluster and the pods that come to it.
.PHONY: differential-scheduler
differential-scheduler: ## Compare the decisions of the original kube-scheduler and Leme's (CASES, SEED)
	@mkdir -p bin/differential/scheduler
	set -o pipefail; go -C test/conformance/differential/scheduler test -mod=readonly -count=1 -timeout 60m -v -run 'TestSchedulersDecide.*Alike' . \
		-args -out $(CURDIR)/bin/differential/scheduler -cases $(or $(CASES),600) -group-cases $(or $(CASES),600) -seed $(or $(SEED),1) | grep -v '^ *--- PASS: .*/seed-\|^=== '
