# Every target explains itself: `make help`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Named after what can be compiled, so that a compiler or headers that come later install again.
HEADER := $(shell $(PYTHON) -c 'import sysconfig; print(sysconfig.get_path("include"))' 2>/dev/null)/Python.h
STAMP := $(VENV)/.installed-$(if $(and $(shell command -v c++ g++ clang++),$(wildcard $(HEADER))),native,numpy)
# One more than there are cores: many tests wait for what runs in real time.
TESTERS ?= $(shell expr $$(nproc) + 1)

# Without its cache every process of the tests would compile all that it imports.
unexport PYTHONDONTWRITEBYTECODE
# A thread each: BLAS's own wait by spinning, which costs whoever runs beside them.
check test: export OMP_NUM_THREADS := 1
check test: export OPENBLAS_NUM_THREADS := 1

.DEFAULT_GOAL := help
.PHONY: help demo check test lint style sanitize aarch64 wheel clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# Python is compiled when it is first imported, which most of what is installed never is.
# `rt.native` is compiled, so C++ sources count; Python sources are used where they lie (editable).
$(STAMP): pyproject.toml constraints.txt CMakeLists.txt $(wildcard rt/native/*.cpp rt/native/*.h)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade -c constraints.txt pip
	PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip install --quiet --no-compile -e .
	rm -f $(VENV)/.installed*
	touch $@

$(VENV)/.installed-dev: $(STAMP)
	@# by name: it is there already, only what the extras need is missing
	$(BIN)/python -m pip install --quiet --no-compile -c constraints.txt \
	  'grasp-servo[train,calib,physics,ur,realsense,tensorrt-rtx,view,cluster,dev]'
	touch $@

demo: $(STAMP) ## Set up .venv and watch the simulated arm find a grasp
	$(BIN)/python -m rt.servo --rate 30

# Types while the tests run; each must pass.
define run_tests
$(BIN)/mypy > $(VENV)/mypy.log 2>&1 & types=$$!; \
  $(BIN)/python -m pytest -n $(TESTERS) --dist loadfile --no-loadscope-reorder $(1); tests=$$?; \
  wait $$types; types=$$?; cat $(VENV)/mypy.log; exit $$(( tests + types ))
endef

check: style ## Check style, types and the fast tests, for while you edit; under a minute on two cores
	@$(call run_tests,-m "not slow")

test: style ## Set up .venv with everything the tests need; check style, types and every test (minutes)
	@$(call run_tests)

lint: style ## Check style and types
	$(BIN)/mypy

style: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

sanitize: $(VENV)/.installed-dev ## Run the native kernels under ASan and UBSan, and the threaded ones under TSan (needs g++)
	tests/sanitize/run.sh address,undefined
	tests/sanitize/run.sh thread
	tests/sanitize/module.sh

aarch64: ## Cross-compile the native kernels for aarch64 and run them under qemu-user (skips without)
	tests/sanitize/aarch64.sh

wheel: ## Build the sdist, and from it a wheel for this Python, into dist/
	rm -rf build/wheel-venv dist
	$(PYTHON) -m venv build/wheel-venv
	build/wheel-venv/bin/python -m pip install --quiet -c constraints.txt build
	PIP_CONSTRAINT=constraints.txt build/wheel-venv/bin/python -m build

clean: ## Remove what this file made
	rm -rf $(VENV) build dist
