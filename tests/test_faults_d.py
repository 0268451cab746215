"""Several processes, row D01 to D12 of the catalogue of faults: who is gone or stuck is named, and nobody waits for it.

D03, D10: tests/test_launchers.py. D04, D07: tests/test_interrupt.py. D11: tests/test_layouts.py.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import survival
from survival import STEP, complaint, recipe

from hfft import report
from hfft.messages import InputError

ROOT = Path(__file__).resolve().parent.parent
PLAIN = {"dataloader_num_workers": 0, "bf16": False, "learning_rate": 1e-3, "dropout": 0.0, "logging_steps": 1}
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    return survival.files(tmp_path_factory.mktemp("files"))


def two(forks, file: Path, *words: str, **env: str) -> tuple[list[int], list[str]]:
    return forks.run("train", file, *words, processes=2, limit=90, **env)


@pytest.mark.parametrize("rank", [0, 1])
def test_d01_a_process_that_was_killed_is_named_by_the_other(rank, forks, files, tmp_path):
    file = recipe(files, tmp_path, "text", processes=2, ddp_timeout=8, **PLAIN)
    codes, said = two(forks, file, SIGNAL=f"SIGKILL {STEP} 3 {rank}")
    assert codes[rank] == -9 and codes[1 - rank] == 3
    complaint(said[1 - rank], f"process {rank} of 2 is gone")


@pytest.mark.parametrize("rank", [0, 1])
def test_d01_a_process_that_is_gone_before_they_meet_is_waited_for_till_the_timeout(rank, forks, files, tmp_path):
    file = recipe(files, tmp_path, "text", processes=2, ddp_timeout=4, **PLAIN)
    codes, said = two(forks, file, SIGNAL=f"SIGKILL hfft.launch:meeting 1 {rank}")
    assert codes[rank] == -9 and codes[1 - rank] == 3
    complaint(said[1 - rank], "launch: the 2 processes of this run did not come together", "4 s (train.ddp_timeout)")


@pytest.mark.parametrize("rank", [0, 1])
def test_d02_a_process_that_is_stopped_is_named_within_the_timeout_and_ten_seconds(rank, forks, files, tmp_path):
    file = recipe(files, tmp_path, "text", processes=2, ddp_timeout=5, **PLAIN)
    codes, said = two(forks, file, SIGNAL=f"SIGSTOP {STEP} 3 {rank}")
    assert codes[rank] == -9 and codes[1 - rank] == 3
    assert 2 < forks.seconds[1 - rank] - forks.stopped < 15
    complaint(said[1 - rank], f"launch: process {rank} of 2 no longer answers", "5 s (train.ddp_timeout)")


def test_d02_a_first_process_that_is_stopped_while_it_reads_the_data_is_named_too(forks, files, tmp_path):
    file = recipe(files, tmp_path, "text", processes=2, ddp_timeout=4, **PLAIN)
    codes, said = two(forks, file, SIGNAL="SIGSTOP hfft.once:load_splits 1 0")
    assert codes == [-9, 3] and forks.seconds[1] - forks.stopped < 14
    complaint(said[1], "launch: process 0 of 2 no longer answers")


def test_d02_a_process_that_lives_and_does_not_go_on_is_named(forks, files, tmp_path):
    file = recipe(files, tmp_path, "text", processes=2, ddp_timeout=5, **PLAIN)
    codes, said = two(forks, file, SIGNAL=f"sleep60 {STEP} 3 1")
    assert codes[0] == 3 and forks.seconds[0] < 40
    complaint(said[0], "launch: process 1 of 2 is stuck after step 1", "5 s (train.ddp_timeout)")


def test_d12_a_preparation_longer_than_the_timeout_ends_nobody(forks, files, tmp_path):
    file = recipe(files, tmp_path, "text", processes=2, ddp_timeout=4, **PLAIN)
    codes, said = two(forks, file, SIGNAL="sleep8 hfft.once:load_splits 1 0")
    assert codes == [0, 0], said


def losses(run: Path) -> list[float]:
    return [row["loss"] for row in survival.log(run) if "loss" in row]


def test_d08_two_processes_one_and_two_again_see_the_same_losses(forks, files, tmp_path):
    whole = recipe(files, tmp_path / "whole", "image", processes=2, **PLAIN)
    assert two(forks, whole)[0] == [0, 0]
    file, run = recipe(files, tmp_path, "image", processes=2, **PLAIN), tmp_path / "run"
    assert two(forks, file, SIGNAL=f"SIGTERM {STEP} 3 1")[0] == [75, 75]
    words = ["--resume", "train.per_device_train_batch_size=4"]
    codes, said = forks.run("train", file, *words, SIGNAL=f"SIGTERM {STEP} 3 0")
    assert codes == [75] and "resumed by 1 processes instead of 2: the same rows in each step" in said[0]
    codes, said = two(forks, file, "--resume")
    assert codes == [0, 0] and "resumed by 2 processes instead of 1" in said[0]
    assert losses(run) == pytest.approx(losses(tmp_path / "whole" / "run"), rel=1e-5)
    known = json.loads((run / "metrics.json").read_text())["integrity"]
    assert known["resumed_from"] == ["checkpoint-2", "checkpoint-4"] and known["processes"] == 2


def test_d09_another_global_batch_is_refused(forks, files, tmp_path):
    file = recipe(files, tmp_path, "image", processes=2, **PLAIN)
    assert two(forks, file, SIGNAL=f"SIGTERM {STEP} 3 1")[0] == [75, 75]
    codes, said = forks.run("train", file, "--resume")
    assert codes == [2]
    complaint(said[0], "a step of this run has 8 rows, here 4 = 2 (per_device_train_batch_size) x 2")


def launched(file: Path, *options: str, words: Sequence[str] = (), **env: str) -> subprocess.Popen:
    """torchrun with two CPU processes, in the recipe's folder."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *options]
    command += [str(ROOT / "hfft" / "run.py"), str(file), *words]
    env = os.environ | {"PYTHONPATH": str(ROOT), "ACCELERATE_USE_CPU": "true", **env}
    return subprocess.Popen(command, cwd=file.parent, env=env, stderr=open(file.parent / "said", "w"))


def ours(file: Path) -> list[str]:
    return [line for line in (file.parent / "said").read_text().splitlines() if line.startswith("hfft: ")]


def test_d05_processes_whose_launcher_was_killed_save_and_end(files, tmp_path):
    file = recipe(files, tmp_path, "text", processes=2, **{**PLAIN, "num_train_epochs": 500, "eval_steps": 1000})
    launcher = launched(file)
    while launcher.poll() is None and not any(line.startswith("hfft: step 5/") for line in ours(file)):
        time.sleep(0.05)
    children = [child for child in psutil.Process(launcher.pid).children(recursive=True)]
    launcher.send_signal(signal.SIGKILL)
    launcher.wait()
    _, left = psutil.wait_procs(children, timeout=15)
    assert len(children) >= 2 and left == []
    assert ours(file)[-1].endswith("resume with --resume") and len(survival.saved(tmp_path / "run")) == 1


def test_d06_a_run_that_the_launcher_starts_again_goes_on_by_itself(files, tmp_path):
    file = recipe(files, tmp_path, "text", processes=2, **{**PLAIN, "num_train_epochs": 10, "eval_steps": 5})
    (tmp_path / "run" / "checkpoint-29").mkdir(parents=True)  # an old run, removed once and only once
    (tmp_path / "run" / "recipe.yaml").write_text("task: x\n")
    launcher = launched(file, "--max-restarts", "1", words=["--overwrite"], HFFT_FAULT="step:40:kill")
    assert launcher.wait(300) == 0, (tmp_path / "said").read_text()
    assert "hfft: started again by the launcher (attempt 2): the run goes on" in ours(file)
    known = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert known["train"]["steps"] == 30 and known["integrity"]["resumed_from"] == ["checkpoint-20"]


def test_d06_what_was_not_saved_is_begun_anew_and_another_run_is_not_gone_on_with(tmp_path, monkeypatch):
    args = SimpleNamespace(output_dir=str(tmp_path), num_train_epochs=1, max_steps=-1)
    begin = partial(report.start, args, SimpleNamespace(export=[]), resume=False, overwrite=False)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "this")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    (tmp_path / "run.lock.json").write_text('{"launch": "this"}')
    (tmp_path / ".tmp-checkpoint-2").mkdir()
    assert begin() == report.Start(overwrite=True)
    assert not (tmp_path / ".tmp-checkpoint-2").exists()
    (tmp_path / "run.lock.json").write_text('{"launch": "another"}')
    with pytest.raises(InputError, match="is not empty"):
        begin()
