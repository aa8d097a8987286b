# numalane. "make" alone lists what there is.
.SILENT:
.NOTPARALLEL:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

# One setting for everything that is compiled: all is part of the build cache's
# key, so that test, build, lint and the lane share what they compile. Debug data
# is a quarter of the compiler's work, and what is linked here is stripped of it.
# What the user set with "go env -w" stays.
export CGO_ENABLED := 0
NODEBUG := -gcflags=all=-dwarf=false
export GOFLAGS := $(strip $(filter-out -trimpath $(NODEBUG),$(shell go env GOFLAGS)) -trimpath $(NODEBUG))

# Without gRPC's trace pages and their templates the linker can leave out what
# is never called: half the plugin's size.
TAGS := grpcnotrace

# The folder is named after what is pinned: other pins or another Go are built anew.
TOOLS := .cache/tools/$(shell (go env GOVERSION; cat hack/tools/go.mod hack/tools/go.sum) | sha256sum | cut -c1-16)
FUZZTIME ?= 20s
BENCH ?= .
PKG ?= ./...
E2E := cd e2e &&
CASES ?= 100000
MINUTES ?= 10
NODES ?= 20
ARCHES ?= amd64 arm64 ppc64le
IMAGES ?= ghcr.io/numalane
TAG ?= v0.1.0
KUBELETS ?= 1.34 1.35 1.36 1.37
NEWEST := 1.37
KUBELET := kubelets/v$(subst .,_,$(NEWEST))
LAB := .cache/lab/lab
comma := ,
space := $() $()

.PHONY: help
help: ## list the targets
	echo "numalane: NUMA-local SR-IOV scheduling for Kubernetes"
	echo
	awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## build numalane-plugin and numalane-extender into bin/
	echo "building bin/numalane-plugin and bin/numalane-extender: a minute or two the first time"
	go build -tags "$(TAGS)" -ldflags "-s -w" -o bin/numalane-plugin ./cmd/plugin
	go build -tags "$(TAGS)" -ldflags "-s -w" -o bin/numalane-extender ./cmd/extender

.PHONY: arches
arches: ## build both for each of ARCHES (amd64 arm64 ppc64le) into bin/ARCH/
	for a in $(ARCHES); do \
	  echo "building bin/$$a/numalane-plugin and bin/$$a/numalane-extender: some minutes the first time"; \
	  for c in plugin extender; do GOARCH=$$a go build -tags "$(TAGS)" -ldflags "-s -w" -o bin/$$a/numalane-$$c ./cmd/$$c; done; \
	done

.PHONY: images
images: arches ## put both into container images IMAGES/numalane-…:TAG for ARCHES, as OCI archives in bin/
	for c in plugin extender; do \
	  echo "bin/numalane-$$c.tar: $(IMAGES)/numalane-$$c:$(TAG) for $(ARCHES)"; \
	  (cd hack/image && go run . -name $(IMAGES)/numalane-$$c:$(TAG) -out $(CURDIR)/bin/numalane-$$c.tar \
	    $(foreach a,$(ARCHES),$(a)=$(CURDIR)/bin/$(a)/numalane-$$c)); \
	done

.PHONY: demo
demo: binaries ## show the problem and the cure on a real Kubernetes (needs root); KEEP=1 leaves it running
	$(E2E) .cache/bin/demo $(if $(filter-out 0,$(KEEP)),--keep)

.PHONY: storm
storm: binaries ## MINUTES (10) of load and kills on NODES (20) real kubelets (needs root); SEED=n repeats one, EXTENDER=0 goes without us
	$(E2E) .cache/bin/storm --minutes $(MINUTES) --nodes $(NODES) $(if $(SEED),--seed $(SEED)) $(if $(filter 0,$(EXTENDER)),--extender=false)

.PHONY: test
test: KUBELETS := $(NEWEST)
test: test-unit test-lane test-oracle test-kubelets test-storm ## prove it: unit tests, fuzz seeds, the lane on real parts, oracle and rules on the newest kubelet, a short storm

.PHONY: test-unit
test-unit: ## unit tests and fuzz seeds of both modules
	echo "unit tests and fuzz seeds: some minutes to compile the first time"
	go test ./...
	$(E2E) go test ./demo/... ./storm/...
	cd hack/lab && go test ./...

.PHONY: test-race
test-race: ## unit tests with the race detector (product module only; needs a C compiler)
	set -- $$(go env CC); command -v "$$1" >/dev/null || { \
	  echo "the race detector needs cgo, and there is no $$1: apt-get install gcc (make test-unit runs the same tests without it)" >&2; exit 1; }
	echo "unit tests with the race detector: some minutes to compile the first time"
	CGO_ENABLED=1 go test -race ./...

.PHONY: test-lane
test-lane: binaries ## real control plane, real kubelets, our real binaries (needs root)
	[ -x /usr/lib/cni/host-device ] || { echo "installing the CNI plugins: containernetworking-plugins"; apt-get -qq update; apt-get -qq install -y containernetworking-plugins >/dev/null; }
	echo "the lane, on real parts"
	$(E2E) go test -count=1 -v -p 1 -timeout 20m ./cluster .

.PHONY: test-oracle
test-oracle: ## a few thousand random admissions by the real managers of the newest kubelet, all foretold
	$(E2E) go run ./cmd/build -kubelets $(NEWEST)
	echo "the oracle, on kubelet $(NEWEST)"
	$(E2E) cd $(KUBELET) && go test -count=1 ./...
	$(E2E) go test -count=1 -v -timeout 10m ./oracle

.PHONY: test-kubelets
test-kubelets: ## the rules that a device plugin has to keep, on the real device managers of KUBELETS (all four)
	$(E2E) go run ./cmd/build -kubelets "$(KUBELETS)"
	echo "the rules of registration, on kubelets $(KUBELETS)"
	$(E2E) KUBELETS="$(KUBELETS)" go test -count=1 -v -timeout 20m ./registration

.PHONY: test-arches
test-arches: arches ## run both binaries of each of ARCHES, under qemu-user where need be
	for a in $(ARCHES); do case $$a in \
	  $$(go env GOARCH)) ;; \
	  *) command -v qemu-aarch64 >/dev/null || { echo "installing qemu-user"; apt-get -qq update; apt-get -qq install -y qemu-user >/dev/null; }; break;; \
	esac; done
	echo "the binaries of $(ARCHES)"
	cd hack/image && go test ./...
	$(E2E) go test -count=1 -v ./arches -bin $(CURDIR)/bin -arches "$(ARCHES)"

.PHONY: test-storm
test-storm: binaries ## a storm of two minutes (needs root)
	echo "a storm of two minutes"
	$(E2E) .cache/bin/storm --minutes 2 --nodes $(NODES)

.PHONY: oracle
oracle: ## CASES (100000) random admissions by the real managers of KUBELETS (all four), all foretold; SEED=n repeats, RESUME=1 goes on
	$(E2E) go run ./cmd/build -kubelets "$(KUBELETS)"
	$(E2E) .cache/bin/oracle --cases $(CASES) --kubelets $(subst $(space),$(comma),$(strip $(KUBELETS))) $(if $(SEED),--seed $(SEED)) $(if $(filter-out 0,$(RESUME)),--resume)

.PHONY: e2e-vm
e2e-vm: $(LAB) ## the plugin as a DaemonSet on a real kernel with VFs on two NUMA nodes, in a virtual machine (needs root)
	echo "the guest's disk is made beside the binaries, and tells of it in .cache/lab/build.log"
	$(LAB) -cache .cache/lab build >.cache/lab/build.log 2>&1 & trap "kill $$! 2>/dev/null || :" EXIT; \
	$(MAKE) binaries images ARCHES=amd64 OWN="vm vmguest numalane-plugin numalane-extender"; \
	wait $$! || { cat .cache/lab/build.log; exit 1; }
	cd hack/image && go run . -name numalane.test/vmguest:1 -out $(CURDIR)/bin/vmguest.tar amd64=$(CURDIR)/e2e/.cache/bin/vmguest
	$(E2E) .cache/bin/vm

.PHONY: lab
lab: $(LAB) ## a shell in a virtual machine with SR-IOV and two NUMA nodes (installs QEMU 8 or newer and mmdebstrap: root)
	$(LAB) -cache .cache/lab shell

.PHONY: $(LAB)
$(LAB):
	cd hack/lab && go build -o $(CURDIR)/$(LAB) .

.PHONY: tables
tables: ## record the kubelet's own tests anew for the allocator's (when e2e/ moves to another Kubernetes)
	echo "running the kubelet's own tests with a recorder in between: some minutes, and more the first time"
	$(E2E) go run ./tables/record -to ../pkg/allocator/testdata/kubelet

.PHONY: binaries
binaries: ## build Kubernetes and our binaries for the lane into e2e/.cache/bin
	$(E2E) go run ./cmd/build $(OWN)

.PHONY: fuzz
fuzz: ## run every fuzz target of PKG (./...) for FUZZTIME (20s)
	echo "looking for fuzz targets in $(PKG); what they cover is compiled anew, some minutes the first time"
	tests=$$(go test -list '^Fuzz' $(PKG)); \
	targets=$$(awk '/^Fuzz/ {name[++n] = $$1} /^ok/ {for (i = 1; i <= n; i++) print $$2, name[i]; n = 0}' <<<"$$tests"); \
	[ -n "$$targets" ] || { echo "no fuzz target in $(PKG)" >&2; exit 1; }; \
	while read -r pkg target; do \
	  echo "fuzzing $$pkg $$target for $(FUZZTIME)"; \
	  go test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) "$$pkg" </dev/null; \
	done <<<"$$targets"

.PHONY: bench
bench: ## run the benchmarks BENCH (all) of PKG (./...)
	echo "benchmarks"
	go test -run '^$$' -bench '$(BENCH)' -benchmem $(PKG)

.PHONY: lint
lint: tools ## golangci-lint on the product, e2e/, hack/ and the newest kubelet
	echo "golangci-lint: the product"
	$(TOOLS)/golangci-lint run ./...
	echo "golangci-lint: e2e/"
	$(E2E) ../$(TOOLS)/golangci-lint run ./...
	for m in hack/image hack/lab; do echo "golangci-lint: $$m/"; (cd $$m && ../../$(TOOLS)/golangci-lint run ./...); done
	echo "golangci-lint: e2e/kubelets/, with the newest kubelet"
	$(E2E) cd kubelets/wire && ../../../$(TOOLS)/golangci-lint run ./...
	$(E2E) cd $(KUBELET) && ../../../$(TOOLS)/golangci-lint run ./... && go vet github.com/numalane/numalane/e2e/kubelets/managers/...

.PHONY: fmt
fmt: tools ## format with gofumpt
	git ls-files -z --cached --others --exclude-standard --deduplicate '*.go' | xargs -0 $(TOOLS)/gofumpt -w

.PHONY: verify
verify: ## every go.mod is tidy, and go vet finds nothing
	for m in . e2e e2e/kubelets/*/ hack/image hack/lab; do echo "go mod tidy changes nothing: $$m"; (cd "$$m" && go mod tidy -diff); done
	echo "go vet"
	go vet ./...

.PHONY: tools
tools: $(TOOLS)/.complete ## build the pinned tools of hack/tools

$(TOOLS)/.complete:
	echo "building the tools of hack/tools: two or three minutes the first time"
	rm -rf .cache/tools
	mkdir -p $(TOOLS)
	cd hack/tools && GOBIN="$(CURDIR)/$(TOOLS)" go install tool
	touch $@

.PHONY: clean
clean: ## remove what was built, the lane's Kubernetes and the tools too
	rm -rf bin .cache e2e/.cache
