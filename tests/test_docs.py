"""The examples of docs/api.md run as they stand, in their order, in a fresh process; what it says of types holds."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import tiny

ROOT = Path(__file__).resolve().parent.parent
API = ROOT / "docs" / "api.md"


def examples(text: str) -> str:
    """Every Python block of a page, below each other."""
    return "\n".join(re.findall(r"```python\n(.*?)```", text, re.S))


@pytest.mark.slow
def test_the_examples_of_the_api_page_run_in_a_fresh_process(tmp_path):
    models = {"path/to/text-model": "bert", "path/to/image-model": "vit"}
    code = examples(API.read_text())
    for place, name in models.items():
        assert place in code
        code = code.replace(place, tiny.build(name, tmp_path / name))
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=600)
    assert out.returncode == 0, out.stderr[-3000:]
    said = out.stdout.splitlines()
    assert "train: unknown key 'learning_rat'. Did you mean 'learning_rate'?" in out.stdout
    assert any(line.startswith("input: is 'new.csv' a text or a file? give ['new.csv']") for line in said)
    assert re.search(r"^['\[].*(pos|neg)", out.stdout, re.M)
    assert "light" in said
    assert any((tmp_path / "seen").iterdir())
    for run in ("films", "shades", "own", "file"):
        assert (tmp_path / "runs" / run / "metrics.json").is_file(), run
    assert (tmp_path / "runs" / "shades" / "exports" / "merge" / "model.safetensors").is_file()


def test_the_page_names_the_whole_public_api():
    import hfft

    text = API.read_text()
    for name in hfft.__all__:
        assert name.startswith("__") or f"hfft.{name}`" in text, name
