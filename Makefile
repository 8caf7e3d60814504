# Two commands: `make demo` and `make test`. Both create .venv in the checkout and need only python3, make and git.
PYTHON ?= python3
PEERS ?= steps langgraph dbos
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Some machines keep no bytecode. Here hundreds of processes are started, and each would spend most of its start on compiling.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test soak outage bench flat fuzz fuzz-rpc crowd lint fmt docs proto lock clean

demo: $(READY)
	@$(BIN)/python examples/demo.py

test: $(READY)
	@$(BIN)/python tests/run.py

# make soak [STORE=sqlite|pg] [MINUTES=30] [OUT=file.json] [SEED=n] [NEGATIVE=no_fence|ack_first]
soak: $(READY)
	@PYTHONPATH=tests $(BIN)/python -m soak.schedules --store $(or $(STORE),sqlite) --seconds $(or $(SCHEDULES_S),120)
	@PYTHONPATH=tests $(BIN)/python -m soak.jumps --store $(or $(STORE),sqlite)
	@PYTHONPATH=tests $(BIN)/python -m soak --store $(or $(STORE),sqlite) --minutes $(or $(MINUTES),30) \
		$(if $(OUT),--out "$(OUT)") $(if $(SEED),--seed $(SEED)) $(if $(NEGATIVE),--negative $(NEGATIVE))

# make outage [STORE=sqlite|pg] [KILLS=n] [OUT=file.json] [SEED=n]: providers killed, stopped and throttled under 200 running turns
outage: $(READY)
	@PYTHONPATH=tests $(BIN)/python -m soak.outage --store $(or $(STORE),pg) $(if $(KILLS),--kills $(KILLS)) $(if $(OUT),--out "$(OUT)") $(if $(SEED),--seed $(SEED))

# make bench [PEERS="steps langgraph dbos"] [OUT=file.json] [SMALL=1]
bench: $(READY)
	@PYTHONPATH=tests $(BIN)/python -m bench --peers "$(PEERS)" $(if $(OUT),--out "$(OUT)") $(if $(SMALL),--small)

# make flat [STORE=sqlite|pg|both] [OUT=file.json] [SMALL=1]: does it matter how many resources there are?
flat: $(READY)
	@PYTHONPATH=tests $(BIN)/python -m bench.flat --store $(or $(STORE),both) $(if $(OUT),--out "$(OUT)") $(if $(SMALL),--small)

# make fuzz [CASES=100000] [STORE=sqlite|pg] [AUTH=none|api_key] [SEED=n] [OUT=file.json]
fuzz: $(READY)
	@PYTHONPATH=tests $(BIN)/python -m fuzz --cases $(or $(CASES),100000) --store $(or $(STORE),sqlite) --auth $(or $(AUTH),none) \
		$(if $(SEED),--seed $(SEED)) $(if $(OUT),--out "$(OUT)")

# make fuzz-rpc [CASES=100000] [STORE=sqlite|pg] [SEED=n] [OUT=file.json]
fuzz-rpc: $(READY)
	@PYTHONPATH=tests $(BIN)/python -m fuzz.rpc --cases $(or $(CASES),100000) --store $(or $(STORE),sqlite) \
		$(if $(SEED),--seed $(SEED)) $(if $(OUT),--out "$(OUT)")

# make crowd [STORE=sqlite|pg] [SECONDS=60] [SEED=n] [OUT=file.json]
crowd: $(READY)
	@PYTHONPATH=tests $(BIN)/python -m fuzz.crowd --store $(or $(STORE),sqlite) --seconds $(or $(SECONDS),60) \
		$(if $(SEED),--seed $(SEED)) $(if $(OUT),--out "$(OUT)")

lint: $(READY)
	$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/pyright && $(BIN)/lint-imports

fmt: $(READY)
	$(BIN)/ruff format . && $(BIN)/ruff check --fix .

docs: $(READY)
	$(BIN)/python docs/generate.py

proto: $(READY)
	$(BIN)/python proto/generate.py

$(READY): pyproject.toml requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "uv>=0.5"
	$(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode --require-hashes -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps -e .
	$(BIN)/python -m compileall -q src
	@touch $(READY)

lock: ; $(BIN)/uv pip compile pyproject.toml --group dev --universal --generate-hashes --quiet --no-header -o requirements.lock

clean: ; rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis
