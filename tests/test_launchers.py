"""Real launchers: the files of accelerate_configs/ as far as a CPU lets them, signals, fewer processes than asked."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny
import yaml

from hfft import arguments, lookup
from hfft.messages import MachineError
from hfft.recipe import Recipe

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = sorted((ROOT / "accelerate_configs").glob("*.yaml"))
ACCELERATE = [sys.executable, "-m", "accelerate.commands.launch"]


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
def test_each_config_is_read_by_accelerate_and_says_how_it_is_used(file):
    from accelerate.commands.config.config_args import load_config_from_file

    kinds = {"cpu": "NO", "single_gpu": "NO", "multi_gpu": "MULTI_GPU", "multi_node": "MULTI_GPU", "fsdp2": "FSDP"}
    config = load_config_from_file(str(file))
    assert config.distributed_type.value == kinds.get(file.stem, "DEEPSPEED")
    header = [line for line in file.read_text().splitlines() if line.startswith("#")]
    assert f"accelerate_configs/{file.name}" in "".join(header) and max(map(len, header)) <= 120
    assert file.stem == "cpu" or any("Not run here" in line for line in header)


def test_there_is_a_config_for_each_way_to_launch():
    assert [file.stem for file in CONFIGS] == sorted(
        ["cpu", "single_gpu", "multi_gpu", "fsdp2", "zero2", "zero3", "multi_node"]
    )


def test_deepspeed_that_is_not_installed_is_one_line(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    monkeypatch.setattr(arguments, "find_spec", lambda name: None)
    recipe = Recipe.from_dict({"task": "text_classification", "model": {"name": "x"}, "train": {"output_dir": "run"}})
    with pytest.raises(MachineError, match="hfft.deepspeed."):
        arguments.training_arguments(recipe, lookup.call("tasks", recipe.task))


@pytest.fixture
def recipe(tmp_path) -> Path:
    """A text run of many short epochs, in the folder that the launcher works in."""
    tiny.build("bert", tmp_path / "bert")
    rows = "".join(f"{row['text']},{row['label']}\n" for row in tiny.sentences(40))
    (tmp_path / "rows.csv").write_text("text,label\n" + rows)
    train = {"output_dir": "run", "num_train_epochs": 400, "logging_steps": 5, "per_device_train_batch_size": 4}
    content = {
        "task": "text_classification",
        "model": {"name": str(tmp_path / "bert")},
        "data": {"path": str(tmp_path / "rows.csv")},
        "train": {**train, "levers": {"cache": False}, "eval_strategy": "no", "save_strategy": "no"},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(content))
    return tmp_path / "recipe.yaml"


def start(recipe: Path, *launcher: str, folder: Path | None = None, **env: str) -> subprocess.Popen:
    command = [*ACCELERATE, *launcher, str(ROOT / "hfft" / "run.py"), str(recipe)]
    folder = folder or recipe.parent
    folder.mkdir(exist_ok=True)
    return subprocess.Popen(
        command, cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT), **env}, stderr=open(folder / "said", "w")
    )


def ours(folder: Path) -> list[str]:
    """hfft's own lines on stderr, without the launcher's report."""
    return [line for line in (folder / "said").read_text().splitlines() if line.startswith("hfft: ")]


@pytest.mark.slow
def test_fewer_processes_than_asked_for_is_one_line(recipe):
    assert start(recipe, "--cpu", "--num_processes", "2").wait(60) == 1  # the launcher's own code
    [line] = ours(recipe.parent)
    assert line.startswith("hfft: error: launch: asked for 2 processes, 1 was started;") and "--multi_gpu" in line
    assert "exit status 3" in (recipe.parent / "said").read_text()


@pytest.mark.slow
def test_two_cpu_processes_save_when_their_launcher_is_ended(recipe):
    config = ROOT / "accelerate_configs" / "multi_gpu.yaml"
    launcher = start(recipe, "--config_file", str(config), ACCELERATE_USE_CPU="true")
    while launcher.poll() is None and not any("step 5/" in line for line in ours(recipe.parent)):
        time.sleep(0.05)
    launcher.send_signal(signal.SIGTERM)
    assert launcher.wait(60) == 1
    lines = ours(recipe.parent)
    assert len(lines) == len(set(lines)) and lines[-1].endswith("resume with --resume")
    [checkpoint] = (recipe.parent / "run").glob("checkpoint-*")
    assert lines[-1] == f"hfft: stopped at step {checkpoint.name.split('-')[1]}; resume with --resume"
    assert {"random-0.safetensors", "random-1.safetensors", "MANIFEST.json"} <= {
        path.name for path in checkpoint.iterdir()
    }


@pytest.mark.slow
def test_two_hosts_train_together(recipe):
    text = recipe.read_text().replace("num_train_epochs: 400", "num_train_epochs: 1")
    recipe.write_text(text)
    config = ["--config_file", str(ROOT / "accelerate_configs" / "multi_node.yaml"), "--main_process_port", "29633"]
    hosts = [recipe.parent / name for name in ("a", "b")]
    launchers = [
        start(recipe, *config, "--machine_rank", str(i), folder=host, ACCELERATE_USE_CPU="true", TMPDIR=str(host))
        for i, host in enumerate(hosts)
    ]
    assert [launcher.wait(120) for launcher in launchers] == [0, 0]
    assert (hosts[0] / "run" / "metrics.json").exists() and ours(hosts[1]) == []
    assert ours(hosts[0])[-1].startswith("hfft: result: ") and not list(hosts[1].rglob("*.safetensors"))
