# make solve, make test, make lint, make bench, make replicate: each builds the environment in .venv when it is missing.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready

.PHONY: solve test lint bench replicate clean

solve: $(READY)
	$(BIN)/econrl solve models/growth.py --method ddpg --time-limit 60 --out out/growth --overwrite

test: .venv/sparse
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: .venv/bench
	$(BIN)/python replication/bench.py --again

# The scripts of replication/ in their fast settings, a few minutes each, into replication/results/fast.
replicate: .venv/sparse
	for script in long_plosser rotated_copies parameter_surrogate brumm_scheidegger_2017 curse_of_dimensionality \
	        policy_gradient_variance algorithms verdicts households recursive; do \
	    echo "replication/$$script.py --fast" && $(BIN)/python replication/$$script.py --fast --again || exit 1; \
	done

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

# Tasmanian is built from source, which takes minutes; a wheel of it works only in the environment it was built in.
.venv/sparse: $(READY)
	$(BIN)/pip install --quiet --no-cache-dir --constraint constraints.txt --editable ".[sparse]" \
	    || echo "Tasmanian could not be built (it needs cmake and a C++ compiler): the tests of adaptive are skipped"
	touch $@

.venv/bench: $(READY)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[sb3]"
	touch $@

clean:
	rm -rf .venv build out *.egg-info
