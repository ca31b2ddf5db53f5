# `make install` once; `make demo` and `make test` install by themselves.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export OMP_NUM_THREADS ?= 1

.PHONY: install demo demo-clips demo-study test test-slow lint format sixteen parity bench clean help

help:
	@echo "make install    create $(VENV) with the m4v-eval command"
	@echo "make demo       train three small models, compare them and write a report (under 10 minutes on 2 cores)"
	@echo "make demo-clips score a few clips without any weights and write a report (seconds)"
	@echo "make demo-study plan a human study of three made-up models and serve it in the browser (a minute)"
	@echo "make test       lint, type-check and test (under 15 minutes on 2 cores)"
	@echo "make test-slow  full-size networks against golden figures; known answers from trained models; faults; a SLURM of its own"
	@echo "make sixteen    all 16 dimensions on four clips with seeded weights, beside the official results (SIXTEEN=--full: full size)"
	@echo "make parity     build the official package beside this one and compare live (about 10 GB of disk)"
	@echo "make bench      speed and memory against the official package (needs make parity first)"

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v <= (3, 13) else "m4v-eval needs Python 3.11 to 3.13, and $(PYTHON) is %d.%d: try make install PYTHON=python3.12" % v)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

# The models may use all cores; what OMP_NUM_THREADS holds is for tests.
demo: install
	@env -u OMP_NUM_THREADS $(BIN)/m4v-eval ablate registers temp-branch --out demo/ablation --json demo/ablation.json

demo-clips: install
	@$(BIN)/m4v-eval demo-clips demo/clips
	@$(BIN)/m4v-eval vbench --subset demo/clips/prompts.jsonl --videos demo/clips --profile lite --out demo/run --json demo/vbench.json

LOOKS := sharp soft jerky
STUDY := demo/study

# Three made-up models answer the same eight prompts; links for raters and for you are in $(STUDY)/links.csv.
demo-study: install
	@for look in $(LOOKS); do test -d demo/$$look || $(BIN)/m4v-eval demo-clips demo/$$look --look $$look; done
	@test -d $(STUDY) || $(BIN)/m4v-eval study new --suite demo/sharp/prompts.jsonl --videos $(foreach look,$(LOOKS),$(look)=demo/$(look)) --raters 6 --out $(STUDY)
	@$(BIN)/m4v-eval study serve $(STUDY)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

BROWSER := $(shell command -v chromium >/dev/null && command -v chromedriver >/dev/null && echo yes)
ifeq ($(BROWSER),yes)
FAST := not slow
else
FAST := not slow and not browser
endif

test: lint
ifneq ($(BROWSER),yes)
	@echo "No chromium and chromedriver here: the browser tests are left out (Debian: apt-get install chromium chromium-driver)."
endif
	$(BIN)/pytest -n 2 --dist loadgroup -m '$(FAST)'

test-slow: install
	$(BIN)/pytest -m slow

# SIXTEEN='--full' takes networks of the published sizes: 9 GB of disk, half an hour on 2 cores.
sixteen: install
	$(BIN)/python -m tests.parity.sixteen $(SIXTEEN)

# PARITY='--full' compares the networks at their published size as well; see python -m tests.parity --help.
parity: install
	$(BIN)/python -m tests.parity $(PARITY)

# BENCH='--clips 2' takes a quarter of the time; see python -m benchmarks.vbench_speed --help.
bench: install
	$(BIN)/python -m benchmarks.vbench_speed $(BENCH)

clean:
	rm -rf $(VENV) build demo runs .mypy_cache .pytest_cache .ruff_cache .hypothesis
