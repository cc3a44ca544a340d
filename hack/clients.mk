# What others have written for Kubernetes' API, run against Leme's. Each is a nested module below test/.

ENVTEST_PACKAGES := $(addprefix sigs.k8s.io/controller-runtime/pkg/,builder cache client client/apiutil cluster controller \
	controller/controllerutil envtest handler internal/controller internal/recorder manager manager/internal/integration \
	metrics/filters reconcile source webhook)

.PHONY: envtest
envtest: $(BIN)/kube-apiserver runtime ## Run controller-runtime's own tests that use envtest, with Leme's kube-apiserver
	@mkdir -p $(BIN)/envtest
	ln -sf ../kube-apiserver ../runtime/etcd $(BIN)/envtest/
	@# The tests of servers without aggregated discovery would download a kube-apiserver that is years old.
	KUBEBUILDER_ASSETS=$(BIN)/envtest test/envtest/run.sh $(ENVTEST_PACKAGES)

.PHONY: testcluster-example
testcluster-example: ## Run the tests of a project that uses pkg/testcluster from outside
	go -C test/testcluster-example test -mod=readonly -count=1 ./...

.PHONY: scheduler-plugin
scheduler-plugin: ## Run a scheduler plugin that is written against k8s.io/kube-scheduler in Leme's scheduler
	go -C test/scheduler-plugin test -mod=readonly -count=1 ./...

.PHONY: helm-test
helm-test: ## Install, upgrade, roll back and delete a chart with Helm v4
	go -C test/helm test -mod=readonly -count=1 ./...
