# One command a task. Needs git, make, a C compiler and Python >= 3.10 with venv and its C headers; the rest goes
# into .venv.

PYTHON ?= python3
CC ?= cc
CXX ?= c++
PYTEST_ARGS ?=
CTEST_ARGS ?=

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SUFFIXES:
MAKEFLAGS += --no-builtin-rules

VENV := .venv
BIN := $(VENV)/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_ROOT_USER_ACTION := ignore
unexport PYTHONPATH PYTHONHOME

PIP := $(BIN)/python -m pip --quiet
# The venv has what the build needs, so it is done there, in a build directory that is kept.
BUILD_WHEEL := --no-build-isolation --no-deps -C cmake.build-type=RelWithDebInfo

BUILD_INPUTS := CMakeLists.txt pyproject.toml $(wildcard README.md LICENSE) \
    $(shell find cmake csrc pysup -not -path '*/__pycache__*')

.PHONY: help
help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | while IFS='	' read -r name text; do \
	    printf '  make %-14s %s\n' "$$name" "$$text"; done

# --- Set-up ----------------------------------------------------------------------------------------------

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	    echo "pysup needs Python 3.10 or later; $(PYTHON) is $$($(PYTHON) --version 2>/dev/null || echo "not there"). Try: make PYTHON=python3.12" >&2; \
	    exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	    echo "$(PYTHON) cannot make virtual environments: its venv or ensurepip module is missing." >&2; \
	    echo "Install it (Debian, Ubuntu: apt install python3-venv) or name another: make PYTHON=python3.12" >&2; \
	    exit 1; }
	@$(PYTHON) -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' || { \
	    echo "The C headers of $(PYTHON) are missing (Debian, Ubuntu: apt install python3-dev)." >&2; exit 1; }
	@command -v $(firstword $(CC)) >/dev/null || { echo "No C compiler: $(CC) is not there." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) install 'pip>=25.1'
	touch $@

# CMake and Ninja from the machine where they are good enough.
$(VENV)/.tools: $(VENV)/.created pyproject.toml
	$(PIP) install --group build --group test
	@cmake --version 2>/dev/null | awk 'NR == 1 { split($$3, v, "."); exit !(v[1] > 3 || v[2] >= 20) } END { if (!NR) exit 1 }' \
	    || $(PIP) install cmake
	@command -v ninja >/dev/null || $(PIP) install ninja
	touch $@

$(VENV)/.lint: $(VENV)/.tools
	$(PIP) install --group lint
	touch $@

$(VENV)/.bench: $(VENV)/.tools
	$(PIP) install --group bench
	touch $@

build/wheel.stamp: $(VENV)/.tools $(BUILD_INPUTS)
	rm -rf build/wheel && mkdir -p build/wheel
	$(PIP) wheel $(BUILD_WHEEL) -C build-dir=build/python -w build/wheel .
	touch $@

$(VENV)/.installed: build/wheel.stamp
	$(PIP) install build/wheel/*.whl
	$(PIP) install --force-reinstall --no-deps build/wheel/*.whl
	touch $@

.PHONY: install wheel
install: $(VENV)/.installed ## build pysup and install it in .venv
wheel: build/wheel.stamp ## build the wheel, in build/wheel

# --- Tasks -----------------------------------------------------------------------------------------------

.PHONY: demo
demo: install ## a short tour: run, freeze, meter, thaw, kill
	$(BIN)/pysup demo

.PHONY: test test-c test-python
test: test-c test-python ## all tests

configure = cmake -S . -B build/$(1) -G Ninja -DCMAKE_C_COMPILER=$(firstword $(CC)) -DPSUP_TESTS=ON $(2) >build/$(1).log \
    || { cat build/$(1).log; exit 1; }

# usage: $(call run_ctest,DIR[,WRAPPER]); then the tests skipped within the programs, and why
define run_ctest
$(2) ctest --test-dir build/$(1) --output-on-failure $(CTEST_ARGS)
@sed -n 's/^ *skipped: /skipped: /p' build/$(1)/Testing/Temporary/LastTest.log | sort | uniq -c
endef

test-c: $(VENV)/.tools ## the C tests
	@mkdir -p build
	@$(call configure,c)
	cmake --build build/c
	$(call run_ctest,c)

test-python: install ## the Python tests
	$(BIN)/pytest $(PYTEST_ARGS)

.PHONY: lint
C_FILES = $(shell find csrc tests benchmarks -name '*.[ch]' -o -name '*.cc' 2>/dev/null)
lint: install $(VENV)/.lint ## formatting, types, and all C at the full warning level
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy pysup
	$(BIN)/clang-format --dry-run -Werror $(C_FILES)
	echo '#include "pysup.h"' | $(CC) -std=c11 -pedantic-errors -Wall -Wextra -Werror -Icsrc/include -fsyntax-only -x c -
	@if command -v $(firstword $(CXX)) >/dev/null; then \
	    echo "the header as C++11"; \
	    echo '#include "pysup.h"' | $(CXX) -std=c++11 -pedantic-errors -Wall -Wextra -Werror -Icsrc/include -fsyntax-only -x c++ -; \
	else echo "the header as C++: skipped, no C++ compiler"; fi
	@mkdir -p build
	@$(call configure,lint,-DPSUP_WERROR=ON)
	cmake --build build/lint

.PHONY: format
format: $(VENV)/.lint ## put Python and C into the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(C_FILES)

.PHONY: sanitize sanitize-address sanitize-thread sanitize-python
sanitize: sanitize-address sanitize-thread sanitize-python ## all tests under ASan and UBSan, the C tests under TSan too

UBSAN := print_stacktrace=1:halt_on_error=1

sanitize-address: $(VENV)/.tools
	@mkdir -p build
	@$(call configure,asan,-DPSUP_SANITIZE=address$(comma)undefined)
	cmake --build build/asan
	$(call run_ctest,asan,ASAN_OPTIONS=detect_leaks=1 UBSAN_OPTIONS=$(UBSAN))

# TSan's shadow memory does not suit every layout that address randomisation may choose.
SETARCH = $(shell setarch -R true 2>/dev/null && echo setarch -R)
sanitize-thread: $(VENV)/.tools
	@mkdir -p build
	@$(call configure,tsan,-DPSUP_SANITIZE=thread)
	cmake --build build/tsan
	$(call run_ctest,tsan,TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1 $(SETARCH))

# The instrumented package stands before the one in .venv, for as long as the environment says so.
# Programs that the tests start are preloaded too, and one that is to die of SIGSEGV must do so: handle_segv=0:handle_sigbus=0:handle_sigfpe=0.
sanitize-python: install
	rm -rf build/asan-site
	$(PIP) install $(BUILD_WHEEL) -C build-dir=build/asan-python -C cmake.define.PSUP_SANITIZE='address,undefined' \
	    --target build/asan-site .
	PYSUP_SANITIZED=1 PYTHONPATH="$(CURDIR)/build/asan-site" PYTHONMALLOC=malloc \
	    LD_PRELOAD=$$($(CC) -print-file-name=libasan.so) ASAN_OPTIONS=detect_leaks=0:handle_segv=0:handle_sigbus=0:handle_sigfpe=0 UBSAN_OPTIONS=$(UBSAN) \
	    $(BIN)/pytest -p no:cacheprovider -m kernel $(PYTEST_ARGS)

.PHONY: bench
bench: install $(VENV)/.bench ## the benchmarks, beside the bare C limit; ends with the table of ratios
	$(BIN)/pytest benchmarks -q -p no:cacheprovider --benchmark-sort=name --benchmark-columns=min,median,iqr,rounds \
	    $(PYTEST_ARGS)

.PHONY: test-vm
test-vm: install ## the kernel-facing tests in a virtual machine (needs QEMU and a kernel image)
	$(BIN)/python tests/vm/run --wheel "$$(ls build/wheel/libpysup-*.whl)" -- -m kernel --ignore-glob='*/test_input.py'

.PHONY: clean
clean: ## remove all that make has made
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

comma := ,
