# `make study` runs the whole study, `make test` the tests; each sets up .venv first if it must.
# GPU: torch comes with CUDA from the default index of Linux. Without an NVIDIA GPU,
#   make study TORCH_INDEX=https://download.pytorch.org/whl/cpu
# saves a download of several gigabytes.

PYTHON ?= python3 python3.13 python3.12 python3.11 python
TORCH ?= $(shell grep '^torch==' requirements.lock)
TORCH_INDEX ?=
BIN := .venv/bin
# All cores compile at the end what pip would compile on one.
PIP := $(BIN)/python -m pip install --quiet --no-compile

.PHONY: study test browser lab clean
study: .venv/installed
	$(BIN)/fustal run

test: .venv/installed browser
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile \
	  --no-loadscope-reorder  # else files of few tests come last, and those are the longest

# Tests look at the report in a real browser; where there is none and apt-get may, it installs one.
browser:
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null \
	  || command -v google-chrome >/dev/null \
	  || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -qq \
	       && DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends chromium \
	          >/dev/null; } \
	  || echo "no Chromium here: tests/test_report_page.py needs one" >&2

lab: .venv/installed
	$(BIN)/jupyter lab notebooks

.venv/installed: pyproject.toml requirements.lock
	@for python in $(PYTHON); do \
	  $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	    && exec $$python -m venv .venv; \
	done; echo "Python 3.11 or newer is needed; name one: make PYTHON=/path/to/python" >&2; exit 1
	{ grep -v '^torch==' requirements.lock; echo '$(TORCH)'; } > .venv/constraints.txt
	$(PIP) '$(TORCH)' $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX))
	$(PIP) --constraint .venv/constraints.txt --editable '.[test]'
	$(BIN)/python -m compileall -qq -j 0 -x /tests/ .venv/lib fustal_core || true  # some packages hold templates of modules
	$(BIN)/python -m ipykernel install --sys-prefix --name fustal --display-name "FuSTAL study"
	touch $@

clean:
	rm -rf .venv runs data/simulated
