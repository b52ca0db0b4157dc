# The two that matter: `make demo` and `make test`. `make help` lists all.

SHELL := /usr/bin/env bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

GO ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)

# How long each fuzz target runs in `make fuzz`.
FUZZTIME ?= 30s
# The suites of real components may take this long together.
INTEGRATION_TIMEOUT ?= 30m

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

# The real components. A family is built when its pins are newer than its binaries.
.PHONY: tools
tools: $(TOOLS)/pause $(TOOLS)/runtime $(TOOLS)/containerd $(TOOLS)/runc $(TOOLS)/containerd-2.2/containerd $(TOOLS)/kubelet $(TOOLS)/staticcheck $(TOOLS)/nrihost-0.12.5 $(TOOLS)/nrihost-0.12.3 ## containerd, runc, kubelet and the linter, into bin/tools (minutes, once)

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
kube_ldflags = -s -w -X $(version_package).gitVersion=$(kube_version) -X $(version_package).gitMajor=1 -X $(version_package).gitMinor=$(word 2,$(subst ., ,$(kube_version)))
# Not the whole family: the kubelet is needed by every suite, the rest by those of a cluster.
kube_build = mkdir -p $(TOOLS) && echo "tools: building $(1)" && cd integration/tools/kubernetes && \
	GOFLAGS= GOWORK=off $(GO) build -trimpath -ldflags '$(kube_ldflags)' -o $(CURDIR)/$(TOOLS)/ $(addprefix k8s.io/kubernetes/cmd/,$(1)) && \
	cd $(CURDIR)/$(TOOLS) && touch $(1) && echo "tools: $(1) built"

$(TOOLS)/kubelet: $(call pins,kubernetes)
	@$(call kube_build,kubelet)

# What a cluster has beside a node. Not among the tools yet: it takes minutes more.
.PHONY: cluster-tools
cluster-tools: tools $(TOOLS)/kube-apiserver $(TOOLS)/etcd $(TOOLS)/cni/bridge ## kube-apiserver and the rest of a cluster, into bin/tools (minutes, once)

control_plane := kube-apiserver kube-controller-manager kube-scheduler

$(TOOLS)/kube-apiserver: $(call pins,kubernetes)
	@$(call kube_build,$(control_plane))

$(TOOLS)/etcd: $(call pins,etcd) integration/tools/etcd/main.go
	@CGO_ENABLED=0 integration/tools/build etcd $(TOOLS)
	@touch $@

$(TOOLS)/cni/bridge: $(call pins,cni)
	@CGO_ENABLED=0 integration/tools/build cni $(TOOLS)/cni
	@touch $@

.PHONY: cluster-test
cluster-test: build cluster-tools ## the harness's tests of a whole cluster (root)
	$(GO) vet -tags cluster ./integration/harness
	HORKOS_INTEGRATION=required HORKOS_CLUSTER=required $(GO) test -tags cluster -race -v -count=1 -timeout 15m -run 'Cluster|ControlPlane' ./integration/harness

$(TOOLS)/staticcheck: $(call pins,lint)
	@integration/tools/build lint $(TOOLS)
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

.PHONY: test
test: lint unit integration ## everything below

.PHONY: lint
lint: $(TOOLS)/staticcheck ## gofmt, go vet, staticcheck
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

# One package after the other (they measure time), and never from the cache (the
# binaries they run are not seen by go test).
.PHONY: integration
integration: build tools ## the suites on real components (root; see CONTRIBUTING)
	$(GO) test -v -count=1 -p 1 -timeout $(INTEGRATION_TIMEOUT) ./integration/...

.PHONY: clean
clean: ## remove what was built
	rm -rf $(BIN)
