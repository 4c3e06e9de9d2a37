# Needs python3 (3.10 to 3.13) and make; every target sets up .venv by itself.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
GANCOMPRESS := $(BIN)/gancompress
ZOO := .zoo/.ready

# These fork processes that train, which a process can't any more once its autograd has threads of its own.
FORKING := tests/modules/test_ddp.py tests/modules/test_narrowed_runs.py tests/modules/test_ranks.py \
	tests/modules/test_several_budgets.py tests/data/test_resume_order.py tests/evaluation tests/callbacks tests/test_kills.py
# whole runs first, then the rooms, whose files are short
REST := $(filter-out $(FORKING),$(wildcard tests/test_*.py) $(patsubst %/,%,$(wildcard tests/[a-z]*/)))
# a file after the other as they are named: the long ones, which have few tests, would come last by number
PYTEST := $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help quickstart test zoo lint format docs clean

help: ## Show this help
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(READY): pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --editable '.[dev]'
	@touch $@

quickstart: $(READY) ## Train a small teacher, compress, evaluate and export it: about three minutes on two idle cores
	$(GANCOMPRESS) fit --config teacher_quickstart.yaml
	$(GANCOMPRESS) fit --config quickstart.yaml
	$(GANCOMPRESS) test --config quickstart.yaml --ckpt_path runs/quickstart/checkpoints/last.ckpt
	$(GANCOMPRESS) export --ckpt_path runs/quickstart/generator.pth
	@cat runs/quickstart/test/table.md
	@echo "Look into runs/quickstart/: test/grid.png, test/table.md, generator.pth and generator.onnx."

test: export OMP_NUM_THREADS = 1
test: $(READY) ## Run the tests
	$(PYTEST) $(FORKING)
	$(PYTEST) $(REST) $(FORKING:%=--ignore=%)

$(ZOO): pyproject.toml tests/zoo_requirements.txt tests/zoo_alone.txt
	$(PYTHON) -m venv .zoo
	.zoo/bin/python -m pip install --quiet --upgrade pip
	.zoo/bin/python -m pip install --editable . --requirement tests/zoo_requirements.txt
	.zoo/bin/python -m pip install --no-deps --no-build-isolation --requirement tests/zoo_alone.txt
	@touch $@

zoo: $(ZOO) ## Read the channel groups of public networks: an hour, downloads packages, a rerun goes on
	.zoo/bin/python tests/zoo.py

lint: $(READY) ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY) ## Mend style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(READY) ## Build the guides as a site, in site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean: ## Remove the virtual environment and caches, but no runs
	rm -rf .venv .zoo .pytest_cache .mypy_cache .ruff_cache build dist site
