# make demo    the main job on real input, with a visible result (under two minutes once installed)
# make test    everything: unit, property, corrupt-file, example and TensorFlow tests
# make lint    ruff and mypy --strict
# make bench   against TensorFlow, Polars and others, each run in its own process; some of it with
#              BENCH_ARGS="vocab --rows 500000" (see benchmarks/README.md)
# make cuda    on a GPU: its tests, the gather and the join, in ten minutes; without one it says so
# make fuzz    hostile files for FUZZ_SECONDS, all formats or FUZZ_FORMATS="tf-v2 torch ..."
# make faults  warm starts interrupted at every line, request and operation, and random models
# make differential  2,500 warm starts drawn at random, against TensorFlow's; other ones each time
# make zoo     small Keras models in every format against their torch twins; none may be silently wrong
# make types   pyright on a program that uses every public name, and on the types of all symbols
# make docs    the site, into build/site; a link that leads nowhere is an error
# make pictures  the screenshots in docs/images, by chromium, which must be there
# make browser  the HTML pages in a real browser: chromium, which it installs where apt-get may
# make distributed  models on 2, 4 and 8 ranks, real processes; TorchRec's too behind make torchrec
# make wheels  the built wheel under PYTHONS="python3.10 ... python3.13", each installed for it
# make oldest  the same with the oldest torch, numpy and others that it allows, under the first
# make torchrec  TorchRec's tables on two ranks; brings TorchRec, or says that it cannot
# make ray     Ray Train's workers, two of them; brings Ray, or says that it cannot
# make strangers  DeepSpeed's and Megatron's models, which are refused; brings both, or says that it cannot
# make fixtures  rebuild the golden checkpoints (needs TensorFlow)
#
# Every target makes its own .venv if needed and tests the installed wheel, not the source tree.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
TORCHREC := build/torchrec
RAY := build/ray
STRANGERS := build/strangers
FUZZ_SECONDS ?= 60
APT := -o Acquire::Retries=0 -o Acquire::http::Timeout=30 -o DPkg::Lock::Timeout=30
FUZZ_FORMATS ?=
PYTHONS ?= python3.10 python3.11 python3.12 python3.13
SOURCES := $(shell find torch_warmstart -name '*.py' -o -name '*.pyi' -o -name '*.css' -o -name '*.js') \
  docs/findings.md pyproject.toml constraints.txt

.PHONY: demo test types wheels oldest docs pictures browser lint format bench cuda fuzz differential \
  zoo distributed torchrec ray strangers fixtures clean faults

demo: $(VENV)/.demo
	$(BIN)/python examples/census/demo.py --out demo_out

test: $(VENV)/.test
	TORCH_WARMSTART_INSTALLED=1 $(BIN)/pytest -n 2 --dist worksteal $(PYTEST_ARGS)

browser: $(VENV)/.test
	@command -v chromium > /dev/null || apt-get $(APT) install -y -qq --no-install-recommends chromium \
	  || { apt-get $(APT) update -qq && apt-get $(APT) install -y -qq --no-install-recommends chromium; } \
	  || echo "chromium cannot be installed here: its tests are skipped"
	TORCH_WARMSTART_INSTALLED=1 $(BIN)/pytest tests/browser $(PYTEST_ARGS)

docs: $(VENV)/.docs
	@# Not with --quiet: what it hides is not counted as wrong.
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
	@echo "Written: build/site/index.html"

pictures: docs
	$(BIN)/python docs/site/pictures.py

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Pyright asks the first python of PATH where packages are; ours is the installed one.
types: $(VENV)/.types
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/pyright tests/consumer/uses_of_every_name.py
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/pyright --verifytypes torch_warmstart --ignoreexternal

wheels: $(VENV)/.test
	$(BIN)/python tests/packaging/try_wheel.py $(PYTHONS)

oldest: $(VENV)/.test
	$(BIN)/python tests/packaging/try_wheel.py --oldest $(firstword $(PYTHONS))

format: $(VENV)/.test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.bench
	$(BIN)/python benchmarks/bench.py $(BENCH_ARGS)

cuda: $(VENV)/.cuda
	$(BIN)/python benchmarks/gpu.py

fuzz: $(VENV)/.test
	cd tests && ../$(BIN)/python -m fuzz.fuzz --seconds $(FUZZ_SECONDS) $(FUZZ_FORMATS)

faults: $(VENV)/.test
	TORCH_WARMSTART_FAULTS=1 $(BIN)/pytest -n 2 --dist worksteal tests/faults $(PYTEST_ARGS)

differential: $(VENV)/.test
	TORCH_WARMSTART_DIFFERENTIAL_EXAMPLES=2500 $(BIN)/pytest -rP tests/parity/test_differential.py $(PYTEST_ARGS)

zoo: $(VENV)/.test
	TORCH_WARMSTART_ZOO=whole $(BIN)/pytest -rP tests/zoo $(PYTEST_ARGS)

distributed: $(VENV)/.test
	PYTHONPATH=$(TORCHREC) TORCH_WARMSTART_RANKS=1 $(BIN)/pytest tests/distributed $(PYTEST_ARGS)

# Without what they depend on (most is there, and the rest is named): they would bring another torch.
torchrec: $(VENV)/.test
	@test -e $(TORCHREC)/.there || { rm -rf $(TORCHREC); $(PIP) install --no-deps --retries 1 \
	  --constraint constraints.txt --target $(TORCHREC) torchrec fbgemm-gpu-cpu tensordict pyvers \
	  cloudpickle pyre-extensions typing-inspect \
	  && PYTHONPATH=$(TORCHREC) $(BIN)/python -c "import torchrec" && touch $(TORCHREC)/.there; } \
	  || { rm -rf $(TORCHREC); echo "TorchRec cannot be had here: its tests are skipped"; }
	PYTHONPATH=$(TORCHREC) TORCH_WARMSTART_INSTALLED=1 \
	  $(BIN)/pytest tests/distributed/test_torchrec.py $(PYTEST_ARGS)

ray: $(VENV)/.test
	@test -e $(RAY)/.there || { rm -rf $(RAY); $(PIP) install --no-deps --retries 1 \
	  --constraint constraints.txt --target $(RAY) ray msgpack jsonschema jsonschema-specifications \
	  referencing rpds-py tensorboardX \
	  && PYTHONPATH=$(RAY) $(BIN)/python -c "import ray.train.torch" && touch $(RAY)/.there; } \
	  || { rm -rf $(RAY); echo "Ray cannot be had here: its test is skipped"; }
	PYTHONPATH=$(abspath $(RAY)) TORCH_WARMSTART_INSTALLED=1 \
	  $(BIN)/pytest tests/distributed/test_ray_train.py $(PYTEST_ARGS)

# DeepSpeed is built where it is installed, without its kernels.
strangers: $(VENV)/.test
	@test -e $(STRANGERS)/.there || { rm -rf $(STRANGERS); DS_BUILD_OPS=0 $(PIP) install --no-deps \
	  --retries 1 --no-build-isolation --only-binary megatron-core --constraint constraints.txt \
	  --target $(STRANGERS) deepspeed hjson py-cpuinfo ninja einops msgpack megatron-core \
	  && touch $(STRANGERS)/.there; } \
	  || { rm -rf $(STRANGERS); echo "DeepSpeed and Megatron cannot be had here: not tested"; }
	PYTHONPATH=$(STRANGERS) TORCH_WARMSTART_INSTALLED=1 \
	  $(BIN)/pytest tests/distributed/test_real_strangers.py $(PYTEST_ARGS)

fixtures: $(VENV)/.test
	$(BIN)/python tests/fixtures/make_fixtures.py

clean:
	rm -rf $(VENV) build dist *.egg-info demo_out benchmarks/out

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(BIN)/python $(SOURCES)
	@echo "Installing torch_warmstart into $(VENV) (some minutes the first time) ..."
	$(PIP) install --constraint constraints.txt ".[demo]"
	touch $@

$(VENV)/.test: $(BIN)/python $(SOURCES)
	@echo "Installing torch_warmstart and its test tools, TensorFlow among them, into $(VENV) ..."
	$(PIP) install --constraint constraints.txt ".[test]"
	touch $@

$(VENV)/.types: $(VENV)/.test
	$(PIP) install --constraint constraints.txt "pyright[nodejs]"
	touch $@

$(VENV)/.docs: $(BIN)/python $(SOURCES)
	@echo "Installing torch_warmstart and what makes its site into $(VENV) ..."
	$(PIP) install --constraint constraints.txt ".[docs]"
	touch $@

# Without TensorFlow, which has no part in it and would want the GPU for itself.
$(VENV)/.cuda: $(BIN)/python $(SOURCES)
	@echo "Installing torch_warmstart and what its tests on a GPU need into $(VENV) ..."
	$(PIP) install --constraint constraints.txt ".[cuda]"
	touch $@

$(VENV)/.bench: $(BIN)/python $(SOURCES)
	@echo "Installing torch_warmstart and what it is measured against into $(VENV) ..."
	$(PIP) install --constraint constraints.txt ".[test,bench]"
	touch $@
