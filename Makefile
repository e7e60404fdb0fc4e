# Every task of the tree is one target here; `make help` lists targets and variables.
# Called by people and by .ci/run. Recipes are short: the work is done by tools/run-smp, tools/setup and the crate host.

.DEFAULT_GOAL := help
SHELL := /bin/sh
MAKEFLAGS += --no-print-directory

# A user's RUSTFLAGS would replace the ones in .cargo/config.toml.
unexport RUSTFLAGS
unexport CARGO_ENCODED_RUSTFLAGS

NIGHTLY := nightly-2026-05-20
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
HOST := cargo run -q -p host --bin host --
# `make test V=1` prints a line for each test; .ci/run does.
QUIET := $(if $(V),,-q)
NONE := --target x86_64-unknown-none
MUSL := --target x86_64-unknown-linux-musl

# Variables that a user may give on the command line. A misspelt one is named, never ignored.
RUN_VARIABLES := SMP MEM PROFILE CMDLINE INITRD ROOT SHELL_PROGRAM ACCEL ICOUNT CPU LOADER FIRMWARE LIMINE_DIR TRACE TIMEOUT QEMU_ARGS
OTHER_VARIABLES := V CARGO_TARGET_DIR PROPTEST_CASES LOOM_MAX_PREEMPTIONS TESTS README SCALE HOURS LIMINE_DOWNLOAD LIMINE_URL LAYERS
given := $(foreach v,$(.VARIABLES),$(if $(filter command,$(firstword $(origin $v))),$v))
unknown := $(filter-out $(RUN_VARIABLES) $(OTHER_VARIABLES) MAKEFLAGS SHELL,$(given))
ifneq ($(strip $(unknown)),)
$(error unknown variable $(strip $(unknown)): `make help` lists the variables)
endif

only_one = $(if $(filter-out 1,$($1)),$(error $1=$($1): 1 or nothing))
$(call only_one,README)$(call only_one,SCALE)$(call only_one,V)$(call only_one,LIMINE_DOWNLOAD)
ifneq ($(shell echo '$(HOURS)' | tr -d 0-9),)
$(error HOURS=$(HOURS): not a whole number)
endif

.PHONY: help
help:
	@cat tools/help.txt

.PHONY: setup
setup:
	@tools/setup

.PHONY: run-smp
run-smp:
	@tools/run-smp

.PHONY: test
test: check test-host test-loom test-miri test-qemu test-debug bench

.PHONY: test-host
test-host:
	@cargo test $(QUIET) -p kcore -p host
	@cargo test $(QUIET) $(MUSL) -p guest

.PHONY: test-loom
test-loom:
	@RUSTFLAGS="--cfg loom" LOOM_MAX_PREEMPTIONS=$(or $(LOOM_MAX_PREEMPTIONS),2) CARGO_TARGET_DIR=$(TARGET_DIR)/loom \
		CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
		cargo test $(QUIET) -p kcore --release --test 'loom_*'

.PHONY: test-miri
test-miri:
	@MIRIFLAGS=-Zmiri-disable-isolation PROPTEST_CASES=$(or $(PROPTEST_CASES),4) CARGO_TARGET_DIR=$(TARGET_DIR)/miri \
		cargo +$(NIGHTLY) miri test $(QUIET) -p kcore --lib

.PHONY: test-qemu
test-qemu: build
	@cargo test $(QUIET) -p scenarios --no-fail-fast -- --test-threads=2 $(TESTS)

# The debug build checks lock order, arithmetic and every transition of the context word: a few scenarios run on it too.
.PHONY: test-debug
test-debug:
	@$(MAKE) build PROFILE=debug
	@PROFILE=debug cargo test $(QUIET) -p scenarios --no-fail-fast --test boot_smoke --test load --test tick_returns \
		--test apic_modes --test jobs --test system_calls --test fuzz --test lease -- --test-threads=2

# Debian's rt-tests, as they come in their package, on a machine with an isolated CPU: what each prints at its end.
.PHONY: rt-tests
rt-tests: build
	@cargo test -q -p scenarios --test debian_programs -- --nocapture rt_tests

.PHONY: build
build:
	@$(HOST) image --out $(TARGET_DIR)/image/quiesce.cpio --initrd-out $(TARGET_DIR)/image/initrd.cpio $(if $(filter debug,$(PROFILE)),--debug)

.PHONY: check
check:
	@cargo fmt --all --check
	@cargo clippy -q -p kcore -p host -p scenarios --all-targets -- -D warnings
	@cargo clippy -q $(NONE) -p kernel -p boot -p vdso -- -D warnings
	@cargo clippy -q $(MUSL) -p guest -- -D warnings
	@$(HOST) check-files
	@$(HOST) check-arrows
	@cargo build -q --release $(NONE) -p kernel -p boot
	@$(HOST) check-elf

.PHONY: bench
bench:
	@$(HOST) bench $(if $(filter 1,$(SCALE)),--scale)

.PHONY: compare
compare:
	@$(HOST) compare $(if $(filter 1,$(README)),--readme)

.PHONY: iso
iso:
	@$(HOST) iso

.PHONY: trace
trace:
	@$(HOST) trace demo

.PHONY: mutants
mutants:
	@$(HOST) mutants $(if $(LAYERS),--layers $(LAYERS))

# An NMI at each instruction of the entry paths, a second one at each instruction of the NMI's own entry, a #DB behind each access to memory.
.PHONY: inject
inject: build
	@QUIESCE_LONG=1 cargo test $(QUIET) -p scenarios --test nmi_injection -- --nocapture

# The long forms: more seconds of silence, storm and torture, grace periods at more sizes, more random system calls, a million NMIs, a root of
# 1 GiB.
.PHONY: test-long
test-long: test
	@QUIESCE_LONG=1 cargo test $(QUIET) -p scenarios --test quiet_cpu --test storm --test torture --test grace_periods \
		--test fuzz --test nmi_injection --test nmi_burst --test large_root -- --test-threads=2 --nocapture

# 10 million random system calls; then torture with a thread for each CPU: a fifth of the time for each kind.
.PHONY: soak
soak: build
	@FUZZ_CALLS=10000000 cargo test -p scenarios --test fuzz -- --nocapture
	@SOAK_SECONDS=$$(($(or $(HOURS),1) * 720)) cargo test -p scenarios --test torture -- --test-threads=1 --nocapture with_threads

