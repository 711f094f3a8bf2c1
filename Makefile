# Every target sets up what it needs. PYTHON chooses the interpreter, VENV the environment.
PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
PY := $(BIN)/python
# torchcodec finds FFmpeg in the libraries that PyAV's wheel brings
FFMPEG = LD_LIBRARY_PATH=$(abspath $(VENV))/ffmpeg:$$($(PY) -c "import sysconfig; print(sysconfig.get_path('purelib'))")/av.libs
DATA_ROOT ?= data
DEMO ?= runs/demo
QUICK ?=

.DEFAULT_GOAL := help
.PHONY: help setup demo app demo-regions demo-cir verify test acceptance browser torture lint bench docs test-oldest clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup: $(VENV)/.done  ## make the virtual environment with everything (stock wheels, no GPU needed)

$(VENV)/.done: setup.cfg pyproject.toml
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check --upgrade pip wheel "setuptools>=77"
	$(PY) -m pip install --quiet --disable-pip-version-check --no-build-isolation -e ".[dev]"
	# gradio asks for Pillow below 13, which rounds a few resizes otherwise than the published vectors were made
	$(PY) -m pip install --quiet --disable-pip-version-check --upgrade "pillow>=13" 2>/dev/null
	$(PY) scripts/link_ffmpeg.py $(VENV)/ffmpeg
	touch $@

demo: setup  ## draw data, train from scratch, evaluate, report; QUICK=1 takes a minute or two
	$(PY) scripts/demo.py --data-root $(DATA_ROOT) $(if $(QUICK),--quick)

demo-regions: setup  ## train every region encoder on the demo's region task, side by side; QUICK=1 takes a minute
	$(PY) scripts/demo_regions.py --data-root $(DATA_ROOT) $(if $(QUICK),--quick)

demo-cir: demo  ## ways to compose a picture and a change, beside the demo's model; QUICK=1 takes a minute or two more
	$(PY) scripts/demo_cir.py --data-root $(DATA_ROOT) $(if $(QUICK),--quick)

app: setup  ## search the demo's gallery on a page in the browser, with the model that make demo trained
	@test -f $(DEMO)/final/embedder.yaml || { echo "no demo model in $(DEMO)/final: run make demo first"; exit 2; }
	$(PY) data_prep/demo_gallery.py --data-root $(DATA_ROOT)
	$(FFMPEG) $(PY) scripts/embed.py --model $(DEMO)/final --input $(DATA_ROOT)/demo-gallery/items.jsonl \
		--output $(DEMO)/index --regions --region-instruction "what is here ?" --overwrite
	$(FFMPEG) $(PY) scripts/app.py --model $(DEMO)/final --index $(DEMO)/index \
		--instructions $(DATA_ROOT)/demo-gallery/instructions.yaml

verify: setup  ## compare the demo's scores with those that eval/expected says it reaches
	$(PY) eval/verify.py --benchmark demo --output runs/demo --no-run

test: setup  ## the default tests (no network, no GPU)
	$(FFMPEG) $(PY) -m pytest -q

acceptance: setup browser  ## the slower tests
	$(FFMPEG) $(PY) -m pytest -q -m acceptance

browser:  ## install Chromium, in which the acceptance tests open pages, where it is missing and apt-get can
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null \
	|| ! command -v apt-get >/dev/null || { apt-get update -qq && apt-get install -y -qq $$(cat packages.txt); } \
	|| echo "Chromium could not be installed; the test that needs it will say so"

torture: setup  ## kill runs twenty times each, with and without workers: the same bits at the end
	MMEMBED_KILLS=20 $(FFMPEG) $(PY) -m pytest -q -s -m acceptance tests/acceptance/test_kill.py

lint: setup  ## formatting, lint, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup  ## speed against the plain way, as ratios; writes docs/results (half an hour)
	$(FFMPEG) $(PY) scripts/bench.py --output docs/results/bench.json --page docs/results/performance.md

docs: setup  ## build the pages into docs/_build
	$(PY) -m pip install --quiet --disable-pip-version-check -e ".[docs]"
	$(BIN)/sphinx-build -q -W -b html docs docs/_build

test-oldest:  ## the default tests at the lower bounds of setup.cfg
	test -x .venv-oldest/bin/python || $(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/python -m pip install --quiet --disable-pip-version-check uv
	VIRTUAL_ENV=.venv-oldest .venv-oldest/bin/uv pip install --quiet --resolution lowest-direct -e ".[dev]"
	.venv-oldest/bin/python scripts/link_ffmpeg.py .venv-oldest/ffmpeg
	touch .venv-oldest/.done
	$(MAKE) test VENV=.venv-oldest

clean:  ## remove environments and runs
	rm -rf .venv .venv-oldest runs docs/_build
