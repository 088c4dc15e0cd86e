# `make` prints what there is. A target sets up what it needs.
.DEFAULT_GOAL := help
SHELL := /bin/bash

# .env holds endpoints and places (see .env.example); its lines reach every command.
-include .env
# The images that `make images` built and `make push` pushed; what .env or the environment says goes before them.
$(foreach pair,$(shell cat build/images.env 2>/dev/null),$(eval $(subst =, ?= ,$(pair))))
export

RECIPE   ?= tiny
SOURCE   ?=
ARTICLES ?=
SET      ?=
PORT     ?= 5000
CHAT_PORT ?= 7860
PMC_HOME ?= .pmc
OUTPUT   ?= build/pipeline.yaml
OVERLAY  ?= dev
PIPELINE ?= pmc-llama
CRON     ?=
IMAGES   ?= pipeline trainer mlflow
MOUNTS   ?=
GPUS     ?=
# Which Python makes the virtual environment.
PYTHON   ?= $(shell for p in python3.11 python3.12 python3; do $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null && { echo $$p; break; }; done)

VENV := .venv
BIN  := $(VENV)/bin
READY := $(VENV)/.ready
settings := $(if $(SOURCE),--set download.source=$(SOURCE)) $(if $(ARTICLES),--set 'download.articles=$(ARTICLES)') $(foreach pair,$(SET),--set '$(pair)')

.PHONY: help setup constraints run retractions recipes settings compile submit-pipeline schedule test fuzz lint format bench chat ui clean distclean run-containers images push wheels test-containers manifests deploy

help: ## Print this help
	@awk 'BEGIN {FS = ":.*## "; print "Targets:"} /^[a-z-]+:.*## / {printf "  %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "Variables: RECIPE=$(RECIPE) SOURCE= ARTICLES= MODEL= SET='train.epochs=3 ...' PMC_HOME=$(PMC_HOME) PORT=$(PORT)"

setup: $(READY) ## Make the virtual environment, if it is missing or older than constraints.txt

$(READY): constraints.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 or 3.12 is needed; install one, or name it: make PYTHON=/path/to/python3.11"; exit 1; }
	@echo "Installing into $(VENV); this takes a few minutes once."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1,<27'
	@PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

constraints: ## Pin the whole tree anew, within pyproject.toml's bounds
	rm -rf build/constraints && $(PYTHON) -m venv build/constraints
	build/constraints/bin/python -m pip install --quiet '.[dev]'
	{ echo "# The whole tree that a fresh install takes, made by \`make constraints\`; pyproject.toml holds the bounds."; \
	  build/constraints/bin/python -m pip freeze --exclude pmc-llama-pipeline | sed 's/^\(torch==[0-9.]*\).*/\1/'; } > constraints.txt

run: $(READY) ## Run the pipeline here: make run [RECIPE=tiny] [SOURCE=pmc] [SOURCE=files ARTICLES=folder] [SET='key=value ...']
	@$(BIN)/python -m pipelines run --recipe $(RECIPE) $(settings)

run-containers: $(READY) ## Run it here with every step in its image; S3 and MLflow from .env: make run-containers [MOUNTS=folder] [GPUS=1]
	@$(BIN)/python -m pipelines run-containers --recipe $(RECIPE) $(settings) $(foreach path,$(MOUNTS),--mount '$(path)') $(if $(GPUS),--gpus)

retractions: MODEL ?= pmc-llama-tiny
retractions: $(READY) ## Say which articles a registered model learned from were retracted since: make retractions MODEL=name
	@$(BIN)/python -m pipelines retractions --model $(MODEL) --recipe $(RECIPE) $(settings)

recipes: $(READY) ## List the recipes
	@$(BIN)/python -m pipelines recipes

settings: $(READY) ## List every setting that SET takes
	@$(BIN)/python -m pipelines settings

compile: $(READY) ## Compile the pipeline for Kubeflow: make compile RECIPE=paper [OUTPUT=build/pipeline.yaml]
	@$(BIN)/python -m pipelines compile --recipe $(RECIPE) $(settings) --output $(OUTPUT)

submit-pipeline: $(READY) ## Run it on Kubeflow: make submit-pipeline RECIPE=paper [EXPERIMENT=] [RUN_NAME=] [WAIT=1] [FORCE=1]
	@$(BIN)/python -m pipelines submit --recipe $(RECIPE) $(settings) $(if $(EXPERIMENT),--experiment '$(EXPERIMENT)') $(if $(RUN_NAME),--run-name '$(RUN_NAME)') $(if $(WAIT),--wait) $(if $(FORCE),--force)

schedule: $(READY) ## Have Kubeflow repeat it: make schedule RECIPE=paper [PIPELINE=retractions] [CRON='0 4 1 * *'] [FORCE=1]
	@$(BIN)/python -m pipelines schedule --recipe $(RECIPE) $(settings) --pipeline $(PIPELINE) $(if $(CRON),--cron '$(CRON)') $(if $(EXPERIMENT),--experiment '$(EXPERIMENT)') $(if $(FORCE),--force)

images: ## Build the images: make images [REGISTRY=host/team] [TAG=1.0] [BASE_IMAGE=...] [IMAGES='pipeline trainer']
	@images/build.sh $(IMAGES)

push: ## Push the images and note their digests, which compile and submit use: make push REGISTRY=host/team
	@images/push.sh $(IMAGES)

wheels: ## Gather the images' packages, so that the build needs no network: make wheels [PYTHON=of the base image's version]
	@PYTHON=$(PYTHON) images/wheels.sh $(IMAGES)

test-containers: $(READY) ## Run the tiny pipeline to a registered model in the images that `make images` has built; needs Docker
	$(BIN)/python -m pytest -p no:randomly --timeout=3600 tests/containers/check_containers.py

manifests: $(READY) ## Render and check what a cluster needs: make manifests OVERLAY=production [NAMESPACE=] [REGISTRY=] [TAG=] [COMPONENTS=kueue]
	@$(BIN)/python -m tools.manifests render $(OVERLAY)

deploy: $(READY) ## Apply that to kubectl's cluster, after showing the differences: make deploy OVERLAY=dev [YES=1]
	@$(BIN)/python -m tools.manifests deploy $(OVERLAY)

test: $(READY) ## Run the tests
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

fuzz: $(READY) ## Extract some ten thousand damaged articles: make fuzz [ARTICLES=archive of JATS files]
	$(BIN)/python tests/fuzz.py $(if $(ARTICLES),--articles $(ARTICLES))

lint: $(READY) ## Check format, code, types, import rules and YAML
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/yamllint --strict .

format: $(READY) ## Format the code and mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(READY) ## Measure, an hour: make bench [ARTICLES=archive of JATS files] [QUESTIONS=folder of benchmark files] [TOKENIZER=folder]; the download needs nginx
	$(BIN)/python -m benchmarks $(if $(ARTICLES),--articles $(ARTICLES))
	$(BIN)/python -m benchmarks.download $(if $(ARTICLES),--source $(ARTICLES))
	$(BIN)/python -m benchmarks.inventory
	$(BIN)/python -m benchmarks.duplicates $(if $(ARTICLES),--articles $(ARTICLES))
	$(BIN)/python -m benchmarks.windows
	$(BIN)/python -m benchmarks.training
	$(BIN)/python -m benchmarks.checkpoints
	$(BIN)/python -m benchmarks.gate
	$(BIN)/python -m benchmarks.report
	$(if $(QUESTIONS),$(BIN)/python -m benchmarks.evaluation --questions $(QUESTIONS) $(if $(TOKENIZER),--tokenizer $(TOKENIZER)))
	$(BIN)/python -m benchmarks.peers $(if $(ARTICLES),--articles $(ARTICLES))

chat: MODEL ?= pmc-llama-tiny-instruct
chat: $(READY) ## Talk to a registered model on http://127.0.0.1:7860: make chat [MODEL=name|name@alias|name/3] [CHAT_PORT=]
	@$(BIN)/python -m pipelines chat --model $(MODEL) --port $(CHAT_PORT)

ui: $(READY) ## Open MLflow's pages on http://127.0.0.1:PORT
	MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false $(BIN)/mlflow ui --backend-store-uri sqlite:///$(abspath $(PMC_HOME))/mlflow.db --port $(PORT) --workers 1

clean: ## Delete what runs have made (store, tracking, caches), but not the virtual environment
	rm -rf $(PMC_HOME) build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache

distclean: clean ## Delete the virtual environment too
	rm -rf $(VENV) *.egg-info
