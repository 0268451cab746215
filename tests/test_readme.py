"""What the README promises runs: its commands on the embedded default, its Python example, its own part."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import tiny

from hfft import lookup
from hfft.cli import COMMANDS
from hfft.recipe import Recipe

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def block(language: str, holding: str) -> str:
    """The code block of that language that holds the words."""
    found = [text for name, text in re.findall(r"```(\w*)\n(.*?)```", README, re.S) if name == language]
    return next(text for text in found if holding in text)


@pytest.mark.slow
def test_the_main_job_runs_as_the_first_command_says(tmp_path):
    words = block("bash", "accelerate launch").strip().split(" && ")[-1].split()
    assert words[0] == ".venv/bin/accelerate"
    launch = [sys.executable, "-m", "accelerate.commands.accelerate_cli", *words[1:]]
    command = [*launch, f"train.output_dir={tmp_path / 'run'}"]
    out = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert out.returncode == 0, out.stderr[-2000:]
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["eval"]["accuracy"] > 0.6


def test_the_second_command_is_what_ci_runs():
    command = block("bash", "pytest").strip()
    assert command == ".venv/bin/pip install '.[test]' && .venv/bin/pytest -q"
    assert ".venv/bin/pytest -q" in (ROOT / ".ci" / "run").read_text()


def test_the_recipe_that_is_explained_is_a_right_one(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(block("yaml", "task:"))
    assert Recipe.read(path).tuning[0].options["peft_type"] == "LORA"


@pytest.mark.slow
def test_the_python_example_runs_in_a_fresh_process(tmp_path):
    tiny.build("bert", tmp_path / "model")
    code = block("python", "hfft.finetune").replace("path/to/model", str(tmp_path / "model"))
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert out.returncode == 0, out.stderr[-2000:]
    accuracy, label = out.stdout.split()
    assert 0 <= float(accuracy) <= 1 and label in ("good", "bad")
    assert (tmp_path / "runs" / "films" / "model.safetensors").is_file()


def test_the_own_part_of_the_readme_works_when_code_is_trusted(tmp_path):
    (tmp_path / "confidence_penalty.py").write_text(block("python", "def confidence_penalty"))
    part = str(tmp_path / "confidence_penalty.py")
    data = {
        "task": "text_classification",
        "model": {"name": tiny.build("bert", tmp_path / "base")},
        "objectives": [{part: {"beta": 0.2}}],
        "train": {"output_dir": str(tmp_path / "run"), "max_steps": 1, "use_cpu": True},
    }
    with pytest.raises(ValueError, match="--trust-code"):
        Recipe.from_dict(data)
    import hfft

    result = hfft.finetune(Recipe.from_dict(data, trust_code=True), data=tiny.sentences(24))
    assert result.metrics["train"]["steps"] == 1


def test_the_table_of_commands_is_the_command_line():
    named = set(re.findall(r"`hfft (\w+)", README))
    assert {name for name, *_ in COMMANDS} <= named


def test_the_file_map_names_files_that_are_there():
    block_ = next(text for _, text in re.findall(r"```(\w*)\n(.*?)```", README, re.S) if "hfft/pipeline.py " in text)
    for name in re.findall(r"hfft/[\w/]+(?:\.py|/)", block_):
        assert (ROOT / name).exists(), name
    for kind in lookup.KINDS:
        for part in lookup.names(kind):
            assert re.search(rf"\b{part}\b", block_), part
