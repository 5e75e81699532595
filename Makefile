# Everything a person or CI does with this tree. `make help` lists it.
SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c

VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
COMMIT   ?= $(shell git rev-parse --short HEAD 2>/dev/null || echo unknown)
LDFLAGS  := -s -w -X main.version=$(VERSION) -X main.commit=$(COMMIT)
VERSIONS := 1.24.17,1.36.3

GOLANGCI_LINT  := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
CONTROLLER_GEN := sigs.k8s.io/controller-tools/cmd/controller-gen@v0.23.0

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

.PHONY: build
build: ## build bin/kedge, one static binary
	CGO_ENABLED=0 go build -trimpath -ldflags "$(LDFLAGS)" -o bin/kedge ./cmd/kedge

.PHONY: testbed
testbed: ## build the real servers that tests use into the user's cache (about 33 CPU minutes, once)
	go run ./test/testbed/run --versions $(VERSIONS) --s3 --node --csi --build-only

.PHONY: test
test: testbed ## run all tests, on real API servers and real S3
	go test -timeout 60m ./...
	cd test/helm && go test ./...
	cd test/alerts && go test ./...

.PHONY: soak
soak: testbed ## the long versions of the tests: hundreds of kills and damages, big clusters
	KEDGE_SOAK=1 go test -timeout 10h -count 1 ./...

.PHONY: demo
demo: testbed build ## the main job on two real clusters and S3: back up, verify, preview, restore
	go run ./test/demo --kedge bin/kedge

.PHONY: bench
bench: testbed build ## backup and restore beside their raw references, copies of volumes beside kopia's, the server beside 2,000 backups (OBJECTS=100000, VOLUMES=large or VOLUMES=million for large runs)
	go run ./test/bench --kedge bin/kedge --objects $${OBJECTS:-10000} --volumes $${VOLUMES:-small}

.PHONY: generate
generate: ## write the generated files: deep copies, CRDs, CLI reference
	go run $(CONTROLLER_GEN) object crd:maxDescLen=1000 paths=./api/... output:crd:dir=deploy/chart/kedge/files/crds
	go test ./cmd/kedge -run TestReference -update

.PHONY: drift
drift: generate ## fail where generated files are not what is committed
	git diff --exit-code -- api deploy docs/cli

.PHONY: lint
lint: ## run the linters
	go vet ./...
	go run $(GOLANGCI_LINT) run

.PHONY: image
image: ## build the container image (BASE=… for another base)
	docker build --build-arg VERSION=$(VERSION) --build-arg COMMIT=$(COMMIT) $(if $(BASE),--build-arg BASE=$(BASE)) -t kedge:$(VERSION) .
