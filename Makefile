.DEFAULT_GOAL := help
python := .venv/bin/python
# Write compiled files, because many processes run the same code.
export PYTHONDONTWRITEBYTECODE :=

help: ## Show the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

run: ## Set up what is missing, then serve the demo until Ctrl-C
	@began=$$(date +%s); deploy/setup.sh || exit 1; \
	exec $(python) -m config demo --packages-s $$(($$(date +%s) - began))

setup: ## Make the virtual environment with the tools for development
	@deploy/setup.sh dev

test: setup ## Run every test
	@$(python) -m pytest -n auto --dist loadgroup

test-services: test-data test-faults ## Run tests on PostgreSQL, Redis and RabbitMQ

test-data: setup ## Run the tests that store data, on services
	@$(python) tests/services.py $(python) -m pytest -n auto --dist loadgroup \
		-m "stores and not processes and not browser" \
		--ignore=tests/inference/engine --ignore=tests/inference/gateway \
		tests/accounts tests/config tests/inference tests/registry

test-faults: setup ## Run the tests that kill processes and stop databases, on services
	@$(python) tests/services.py $(python) -m pytest -n 2 --dist loadgroup \
		tests/end_to_end/test_kills.py \
		tests/end_to_end/test_worker_kills.py \
		tests/end_to_end/test_database_outages.py \
		tests/end_to_end/test_changes_reach_every_gateway.py \
		tests/end_to_end/test_production.py \
		tests/end_to_end/test_rollouts.py \
		tests/end_to_end/test_shadows.py \
		tests/inference/gateway/test_exact_limits.py \
		tests/inference/gateway/test_ledger_after_kills.py

torture: setup ## Run simulations and property tests with many more examples (long)
	@MODELYARD_SIMULATIONS=10000 $(python) -m pytest -o timeout=3600 tests/accounts/quotas/test_lease_simulation.py
	@MODELYARD_USAGE_SIMULATIONS=300 $(python) -m pytest -o timeout=3600 tests/accounts/usage/test_usage_simulation.py
	@MODELYARD_TORTURE=20 $(python) -m pytest -o timeout=3600 -m hypothesis --hypothesis-show-statistics
	@MODELYARD_TORTURE=20 $(python) -m pytest -o timeout=3600 tests/accounts/admission/test_obedient_clients.py \
		tests/inference/placement/test_simulated_placement.py
	@MODELYARD_TORTURE=20 $(python) -m pytest -o timeout=3600 -s tests/end_to_end/test_kills.py \
		tests/end_to_end/test_worker_kills.py \
		tests/end_to_end/test_database_outages.py \
		tests/end_to_end/test_changes_reach_every_gateway.py

lint: setup ## Check style and the direction of imports
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/lint-imports

types: setup ## Check types
	@.venv/bin/mypy

check: lint types ## Lint, types, Django's own checks and missing migrations
	@$(python) manage.py check
	@$(python) manage.py makemigrations --check --dry-run

bench: setup ## Measure Modelyard and its peers (an hour the first time)
	@$(python) -m benchmarks

format: setup ## Rewrite files in the project's style
	@.venv/bin/ruff check --fix .
	@.venv/bin/ruff format .

engine: ## Run one engine alone
	@$(python) -m inference.engine --device cpu

worker: ## Run the Celery worker alone
	@$(python) -m celery -A config worker

grpc-code: setup ## Generate the gRPC messages from their .proto
	@$(python) -m grpc_tools.protoc -I. --python_out=. --pyi_out=. \
		inference/dialects/open_inference/open_inference.proto

constraints: setup ## Pin the packages that are installed now
	@(head -2 constraints.txt; .venv/bin/pip freeze --exclude-editable | sed 's/+cpu$$//') >constraints.new
	@mv constraints.new constraints.txt

.PHONY: help run setup test test-services test-data test-faults torture lint types check bench format engine worker grpc-code constraints
