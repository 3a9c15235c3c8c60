# Every target does its own set-up: see tools/setup.sh. PYTHON=python3.12 chooses the interpreter.
.DEFAULT_GOAL := help
.PHONY: help run test vm chaos report vagrant lint bench setup install uninstall clean

VENV := .venv/bin
CONFIG ?= examples/blackhole.yaml

help: ## show what can be made
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## supervise the example services in the foreground (CONFIG=FILE for others); Ctrl-C stops them
	@tools/setup.sh run
	@echo "==> blackhole-cg run --config $(CONFIG)"
	@echo "==> in a second terminal: $(VENV)/blackhole-cg status"
	@exec $(VENV)/blackhole-cg run --config "$(CONFIG)"

test: lint ## check style and types, then run every test, on this host and in the test VM
	@$(VENV)/python -m tests.everything $(ARGS)

vm: ## a shell in the test VM, with this tree and its package installed
	@tools/setup.sh test
	@exec $(VENV)/python -m tests.vm shell

chaos: ## everything goes wrong at random for 10 minutes, in the test VM (ARGS="--seed 7 --minutes 10")
	@tools/setup.sh test
	@$(VENV)/python -m tests.vm run --kernel 6.12 --timeout 6000 -- python -m tests.chaos $(ARGS)

report: ## measure every limit on the real kernels and write docs/isolation.md; takes 20 minutes
	@tools/setup.sh test
	@$(VENV)/python -m tests.isolation_report

vagrant: ## the real-kernel tests in a Vagrant machine made here, without KVM; slow (ARGS="tests/system -k oom")
	@tools/setup.sh test
	@exec $(VENV)/python -m tests.vagrant $(ARGS)

lint: ## check style and types only
	@tools/setup.sh test
	$(VENV)/ruff check .
	$(VENV)/ruff format --check .
	$(VENV)/mypy

bench: ## measure 200 services: start, idle cost, memory, restart (ARGS="--help" shows more)
	@tools/setup.sh run
	@exec $(VENV)/python -m benchmarks.bench $(ARGS)

setup: ## only prepare .venv, with the development tools
	@tools/setup.sh test

install: ## install or upgrade, with systemd units, for the whole system; ARGS=--user for yourself alone
	@tools/install.sh install $(ARGS)

uninstall: ## remove what install put there; configuration, state and logs stay
	@tools/install.sh uninstall $(ARGS)

clean: ## remove what the other targets made: .venv, caches, the example's data
	rm -rf .venv .demo build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
