# SPDX-License-Identifier: Apache-2.0

PREFIX ?= /usr/local
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
GO = $(shell scripts/find-go.sh)
LDFLAGS = -X github.com/dpclass/dpclass/internal/cli.version=$(VERSION)
LINT_VERSION = v2.15.0

.DEFAULT_GOAL := all
.NOTPARALLEL: # deps must finish before the targets that need them
.PHONY: all help deps deps-generate generate lint test test-kernels test-all fuzz demo lab lab-deps picture attach install uninstall train-deps learn evaluation paper clean check-go FORCE

all: bin/dpclass bin/libonnxruntime.so.1 ## build bin/dpclass, and put ONNX Runtime next to it

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-14s %s\n", $$1, $$2}' Makefile

deps: ## install what is needed to build, test and run the demo (apt packages, Go, ONNX Runtime); uses sudo if needed
	@scripts/deps.sh build demo
	@scripts/get-onnxruntime.sh

deps-generate: ## install clang and libbpf's headers (only make generate needs them)
	@scripts/deps.sh generate

generate: check-go ## rebuild labels and BPF objects from their sources, with the pinned clang
	$(GO) generate ./flow ./loader ./loader/owner

lint: check-go bin/golangci-lint ## check formatting; run go vet, golangci-lint, shellcheck, ruff
	@GO="$(GO)" scripts/lint.sh

test: deps all ## run all checks and tests; installs what they need; tests that need root are skipped without it
	@GO="$(GO)" scripts/test.sh

test-kernels: deps all ## boot Debian's kernels in QEMU, run the loader's tests and an attach with a policy in each: make test-kernels [KERNELS="5.10 6.1 6.12 sid"]
	@GO="$(GO)" scripts/kernels.sh $(KERNELS)

test-all: test ## run make test, then make test-kernels for Debian 12's kernel and the newest (an hour)
	@GO="$(GO)" scripts/kernels.sh 6.1 sid

fuzz: check-go ## run all fuzz targets: make fuzz [MINUTES=60], divided among them
	@GO="$(GO)" scripts/fuzz.sh --minutes=$(or $(MINUTES),60)

demo: deps all bin/dplab ## classify and police real traffic in network namespaces, then clean up
	@scripts/as-root.sh bin/dplab demo

lab: bin/dplab ## make labelled captures of real programs: make lab OUT=DIR [ARGS="--quick"]
	@test -n "$(OUT)" || { echo 'where to? make lab OUT=DIR' >&2; exit 2; }
	@scripts/as-root.sh bin/dplab traffic --out "$(OUT)" $(ARGS)

lab-deps: bin/dplab ## install the programs that make lab runs (Debian and Ubuntu); their services are not started
	@scripts/deps.sh demo lab

picture: all bin/dplab ## make the pictures of the README from a run of the demo
	@scripts/picture.sh

attach: all ## classify the flows of an interface: make attach IFACE=eth0 [ARGS="--policy FILE"]
	@test -n "$(IFACE)" || { echo 'IFACE is missing: make attach IFACE=eth0' >&2; exit 2; }
	@scripts/as-root.sh bin/dpclass attach $(IFACE) $(ARGS)

install: all ## install to PREFIX (default /usr/local), below DESTDIR if that is set
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/lib/dpclass $(DESTDIR)$(PREFIX)/share/dpclass/models \
		$(DESTDIR)$(PREFIX)/share/bash-completion/completions $(DESTDIR)$(PREFIX)/share/zsh/site-functions \
		$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d
	install -m 755 bin/dpclass $(DESTDIR)$(PREFIX)/bin/dpclass
	install -m 755 bin/libonnxruntime.so.1 $(DESTDIR)$(PREFIX)/lib/dpclass/
	install -m 644 models/paper/*.onnx models/paper/*.json $(DESTDIR)$(PREFIX)/share/dpclass/models/
	scripts/install-docs.sh $(DESTDIR)$(PREFIX)/share/doc/dpclass
	install -d $(DESTDIR)$(PREFIX)/lib/systemd/system
	sed 's|/usr/local|$(PREFIX)|' packaging/dpclass@.service > $(DESTDIR)$(PREFIX)/lib/systemd/system/dpclass@.service
	bin/dpclass completion bash > $(DESTDIR)$(PREFIX)/share/bash-completion/completions/dpclass
	bin/dpclass completion zsh > $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_dpclass
	bin/dpclass completion fish > $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/dpclass.fish

uninstall: ## remove what make install installed
	rm -rf $(DESTDIR)$(PREFIX)/lib/dpclass $(DESTDIR)$(PREFIX)/share/dpclass $(DESTDIR)$(PREFIX)/share/doc/dpclass
	rm -f $(DESTDIR)$(PREFIX)/bin/dpclass $(DESTDIR)$(PREFIX)/lib/systemd/system/dpclass@.service \
		$(DESTDIR)$(PREFIX)/share/bash-completion/completions/dpclass \
		$(DESTDIR)$(PREFIX)/share/zsh/site-functions/_dpclass \
		$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/dpclass.fish

train-deps: ## create the trainer's Python environment in .venv (6 GB, mostly PyTorch)
	@scripts/train-deps.sh

learn: bin/dpclass ## train a model on what dpclass record has captured: make learn RECORDED=DIR [NAME=mine] [ARGS="--epochs 20"]
	@test -n "$(RECORDED)" || { echo 'RECORDED is missing: make learn RECORDED=DIR (dpclass record makes one)' >&2; exit 2; }
	@scripts/learn.sh "$(RECORDED)" "$(or $(NAME),mine)" $(ARGS)

evaluation: bin/dpclass ## test the default network and dpclass (20 minutes, resumable): make evaluation DATA=dataset [CAPTURES=DIR, for names and nDPI] [WORK=evaluation] [ARGS=]
	@test -n "$(DATA)" || { echo 'which dataset? make evaluation DATA=DIR (dpclass dataset build makes one)' >&2; exit 2; }
	@scripts/train-deps.sh research
	scripts/dpresearch.sh --threads 2 evaluation --data "$(DATA)" --work "$(or $(WORK),evaluation)" --docs docs \
		$(if $(CAPTURES),--captures "$(CAPTURES)") $(ARGS)

paper: ## reproduce the paper (many hours, resumable): make paper DATA=dataset [WORK=evaluation] [CHECKSUMS=dataset-ck] [ARGS=]
	@test -n "$(DATA)" || { echo 'which dataset? make paper DATA=DIR (dpclass dataset build makes one)' >&2; exit 2; }
	@scripts/train-deps.sh research
	scripts/dpresearch.sh paper --data "$(DATA)" --work "$(or $(WORK),evaluation)" --docs docs \
		$(if $(CHECKSUMS),--checksums "$(CHECKSUMS)") $(ARGS)

clean: ## remove bin/ (but not .venv)
	chmod -R u+w bin 2>/dev/null || true
	rm -rf bin

check-go:
	@test -n "$(GO)" || { echo 'no Go that is new enough for go.mod: run make deps' >&2; exit 1; }

# FORCE, because go itself decides what to rebuild.
bin/dpclass: check-go FORCE
	@mkdir -p bin
	CGO_ENABLED=1 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $@ ./cmd/dpclass

bin/dplab: check-go FORCE
	@mkdir -p bin
	CGO_ENABLED=1 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $@ ./cmd/dplab

bin/libonnxruntime.so.1:
	@scripts/get-onnxruntime.sh

bin/golangci-lint: | check-go
	@mkdir -p bin
	@echo 'building golangci-lint $(LINT_VERSION) (takes two minutes, once)'
	@GOBIN=$(CURDIR)/bin GOFLAGS= $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(LINT_VERSION) || \
		echo '!!! SKIPPED: golangci-lint $(LINT_VERSION) could not be installed' >&2

FORCE:
