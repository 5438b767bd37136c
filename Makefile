# Two commands do everything on a fresh machine with python3 >= 3.10 and make: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Plain `torch` brings several GB of CUDA libraries on Linux; name another build here if you want one.
TORCH ?= torch==2.13.0

.PHONY: demo test quick check docs bench clean

demo: $(VENV)/base
	$(BIN)/engine deploy examples/digits/digits.onnx --target cpu --task examples/digits/digits.npz \
	    --preset quick --out digits-cpu
	$(BIN)/engine deploy examples/digits/digits.onnx --target jetson --task examples/digits/digits.npz \
	    --preset quick --out digits-jetson

# The tests of kernels and of the native runner need compilers of C and C++ and onnxruntime's C header, which no wheel
# has; without them they are skipped.
# Those on emulated boards (tests/hardware) run for root, and install QEMU and a cross compiler where they are missing.
# Two files run at a time: most wait more than they compute, and more than two would disturb those that measure. They
# run in the order given, the longest first, so that both workers end together. TVM compiles nothing more in a process
# in which all of tests/unit ran, so tests/kernels go before.
test: $(VENV)/dev
	@{ command -v gcc && command -v g++; } >/dev/null || [ "$$(id -u)" != 0 ] || \
	    { apt-get -q update && apt-get -q install -y gcc g++ libc6-dev; } || true
	$(BIN)/engine doctor --fix
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder tests/deploy tests/conformance tests/kernels tests/golden
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder tests/docs tests/whole_model tests/unit
	$(BIN)/python -m pytest tests/browser
	$(BIN)/python -m pytest -n 2 --dist loadgroup --no-loadscope-reorder tests/hardware

quick: $(VENV)/dev
	$(BIN)/python -m pytest -m "not slow and not hardware" tests/unit

check: $(VENV)/dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports

# The site, without network; a warning or a link that leads nowhere is an error.
docs: $(VENV)/dev
	$(BIN)/sphinx-build -n -W --keep-going -q docs build/docs

bench: $(VENV)/dev
	@test -n "$(DATA)" || { echo "say where the data is: make bench DATA=DIR"; exit 2; }
	$(BIN)/python benchmarks/deploy_bars.py --data $(DATA)

clean:
	rm -rf $(VENV) build docs/targets digits-cpu digits-jetson

# Debian's python3 comes without venv: install it as root, else say the one command.
$(VENV)/base: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	    { echo "edgewright needs python3 >= 3.10; name one with make PYTHON=python3.11"; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	    { [ "$$(id -u)" = 0 ] && apt-get -q update && apt-get -q install -y python3-venv; } || \
	    { echo "python3 lacks venv; run: sudo apt-get install -y python3-venv"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -e .
	touch $@

$(VENV)/dev: $(VENV)/base
	$(BIN)/python -m pip install -q --disable-pip-version-check "$(TORCH)" -e ".[torch,tvm,dev]"
	touch $@
