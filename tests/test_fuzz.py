"""A part of `make fuzz`: mutated recipes, data files and model folders end with one of hfft's exit codes and lines."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.slow
def test_what_is_mutated_is_used_or_refused_in_lines():
    command = [
        sys.executable,
        str(ROOT / "tests" / "fuzz.py"),
        "--recipes=25",
        "--tables=25",
        "--models=12",
        "--seed=1",
    ]
    out = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert out.returncode == 0 and out.stdout.endswith("0 failed\n"), out.stdout + out.stderr
