# Each target sets up its environment by itself, then does its job.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OLDEST := .venv-oldest
GPU_WHEEL := .venv-gpu-wheel
# Made by bench/v100.sh.
V100 := .venv-v100
# A process a CPU, whole files to each, as tests of one file share what they make, in the order of tests/conftest.py.
TOGETHER := -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder
# What speaks to Paddle or DALI: the rest does not know which version is there. Of PyAV only 18.1 will do.
OLDEST_TESTS := $(addprefix tests/pipelines/,dali test_loader.py test_loader_devices.py \
	test_loader_epochs.py workers/test_clip_source_encoded.py) \
	$(addprefix tests/r3d_fast/,acceleration backend config export learning models prediction ranks runs training weights test_cli.py)
# The install line, what the doctor says of it, and the GPU's code as far as it runs without a GPU.
GPU_WHEEL_TESTS := tests/test_packaging.py $(addprefix tests/pipelines/,dali machine test_loader_devices.py) \
	$(addprefix tests/r3d_fast/,acceleration backend doctor models ranks test_cli.py)

# Of mkdocs-material, about what may come after it.
export NO_MKDOCS_2_WARNING := 1

.PHONY: demo test test-oldest test-gpu-wheel exact busy fuzz soak mutants lint docs clean

demo: $(VENV)/.demo
	$(BIN)/r3d-fast demo

test: $(VENV)/.test
	$(BIN)/python -m pytest $(TOGETHER)

# The oldest versions that are supported, and that the index of PyPI still has: Paddle 2.6, DALI 1.53, PyAV 18.1.
test-oldest: $(OLDEST)/.test
	$(OLDEST)/bin/python -m pytest $(TOGETHER) -m "not slow" $(OLDEST_TESTS)

# What a V100 gets, on a CPU: the wheel of Paddle 2.6 for CUDA 11.8, the libraries that it loads, DALI for CUDA 12.
# Downloads 3.1 GB, takes 7.6 GB of disk. Run it when one of these, or what asks for them, has changed.
test-gpu-wheel: $(GPU_WHEEL)/.test
	$(GPU_WHEEL)/bin/python -m pytest $(TOGETHER) -m "not slow" $(GPU_WHEEL_TESTS)

# Videos of every encoder and container that FFmpeg has here, read by r3d-fast and by PyAV: some minutes.
exact: $(VENV)/.test
	PYTHONPATH=tests/support:tests/support/videos:tests/support/jobs $(BIN)/python -m exact --write docs/data.md

# The suite beside three busy loops a core: no test may depend on how fast this machine is. With TESTS=FILES only these.
busy: $(VENV)/.test
	loops=""; trap 'kill $$loops' EXIT; \
	for loop in $$(seq $$((3 * $$(nproc)))); do sh -c 'while :; do :; done' & loops="$$loops $$!"; done; \
	$(BIN)/python -m pytest $(TOGETHER) -m "not slow" $(TESTS)

# 10,000 damaged files, generated ones and those of R3D_REAL_CLIPS, through index, loader and prediction: an hour or two.
fuzz: $(VENV)/.test
	PYTHONPATH=.:tests/support:tests/support/videos:tests/support/jobs $(BIN)/python -m damage.fuzz \
		$(wildcard $(or $(R3D_REAL_CLIPS),../shared/clips) ../shared/cases)

# The loader gives 50,000 clips while its processes are killed, and a training of 2,000 steps is killed and goes on.
soak: $(VENV)/.test
	PYTHONPATH=.:tests/support:tests/support/videos:tests/support/jobs $(BIN)/python -m soak

# Small random changes of the core, each run against the tests that concern it: an hour and more. What becomes of each
# goes to build/mutants.jsonl, and the same command goes on where it was ended.
mutants: $(VENV)/.test
	PYTHONPATH=.:tests/support $(BIN)/python -m mutants

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache --no-logo
	$(BIN)/codespell README.md CHANGELOG.md SECURITY.md docs pipelines r3d_fast bench configs docker examples
	$(BIN)/mkdocs build --strict

# The tables that follow from the code, then the site, into build/site. A dead link or a missing anchor fails.
docs: $(VENV)/.test
	$(BIN)/python docs/generate.py
	$(BIN)/mkdocs build --strict
	@echo "the site is in build/site: open build/site/index.html"

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip

$(VENV)/.demo: $(BIN)/python setup.cfg
	@echo "installing r3d-fast with Paddle and DALI into $(VENV): about 0.5 GB to download, once"
	$(BIN)/pip install '.[cpu]'
	touch $@

$(OLDEST)/.test: setup.cfg
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/pip install --quiet --upgrade pip
	$(OLDEST)/bin/pip install --quiet --editable '.[test]' paddlepaddle==2.6.2 nvidia-dali-cuda120==1.53.0 \
		av==18.1.0 'numpy<2'
	touch $@

$(GPU_WHEEL)/.test: setup.cfg
	$(PYTHON) -m venv $(GPU_WHEEL)
	$(GPU_WHEEL)/bin/pip install --quiet --upgrade pip
	$(GPU_WHEEL)/bin/pip install --quiet --editable '.[cuda11,test]'
	touch $@

# Editable, so that what is tested is what is in the folder.
$(VENV)/.test: $(BIN)/python setup.cfg
	$(BIN)/pip install --quiet --editable '.[cpu,test,docs,onnx,visualdl,tensorboard,wandb,mlflow]'
	touch $@

clean:
	rm -rf $(VENV) $(OLDEST) $(GPU_WHEEL) $(V100) build dist *.egg-info demo
