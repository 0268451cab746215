PYTHON ?= python3

style:
	$(PYTHON) -m ruff format .
	$(PYTHON) -m ruff check --fix .

check:
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m ruff check .
	$(PYTHON) -m mypy

test:
	$(PYTHON) -m pytest -q

test-slow:
	$(PYTHON) -m pytest -q -m slow

fuzz:
	PYTHONPATH=. HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(PYTHON) tests/fuzz.py --recipes 1000 --tables 1000 --models 500

kills resumes signals:
	PYTHONPATH=. HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(PYTHON) tests/$@.py

disk:
	HFFT_DISK=all $(PYTHON) -m pytest -q -m slow tests/test_faults_s.py -k any_size

.PHONY: disk style check test test-slow kills resumes signals fuzz
