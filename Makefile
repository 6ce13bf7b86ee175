# Two commands on a fresh machine: `make demo` and `make test`. Stamps of finished steps lie in .venv, so that removing
# it starts over; weights are kept under ~/.cache/dhmd and shared between clones. Each lock holds what it adds: a live
# run needs requirements.lock and torch, the extras requirements-extras.lock besides, tests and checks all three.

PYTHON ?= python3

# Images often forbid bytecode: each program would compile torch and all else it imports anew, for longer than it runs.
unexport PYTHONDONTWRITEBYTECODE

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

BIN := .venv/bin
CREATED := .venv/created
LOCKED := .venv/locked
INSTALLED := .venv/installed
EXTRAS := .venv/extras
DEV := .venv/dev

TORCH := $(shell grep -o '^torch==[^ ]*' requirements-torch.lock)

# What the tests use of the system: sound without hardware, a broker, test media.
TEST_PACKAGES := libportaudio2 pulseaudio pulseaudio-utils libasound2-plugins mosquitto mosquitto-clients ffmpeg \
	espeak-ng strace iproute2 chromium libfaketime

# $(call apt_install,PACKAGES): installs them where root and apt exist, otherwise fails.
apt_install = [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null \
	&& echo "installing $(1)" && apt-get update -qq \
	&& DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(1) >/dev/null

# $(call progress,TOTAL): pip's output as one growing line on a terminal, as nothing elsewhere.
progress = if [ -t 1 ]; then awk -v total="$(1)" ' \
	/^(Collecting|Requirement already satisfied)/ { name = $$2; sub(/[:=].*/, "", name); \
		printf "\r\033[K  %d of %d  %s", ++n, total, name; fflush() } \
	/^Installing collected/ { printf "\r\033[K  fetched; unpacking"; fflush() } END { printf "\r\033[K" }'; \
	else cat >/dev/null; fi

# $(call install_lock,FILE): installs what a lock holds, and nothing besides. Python compiles what it imports; of all the
# rest that would be 185 MB, and a quarter of the time.
install_lock = total=$$(grep -c '^[a-z].*==' $(1)); echo "installing $$total packages of $(1) into .venv"; \
	$(BIN)/python -m pip install --no-deps --no-compile --require-hashes --progress-bar off -r $(1) | $(call progress,$$total)

.PHONY: help
help:  ## list the targets
	@sed -nE 's/^([a-z]+):.*  ## (.*)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 14

.PHONY: setup
setup: $(INSTALLED)  ## environment in .venv with dhmd-live, and the weights
	@$(BIN)/dhmd-live assets fetch >/dev/null

.PHONY: extras
extras: setup $(EXTRAS)  ## what dhmd-train, pictures and tables of sessions, LSL and OSC need besides

.PHONY: demo
demo: setup  ## play the demo clip through the whole pipeline
	@$(BIN)/dhmd-live demo

.PHONY: test
test: setup system $(DEV)  ## run the tests
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests -n 3 --dist loadfile

.PHONY: soak
soak: setup system $(DEV)  ## hours, restarts, kills, attacks and fuzzing; DHMD_SOAK_S=600 for minutes of each
	@DHMD_KILLS=200 $(BIN)/python -m pytest -s tests/realtime/session/test_killed.py
	@DHMD_FUZZ_S=60 $(BIN)/python -m pytest tests/test_fuzzed.py tests/realtime/session/test_fuzzed.py
	@DHMD_SOAK_S=$${DHMD_SOAK_S:-28800} $(BIN)/python -m pytest -s tests/realtime/soak

.PHONY: lint
lint: $(DEV)  ## style, types and the direction of imports
	@failed=0; \
	$(BIN)/ruff check . || failed=1; \
	$(BIN)/ruff format --check . || failed=1; \
	for platform in linux win32 darwin; do \
		$(BIN)/mypy --platform $$platform --cache-dir .mypy_cache/$$platform || failed=1; \
	done; \
	$(BIN)/lint-imports || failed=1; \
	exit $$failed

.PHONY: bench
bench: setup $(EXTRAS)  ## measure rate, latency and memory on this machine, and a training step
	@$(BIN)/dhmd-live bench
	@$(BIN)/dhmd-train bench

.PHONY: accuracy
accuracy: setup system $(EXTRAS)  ## read clips of talkers: how steady and how robust the label is (minutes)
	@$(BIN)/dhmd-live accuracy ../shared/clips --into docs/accuracy.md

.PHONY: people
people: setup $(EXTRAS)  ## put clips of talkers side by side: who is found to speak (minutes)
	@$(BIN)/python docs/people_tables.py ../shared/clips

.PHONY: image
image: setup  ## carry out deploy/Dockerfile in a root made by debootstrap, and run what it makes (as root; minutes)
	@command -v debootstrap mosquitto >/dev/null || { $(call apt_install,debootstrap mosquitto); }
	@$(BIN)/python tests/image.py $(foreach arg,$(BUILD_ARGS),--arg $(arg))

.PHONY: clip
clip: setup $(DEV)  ## make the demo clip again (needs Debian's espeak-ng)
	@$(BIN)/python realtime/demo/make_clip.py

# Pins stay where they are unless pyproject.toml asks for something else; make lock RENEW=1 renews all. All is
# resolved at once, so that the locks agree, and each package goes to the first lock whose part of the program needs it.
# torch stands in a file of its own, with the hashes of the builds that are known: the index serves each machine the
# one that fits it. What a build asks for besides, such as CUDA's libraries, torch itself pins by version.
LOCKS := requirements.lock requirements-extras.lock requirements-dev.lock

# $(call compile,OPTIONS,FILE): resolves pyproject.toml into FILE.
compile = CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/python -m piptools compile --quiet --allow-unsafe --strip-extras \
	--no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-emit-options $(1) --output-file $(2) pyproject.toml

.PHONY: lock
lock: $(DEV)  ## resolve pyproject.toml again and write the locks
	@cat $(if $(RENEW),,$(LOCKS)) /dev/null > .venv/all.txt
	@echo "$(TORCH)" > .venv/pins.txt
	@$(call compile,--all-extras --generate-hashes --constraint .venv/pins.txt,.venv/all.txt)
	@sed -nE 's/^([a-z0-9][^ ]*).*/\1/p' .venv/all.txt > .venv/pins.txt
	@$(call compile,--constraint .venv/pins.txt,.venv/live.txt)
	@$(call compile,--constraint .venv/pins.txt --extra export --extra lsl --extra osc --extra train,.venv/extras.txt)
	@awk -v locks="$(LOCKS)" 'BEGIN { split(locks, lock) } FNR == 1 { ++rank } { name = $$0; sub(/=.*/, "", name) } \
		/^[a-z0-9]/ { if (!(name in home)) home[name] = lock[rank]; to = name == "torch" ? "/dev/null" : home[name] } \
		rank == 3 && /^#/ { for (one in lock) print > lock[one] } rank == 3 && !/^#/ { print > to }' \
		.venv/live.txt .venv/extras.txt .venv/all.txt

.PHONY: clean
clean:  ## remove the environment and what the tools left (the weights stay)
	@rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	@find . -name __pycache__ -prune -exec rm -rf {} +

$(CREATED):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "error: '$(PYTHON)' is $$($(PYTHON) --version 2>&1 || true), and Python 3.11 or newer is needed;" \
			"install it, or name it: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "error: this Python has no venv module; install it (Debian: apt-get install python3-venv)" >&2; exit 1; }
	@$(PYTHON) -m venv .venv
	@touch $@

$(LOCKED): requirements.lock requirements-torch.lock | $(CREATED)
	@$(call install_lock,requirements.lock)
	@echo "installing $(TORCH)"
	@rm -rf .venv/torch; $(BIN)/python -m pip download $$([ -t 1 ] || echo --quiet) --no-deps --dest .venv/torch "$(TORCH)"
	@hash=$$($(BIN)/python -m pip hash .venv/torch/*.whl | tail -n 1); grep -qF -- "$$hash" requirements-torch.lock || { \
		echo "error: $$(basename .venv/torch/*.whl) is no build of torch that requirements-torch.lock knows;" \
			"if you trust where it comes from, add $$hash" >&2; exit 1; }
	@$(BIN)/python -m pip install --no-compile $$([ -t 1 ] || echo --quiet) .venv/torch/*.whl
	@rm -rf .venv/torch .venv/lib/python*/site-packages/torch/test  # programs that test torch
	@touch $@

$(INSTALLED): pyproject.toml $(LOCKED)
	@PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

$(EXTRAS): requirements-extras.lock $(INSTALLED)
	@$(call install_lock,$<)
	@touch $@

$(DEV): requirements-dev.lock $(EXTRAS)
	@$(call install_lock,$<)
	@touch $@

.PHONY: system
system:
	@command -v dpkg-query >/dev/null || exit 0; \
	missing=(); \
	for package in $(TEST_PACKAGES); do \
		[ "$$(dpkg-query -W -f '$${db:Status-Status}' "$$package" 2>/dev/null)" = installed ] || missing+=("$$package"); \
	done; \
	[ $${#missing[@]} = 0 ] || { $(call apt_install,"$${missing[@]}"); } \
		|| echo "not installed: $${missing[*]}; tests that need them are skipped"
