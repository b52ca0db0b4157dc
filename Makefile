# The two that matter: `make demo` and `make test`. `make help` lists all.

SHELL := /usr/bin/env bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

GO ?= go
VERSION ?= $(shell git describe --tags --always --dirty --abbrev=12 2>/dev/null || echo devel)

# How long each fuzz target runs in `make fuzz`.
FUZZTIME ?= 30s
# The suites of real components may take this long together.
INTEGRATION_TIMEOUT ?= 40m

BIN := bin
TOOLS := $(BIN)/tools

# grpcnotrace keeps golang.org/x/net/trace, and with it html/template and dead code
# that the linker then cannot drop, out of the binaries.
PRODUCT := CGO_ENABLED=0 $(GO) build -trimpath -tags grpcnotrace -ldflags '-s -w -X github.com/horkos/horkos/version.version=$(VERSION)'

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## bin/horkos and bin/horkos-node, static
	@mkdir -p $(BIN)
	$(PRODUCT) -o $(BIN)/ ./cmd/...

# Not stamped with the checkout or the builder's machine: equal sources give equal bytes.
image_programs = GOOS=linux GOARCH=$(1) GOAMD64=v1 GOARM64=v8.0 $(PRODUCT) -buildvcs=false -o $(BIN)/image-programs/$(1)/ ./cmd/horkos ./cmd/horkos-node

.PHONY: image
image: ## the image of both programs, into bin/image (OCI layout; amd64 and arm64; reproducible)
	@mkdir -p $(BIN)/image-programs/amd64 $(BIN)/image-programs/arm64
	$(call image_programs,amd64)
	$(call image_programs,arm64)
	@$(GO) run ./daemonset/image -programs $(BIN)/image-programs -out $(BIN)/image -version $(VERSION) \
		-revision "$$(git rev-parse HEAD 2>/dev/null || true)" \
		-time "$${SOURCE_DATE_EPOCH:-$$(git log -1 --format=%ct 2>/dev/null || echo 0)}"

# The real components. A family is built when its pins are newer than its binaries.
.PHONY: tools
tools: $(TOOLS)/pause $(TOOLS)/runtime $(TOOLS)/containerd $(TOOLS)/runc $(TOOLS)/containerd-2.2/containerd $(TOOLS)/kubelet $(TOOLS)/etcd $(TOOLS)/cni/bridge $(TOOLS)/staticcheck $(TOOLS)/nrihost-0.12.5 $(TOOLS)/nrihost-0.12.3 ## containerd, runc, Kubernetes, etcd and the linter, into bin/tools (minutes, once)

pins = integration/tools/$(1)/go.mod integration/tools/$(1)/go.sum

$(TOOLS)/containerd: $(call pins,containerd)
	@integration/tools/build containerd $(TOOLS)
	@touch $@

$(TOOLS)/containerd-2.2/containerd: $(call pins,containerd-2.2)
	@integration/tools/build containerd-2.2 $(TOOLS)/containerd-2.2
	@touch $@

# runc needs a C compiler.
$(TOOLS)/runc: $(call pins,runc)
	@CGO_ENABLED=1 integration/tools/build runc $(TOOLS)
	@touch $@

# Clients parse the version, and k8s.io/kubernetes does not know its own.
kube_version = $(shell awk '$$2 == "k8s.io/kubernetes" { print $$3 }' integration/tools/kubernetes/go.mod)
version_package := k8s.io/component-base/version
kube_ldflags = -X $(version_package).gitVersion=$(kube_version) -X $(version_package).gitMajor=1 -X $(version_package).gitMinor=$(word 2,$(subst ., ,$(kube_version)))

# All five in one build, which compiles what they share once.
$(TOOLS)/kubelet: $(call pins,kubernetes)
	@integration/tools/build kubernetes $(TOOLS) '$(kube_ldflags)'
	@touch $@

$(TOOLS)/etcd: $(call pins,etcd) integration/tools/etcd/main.go
	@CGO_ENABLED=0 integration/tools/build etcd $(TOOLS)
	@touch $@

$(TOOLS)/cni/bridge: $(call pins,cni)
	@CGO_ENABLED=0 integration/tools/build cni $(TOOLS)/cni
	@touch $@

$(TOOLS)/staticcheck: $(call pins,lint)
	@integration/tools/build lint $(TOOLS)
	@touch $@

$(TOOLS)/controller-gen: $(call pins,controller-gen)
	@integration/tools/build controller-gen $(TOOLS)
	@touch $@

# One program over two releases of NRI's own package: what runtimes are built of.
nrihost_sources := $(addprefix integration/tools/nri/,main.go go.mod go.sum go-0.12.3.mod go-0.12.3.sum)

$(TOOLS)/nrihost-0.12.5: $(nrihost_sources)
	@mkdir -p $(TOOLS)
	@cd integration/tools/nri && CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w' -o $(CURDIR)/$@ .
	@touch $@

$(TOOLS)/nrihost-0.12.3: $(nrihost_sources)
	@mkdir -p $(TOOLS)
	@cd integration/tools/nri && CGO_ENABLED=0 $(GO) build -trimpath -modfile=go-0.12.3.mod -ldflags '-s -w' -o $(CURDIR)/$@ .
	@touch $@

# What the harness adds: the program in its images, and runc's stand-in.
$(TOOLS)/pause $(TOOLS)/runtime: $(TOOLS)/%: integration/harness/%/main.go
	@mkdir -p $(TOOLS)
	@CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w' -o $@ ./$(<D)
	@touch $@

# exec, so that Ctrl-C reaches the demo and make waits for it to clean up.
.PHONY: demo
demo: build $(TOOLS)/pause $(TOOLS)/runtime $(TOOLS)/containerd $(TOOLS)/runc ## a node that refuses, on a real containerd: a short story (root)
	@$(GO) build -trimpath -o $(BIN)/demo ./integration/demo
	@exec $(BIN)/demo

.PHONY: cluster
cluster: build image $(addprefix $(TOOLS)/,pause runtime containerd runc kubelet etcd cni/bridge) ## a cluster of one node with Horkos in it, to try: says what to type, stays until Ctrl-C (root)
	@$(GO) build -trimpath -o $(BIN)/cluster ./integration/cluster
	@exec $(BIN)/cluster

.PHONY: test
test: lint unit integration ## everything below

crd_manifests = $(TOOLS)/controller-gen crd paths=./crds/schema/... output:crd:dir=$(1)

.PHONY: generate
generate: $(TOOLS)/controller-gen ## the manifests of the CRDs, from the types in crds
	@rm -f crds/manifests/*_*.yaml
	$(call crd_manifests,crds/manifests)

.PHONY: generated
generated: $(TOOLS)/controller-gen
	@dir=$$(mktemp -d); trap 'rm -rf "$$dir"' EXIT; $(call crd_manifests,"$$dir"); \
	diff -ru --exclude=kustomization.yaml crds/manifests "$$dir" || { echo "crds/manifests are not those of the types: run make generate, and keep what it writes"; exit 1; }

.PHONY: lint
lint: $(TOOLS)/staticcheck generated ## gofmt, go vet, staticcheck, generated files
	@unformatted=$$(gofmt -l .); \
	if [ -n "$$unformatted" ]; then echo "not formatted by gofmt:"; echo "$$unformatted"; exit 1; fi
	$(GO) vet ./...
	$(TOOLS)/staticcheck ./...

.PHONY: unit
unit: ## unit tests with the race detector, fuzz seeds among them
	$(GO) test -race -timeout 10m $$($(GO) list ./... | grep -v -e '/integration/' -e '/verifier$$')
	$(GO) test -timeout 10m ./verifier # deciding has no goroutine, and its product of worlds takes minutes under the race detector

# Minimising an input takes a minute by default, in which nothing else is tried.
.PHONY: fuzz
fuzz: ## each fuzz target for FUZZTIME (30s)
	@$(GO) list -f '{{.Dir}}' ./... | while read -r dir; do \
		for target in $$(cat "$$dir"/*_test.go 2>/dev/null | sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p'); do \
			echo "fuzz: $$dir $$target"; \
			$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x "$$dir"; \
		done; \
	done

# Fixed names over fixed data: what docs/performance.md holds against its limits.
.PHONY: bench
bench: ## what deciding, compiling, verifying and being asked cost (docs/performance.md)
	$(GO) test -run '^$$' -bench 'Decide|Compile' -benchmem ./verifier
	$(GO) test -run '^$$' -bench 'Cold|Verify' -benchmem ./verifier/attestation
	$(GO) test -v -count=1 -run 'ACreateCosts|TheCallback' ./plugin/containerd

.PHONY: scale
scale: $(addprefix $(TOOLS)/,pause runtime containerd runc kubelet etcd cni/bridge) ## what a node and 1,000 nodes cost the API server (docs/performance.md; root, 10 minutes)
	@$(GO) build -trimpath -o $(BIN)/bench ./integration/bench
	@exec $(BIN)/bench

# One package after the other (they measure time), and never from the cache (the
# binaries they run are not seen by go test).
.PHONY: integration
integration: build image tools ## the suites on real components (root; see CONTRIBUTING)
	$(GO) test -v -count=1 -p 1 -timeout $(INTEGRATION_TIMEOUT) ./integration/...

.PHONY: clean
clean: ## remove what was built
	rm -rf $(BIN)
