# Generated code. Its results are committed; `make verify` checks that they are current.

.PHONY: generate
generate: ## Write generated code again: OpenAPI definitions, declared validation, deep copies of the configuration, feature gates
	hack/generate/openapi.sh
	hack/generate/validations.sh
	hack/generate/deepcopy.sh
	hack/generate/gates.sh
