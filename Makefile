# Everything that a person or the CI runs. `make help` lists it.

SHELL := /bin/sh
LAB := target/lab
TOOLS := $(LAB)/tools
ARCH ?= aarch64
KERNEL ?= $(LAB)/kernel-arm64
SCENE ?=

.DEFAULT_GOAL := help
.PHONY: help demo scenes test setup setup-quick fmt clippy check-rings deny unit size fuzz-short power power-all vm bench bench-pull initramfs oelint

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s%s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "  demo takes SCENE=name and INTERACTIVE=1; initramfs takes ARCH=x86_64 KERNEL=DIR."
	@echo "  On a slow machine, BOOTWARD_LAB_PATIENCE=3 multiplies every time limit of the VM tests."

demo: setup-quick ## tour the scenes in QEMU, with the serial console shown live
	@cargo run --quiet --example demo -- $(if $(INTERACTIVE),--interactive) $(SCENE)

scenes: ## list the scenes of the demo
	@cargo run --quiet --example demo -- --list

test: setup fmt clippy check-rings deny oelint unit size fuzz-short power vm ## set up and run every test
	@echo "make test: all passed"

setup: ## install what the tests need, download kernels and a Debian root
	@tests/vm/setup

setup-quick:
	@tests/vm/setup quick

fmt: ## formatting
	cargo fmt --check

clippy: ## lints of all targets, both feature sets
	cargo clippy --quiet --all-targets --features builder,minreq -- -D warnings
	cargo clippy --quiet --lib --bin bootward --no-default-features -- -D warnings
	cargo clippy --quiet --lib --bin bootward --test gpg --features gpg -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --quiet --no-deps --lib

check-rings: ## the inner rings build without an operating system
	cargo check --quiet --lib --no-default-features --target x86_64-unknown-none
	cargo check --quiet --lib --no-default-features --features recovery --target x86_64-unknown-none

deny: $(TOOLS)/bin/cargo-deny ## licences, sources, duplicates and advisories of the dependencies
	tests/deny $<

$(TOOLS)/bin/cargo-deny:
	cargo install --quiet --locked --root $(TOOLS) cargo-deny

oelint: ## the Yocto layer, by oelint-adv
	@yocto/lint

unit: ## unit, integration and simulation tests
	cargo test --features builder,minreq --lib --bins --test it --test sim
	cargo test --features gpg --test gpg

size: ## both feature sets, both architectures, against tests/size-budget
	@tests/size

fuzz-short: ## a short run of every fuzz target
	@BOOTWARD_FUZZ_SEED=1 tests/fuzz/run

power: ## power cuts: a whole update, part of the rest: reorderings, tears, boots cut again, failing calls
	cargo test --test power

power-all: ## power cuts: every update in every state, boots cut again everywhere, failing calls; a night
	cargo test --test power -- --class all all
	cargo test --test power -- --kept --every 60 --again 1 one-first two-first one-update two-update
	cargo test --test power -- --kept --every 30 --again 1 two-confirm one-changes two-upgrade one-deploy
	cargo test --test power -- --kept --faults all two-env two-repair two-repair-kernel two-rollback two-undeploy \
		two-floor two-confirm two-changes
	cargo test --test power -- --kept --every 50 --faults all two-upgrade one-deploy

vm: ## the scenes and a full Debian, in QEMU
	cargo test --test vm -- --test-threads=2 --nocapture

bench: ## what preparing a root costs, against ostree-prepare-root and a shell
	cargo bench --bench prepare

bench-pull: ## what pulling and deploying costs, against libostree; as root, on a quiet machine an hour
	cargo bench --bench pull

initramfs: ## target/lab/bootward-ARCH.img, for ARCH and KERNEL (an unpacked kernel package)
	initramfs/build $(ARCH) $(KERNEL) $(LAB)/bootward-$(ARCH).img --module virtio_pci --module virtio_blk \
		--module ext4 --compress gzip
	@ls -l $(LAB)/bootward-$(ARCH).img
