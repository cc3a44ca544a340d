# Generated code. Its results are committed; `make verify` checks that they are current.

.PHONY: generate
generate: ## Write generated code again
	hack/generate/openapi.sh
