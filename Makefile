# Two commands need nothing before them: `make demo` and `make test`.
# PYTHON=/path/to/python3 chooses the interpreter (3.10 or newer); LOCKED=1 takes every package by
# version and hash from requirements/, which scripts/lock writes, and makes the environment anew
# where it holds others.
.DEFAULT_GOAL := help
.PHONY: help demo test quick check format docs gpu-check wheel licences sbom clean
export PYTHON LOCKED

# What an environment depends on; touched files bring it up to date, else it is left alone.
SOURCES := pyproject.toml setup.py CMakeLists.txt scripts/environment $(shell find csrc -type f)
TEST_EXTRAS := cpu,openvino,tensorrt-rtx,track,video,serve,train,export,text,batch,cluster,triton,sign,demo,docs,dev
TENSORRT ?= tensorrt_rtx
TEST := .venv/test/bin/python -m pytest

help: ## list these commands
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

demo: .venv/demo/.done ## detect classes never trained on in photographs; pictures in out/demo
	@.venv/demo/bin/python -m runtime.demo --output out/demo

test: .venv/test/.done ## check format, lint and types, then run every test
	@scripts/check
	$(TEST) --reruns 1  # servers, browsers and killed processes: what passes then is listed as RERUN

quick: .venv/test/.done ## the tests without the slow ones
	$(TEST) -m "not slow"

check: .venv/test/.done ## format, lint and types only
	@scripts/check

format: .venv/test/.done ## format everything and mend what can be mended automatically
	@scripts/check --fix

docs: .venv/test/.done ## the documentation as a site, into out/docs; broken links are errors
	.venv/test/bin/python -m mkdocs build --strict

gpu-check: .venv/test/.done ## on a machine with an NVIDIA GPU: prove the engines, print a report to paste
	.venv/test/bin/python -m export.gpu_check --package $(TENSORRT)

wheel: .venv/demo/.done ## build a wheel into dist/
	.venv/demo/bin/python -m pip wheel --no-deps --wheel-dir dist .

licences: .venv/demo/.done ## licences of all packages of make demo; one that may forbid use is an error
	.venv/demo/bin/python scripts/licences.py

sbom: .venv/demo/.done .venv/test/.done ## packages of make demo and all weights as CycloneDX, into out/sbom.json
	@mkdir -p out
	.venv/test/bin/python -m cyclonedx_py environment --pyproject pyproject.toml \
	  --output-reproducible -o out/sbom.json .venv/demo/bin/python
	.venv/test/bin/python scripts/provenance.py --add-to out/sbom.json

clean: ## remove environments, builds and outputs
	rm -rf .venv build dist out *.egg-info zsd_core/_compiled*.so

DEMO := .venv/demo cpu,demo
TESTS := .venv/test $(TEST_EXTRAS)
# An environment is also out of date if it was made of something else than what is wanted now: other
# extras, LOCKED or not, another lock. Its .done says what; a rule that was stopped keeps that file.
wanted = LOCKED='$(LOCKED)' scripts/environment --wanted $(1) 2>&1
same = [ "$$($(wanted))" = "$$(cat $(firstword $(1))/.done 2>&1)" ]
unless_same = $(shell $(same) || echo made-of-something-else)
.PRECIOUS: .venv/demo/.done .venv/test/.done

.venv/demo/.done: $(SOURCES) $(call unless_same,$(DEMO))
	@scripts/environment $(DEMO)

.venv/test/.done: $(SOURCES) $(call unless_same,$(TESTS))
	@scripts/environment $(TESTS)

made-of-something-else: ;
