# Two commands do all the set-up; each makes its own virtual environment from nothing.
#   make demo   install, encode and decode two photographs, show each beside AVIF and JPEG at equal bytes
#   make test   install, lint, type-check, run every test
# While working, in the environment of `make test`:
#   make fast     the tests that take less than a minute in all
#   make format   repair what ruff can
#   make fuzz     a million executions of the container's fuzzing target, ten thousand of each decode's (RUNS=, DECODES=)
#   make test-oldest   the tests with the oldest version of each dependency that pyproject.toml allows
#   make docs     these pages as a website that needs no network, out/site/index.html
#   make web      the page that redraws AVIF in the browser, out/web (needs node and npm)
#   make wheel    build the wheel, install it into a bare environment, encode and decode one picture with its command
# make figures makes the tables and figures of README and docs anew: from the images in KODAK and CID22 where there are such, with
# the metrics' weights in UNQUANT_METRICS (what is known is not measured again), else from the rows in docs/figures.
# FAST=1: from four images, into out/figures-fast.

PYTHON ?= python3
PIP_FLAGS ?= --quiet --disable-pip-version-check -c constraints.txt

# processes of the tests, of one thread each
JOBS ?= 2
TESTS := OMP_NUM_THREADS=1 .venv/bin/pytest -n $(JOBS)

.PHONY: demo test test-oldest fast fuzz lint format docs wheel web figures clean

demo: .venv-demo/.done
	.venv-demo/bin/unquant demo --output out/demo

test: .venv/.done lint
	$(TESTS)

fast: .venv/.done
	$(TESTS) -m 'not slow'

# constraints-oldest.txt is held to pyproject.toml by a test
test-oldest:
	$(PYTHON) -m venv --clear .venv-oldest
	.venv-oldest/bin/pip install --quiet --disable-pip-version-check -c constraints-oldest.txt -e '.[dev]'
	OMP_NUM_THREADS=1 .venv-oldest/bin/pytest -n $(JOBS) $(PYTEST_FLAGS)

RUNS ?= 1000000
DECODES ?= 10000
fuzz: .venv/.done
	for target in container ratevar cdc av1; do \
		mkdir -p out/fuzz/$$target && runs=$$([ $$target = container ] && echo $(RUNS) || echo $(DECODES)) && \
		OMP_NUM_THREADS=1 .venv/bin/python tests/fuzz/fuzz.py $$target -runs=$$runs -artifact_prefix=out/fuzz/$$target- out/fuzz/$$target || exit 1; \
	done

lint: .venv/.done
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/lint-imports
	.venv/bin/pyright --pythonpath .venv/bin/python

format: .venv/.done
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

docs: .venv/.done
	NO_MKDOCS_2_WARNING=1 PYTHONPATH=src .venv/bin/mkdocs build --strict

wheel:
	rm -rf dist build/wheel
	$(PYTHON) -m venv --clear .venv-wheel
	.venv-wheel/bin/pip wheel $(PIP_FLAGS) --no-deps -w dist .
	.venv-wheel/bin/pip install $(PIP_FLAGS) dist/unquant-*.whl
	mkdir -p build/wheel
	.venv-wheel/bin/unquant encode docs/demo.jpg build/wheel/demo.unq --bpp 0.15
	.venv-wheel/bin/unquant decode build/wheel/demo.unq build/wheel/demo.png
	.venv-wheel/bin/unquant info build/wheel/demo.unq

web: .venv/.done web/node_modules/.package-lock.json
	mkdir -p out/web build/web
	.venv/bin/unquant export onnx build/web/av1.onnx --force --json > build/web/av1.json
	node web/build.mjs build/web/av1.onnx build/web/av1.json out/web

web/node_modules/.package-lock.json: web/package-lock.json
	cd web && npm ci --silent --no-audit --no-fund
	touch $@

comma := ,
KODAK ?= data/kodak
CID22 ?= data/cid22_val
OUT := out/figures$(if $(FAST),-fast)
PAGES := $(if $(FAST),$(OUT)/pages,.)
FIGURES := $(PAGES)/docs/figures
kodak := $(wordlist 1,$(if $(FAST),4,24),$(sort $(wildcard $(KODAK)/*)))
cid22 := $(wordlist 1,$(if $(FAST),4,12),$(sort $(wildcard $(CID22)/*)))
BENCH := .venv/bin/unquant bench -j 2 --no-distances
PLOT := .venv/bin/python -m unquant.bench plot

figures: .venv/.done
	mkdir -p $(FIGURES)
	$(if $(FAST),cp -r README.md docs $(PAGES)/)
ifneq ($(kodak),)
	$(BENCH) $(kodak) --codecs av1,ratevar,cdc,avif,avif-iq-420-s4,heic,jxl,webp,jpeg --at-bpp $(if $(FAST),0.15$(comma)0.3,0.1$(comma)0.15$(comma)0.2$(comma)0.3$(comma)0.5$(comma)0.8) \
		--metrics psnr,ms_ssim,lpips_alex_cut,dists$(if $(FAST),,$(comma)ssimulacra2$(comma)flip) $(if $(PUBLISHED),--published $(PUBLISHED)) -o $(OUT)/kodak
	$(BENCH) $(kodak) --codecs av1,avif,avif-base --at-bpp $(if $(FAST),0.18$(comma)0.26,0.085$(comma)0.125$(comma)0.18$(comma)0.26$(comma)0.38$(comma)0.56) \
		--metrics psnr,lpips_alex_cut,lpips_vgg,dists --no-report -o $(OUT)/av1
	$(BENCH) $(kodak) --codecs ratevar --metrics none --q-index $(shell seq -s, 16 $(if $(FAST),80,8) 336) --no-report -o $(OUT)/sweep
	.venv/bin/python -m tools speed $(KODAK)/kodim05.png -m ratevar --threads 2 --out $(FIGURES)/speed.json
	.venv/bin/python -m tools speed $(KODAK)/kodim05.png -m cdc --threads 2 --out $(FIGURES)/speed-cdc.json
	.venv/bin/python -m tools speed $(KODAK)/kodim05.png -m av1 --threads 2 --out $(FIGURES)/speed-av1.json
	for model in av1 ratevar; do .venv/bin/python -m tools uncertainty $(KODAK) --out $(FIGURES)/uncertainty.jsonl -m $$model || exit 1; done
	cp $(OUT)/av1/rows.jsonl $(FIGURES)/av1.jsonl
	cp $(OUT)/kodak/rows.jsonl $(FIGURES)/kodak.jsonl
endif
ifneq ($(cid22),)
	$(BENCH) $(cid22) --codecs ratevar --at-bpp 0.1,0.2,0.4 --realism 0,0.25,0.5,0.75,1 --metrics psnr,lpips_alex,dists --no-report -o $(OUT)/knob
	cp $(OUT)/knob/rows.jsonl $(FIGURES)/knob.jsonl
endif
	$(PLOT) $(FIGURES)/av1.jsonl -o $(FIGURES)/av1-lpips.svg --y lpips_vgg
	$(PLOT) $(FIGURES)/kodak.jsonl -o $(FIGURES)/kodak-lpips.svg --y lpips_alex_cut
	$(PLOT) $(FIGURES)/kodak.jsonl -o $(FIGURES)/kodak-dists.svg --y dists
	$(PLOT) $(FIGURES)/kodak.jsonl -o $(FIGURES)/kodak-psnr.svg --y psnr
	$(PLOT) $(FIGURES)/cdc-steps.jsonl -o $(FIGURES)/cdc-steps.svg --x steps --along steps
	$(PLOT) $(FIGURES)/knob.jsonl -o $(FIGURES)/knob.svg --x psnr --y dists --along realism
	$(PLOT) $(FIGURES)/stage2-cid22.jsonl -o $(FIGURES)/stage2-dists.svg --x steps --y dists --along steps
	.venv/bin/python -m tools uncertainty src/unquant/demo/coffee.png --figure $(PAGES)/docs/uncertainty.jpg
	.venv/bin/python -m tools pages $(PAGES)/README.md $(PAGES)/docs/*.md

.venv-demo/.done: pyproject.toml constraints.txt
	$(PYTHON) -m venv --clear .venv-demo
	.venv-demo/bin/pip install $(PIP_FLAGS) -e '.[demo]'
	touch $@

.venv/.done: pyproject.toml constraints.txt
	$(PYTHON) -m venv --clear .venv
	.venv/bin/pip install $(PIP_FLAGS) -e '.[dev]'
	touch $@

clean:
	rm -rf .venv .venv-demo .venv-wheel .venv-oldest web/node_modules out build dist
