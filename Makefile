# numalane. "make" alone lists what there is.
.SILENT:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

TOOLS := $(CURDIR)/.cache/tools
FUZZTIME ?= 20s
# One setting for all of e2e/: both are part of the build cache's key.
E2E := cd e2e && export CGO_ENABLED=0 &&

.PHONY: help
help: ## list the targets
	echo "numalane: NUMA-local SR-IOV scheduling for Kubernetes"
	echo
	grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | while IFS=$$'\t' read -r t d; do printf '  make %-12s %s\n' "$$t" "$$d"; done

.PHONY: build
build: ## build numalane-plugin and numalane-extender into bin/
	echo "building bin/numalane-plugin and bin/numalane-extender"
	CGO_ENABLED=0 go build -trimpath -o bin/numalane-plugin ./cmd/plugin
	CGO_ENABLED=0 go build -trimpath -o bin/numalane-extender ./cmd/extender

.PHONY: demo
demo: binaries ## show the problem and the cure on a real Kubernetes; KEEP=1 leaves it running
	$(E2E) .cache/bin/demo $(if $(KEEP),--keep)

.PHONY: test
test: test-unit test-lane ## prove it: unit tests of both modules, fuzz seeds, and the lane on real parts

.PHONY: test-unit
test-unit: ## unit tests and fuzz seeds of both modules
	echo "unit tests and fuzz seeds"
	go test ./...
	$(E2E) go test -trimpath ./demo/...

.PHONY: test-race
test-race: ## unit tests with the race detector (product module only; needs cgo)
	echo "unit tests with the race detector"
	CGO_ENABLED=1 go test -race ./...

.PHONY: test-lane
test-lane: binaries ## real control plane, real kubelets, our real binaries (needs root)
	echo "the lane, on real parts"
	$(E2E) go test -trimpath -count=1 -v -p 1 -timeout 20m ./cluster .

.PHONY: binaries
binaries: ## build Kubernetes and our binaries for the lane into e2e/.cache/bin
	$(E2E) go run -trimpath ./cmd/build

.PHONY: fuzz
fuzz: ## run every fuzz target for FUZZTIME (20s)
	for pkg in $$(go list ./...); do for f in $$(go test -list '^Fuzz' $$pkg | grep ^Fuzz || true); do \
	  echo "fuzzing $$pkg $$f for $(FUZZTIME)"; go test -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME) $$pkg; done; done

.PHONY: bench
bench: ## benchmarks
	go test -run '^$$' -bench . -benchmem ./...

.PHONY: lint
lint: tools ## golangci-lint on both modules
	echo "golangci-lint"
	$(TOOLS)/golangci-lint run ./...
	$(E2E) $(TOOLS)/golangci-lint run ./...

.PHONY: fmt
fmt: tools ## format with gofumpt
	$(TOOLS)/gofumpt -w cmd internal pkg hack e2e deploy

.PHONY: tools
tools: $(TOOLS)/.stamp ## build the pinned tools of hack/tools

$(TOOLS)/.stamp: hack/tools/go.sum
	echo "building the tools of hack/tools: about two minutes the first time"
	mkdir -p $(TOOLS)
	cd hack/tools && CGO_ENABLED=0 GOBIN=$(TOOLS) go install -trimpath tool
	touch $@

.PHONY: clean
clean: ## remove what was built, caches too
	rm -rf bin .cache e2e/.cache
