"""Signals and resuming, in real processes: what was stopped and resumed ends with bitwise the same weights."""

import json
from pathlib import Path

import pytest
import survival
from survival import EVAL, STEP, equal, log, outcome, recipe, saved

from hfft import checkpoint

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    return survival.files(tmp_path_factory.mktemp("files"))


# Each value with each other one; all eight take twice the time.
CASES = [("text", False, 1), ("text", True, 2), ("image", False, 2), ("image", True, 1)]


@pytest.mark.parametrize(("kind", "lora", "processes"), CASES)
def test_a_run_stopped_at_four_places_ends_as_if_it_had_not_been(kind, lora, processes, forks, files, tmp_path):
    file = recipe(files, tmp_path, kind, lora=lora, processes=processes)
    run, whole, last = tmp_path / "run", tmp_path / "whole", processes - 1

    def go(*options: str, **env: str) -> tuple[list[int], list[str]]:
        return forks.run("train", str(file), *options, processes=processes, **env)

    codes, said = go(f"train.output_dir={whole}")
    assert codes == [0] * processes and said[1:] == [""] * last  # main alone speaks
    stops = [("SIGTERM", 1, 1, [1]), ("SIGINT", 3, 3, [1, 2, 3]), ("SIGUSR1", 1, 4, [2, 3, 4])]
    for i, (name, call, step, left) in enumerate(stops):  # mid-epoch, at its end, after it (where evaluation is due)
        codes, said = go(*(["--resume"] if i else []), SIGNAL=f"{name} {STEP} {call} {last}")
        assert codes == [75] * processes
        assert "".join(said).count(f"hfft: stopped at step {step}; resume with --resume\n") == 1
        assert saved(run) == left and not (run / "metrics.json").exists() and not list(run.glob("*.safetensors"))
    codes, _ = go("--resume", SIGNAL=f"SIGKILL {STEP} 2 {last}")
    assert codes[last] == -9 and saved(run) == [2, 3, 4]
    codes, said = go("--resume")
    assert codes == [0] * processes and f"resumed from {run / 'checkpoint-4'}" in said[0]
    assert equal(run, whole)


@pytest.fixture(scope="module")
def whole(forks, files, tmp_path_factory) -> Path:
    """The uninterrupted text run."""
    folder = tmp_path_factory.mktemp("whole")
    assert forks.run("train", recipe(files, folder, "text"))[0] == [0]
    return folder / "run"


@pytest.mark.parametrize("name", ["TERM", "KILL"])
def test_a_run_stopped_while_it_saves_goes_on_from_the_checkpoint_before(name, forks, files, tmp_path, whole):
    file, run = recipe(files, tmp_path, "text"), tmp_path / "run"
    codes, _ = forks.run("train", file, SIGNAL=f"SIG{name} hfft.trainer:Trainer._save_rng_state 2 0")
    assert codes == [75 if name == "TERM" else -9]
    assert checkpoint.steps(run) == ([2, 4, 5] if name == "TERM" else [2])
    codes, said = forks.run("train", file, "--resume")
    assert codes == [0] and ("checkpoint-5" if name == "TERM" else "checkpoint-2") in said[0]
    assert equal(run, whole)
    assert saved(run)[-1] == 6


def test_a_checkpoint_that_was_written_but_not_renamed_is_taken(forks, files, tmp_path, whole):
    file, run = recipe(files, tmp_path, "text"), tmp_path / "run"
    assert forks.run("train", file, SIGNAL="SIGKILL hfft.checkpoint:_rename 2 0")[0] == [-9]
    assert checkpoint.steps(run) == [2] and (run / ".tmp-checkpoint-4").is_dir()
    codes, said = forks.run("train", file, "--resume")
    assert codes == [0] and "resumed from " + str(run / "checkpoint-4") in said[0]
    assert equal(run, whole)


def test_an_incomplete_checkpoint_is_told_and_the_one_before_taken(forks, files, tmp_path, whole):
    file, run = recipe(files, tmp_path, "text"), tmp_path / "run"
    assert forks.run("train", file, SIGNAL=f"SIGTERM {STEP} 8 0")[0] == [75]
    with open(run / "checkpoint-5" / "optimizer.safetensors", "r+b") as damaged:
        damaged.truncate(1000)
    codes, said = forks.run("train", file, "--resume")
    assert codes == [0] and "checkpoint-5 cannot be resumed: optimizer.safetensors has 1,000 of" in said[0]
    assert equal(run, whole)


def test_an_evaluation_that_a_signal_ended_is_made_up_for(forks, files, tmp_path):
    beat = {"eval_strategy": "epoch", "eval_steps": None}
    file, whole_file = recipe(files, tmp_path / "a", "text", **beat), recipe(files, tmp_path / "b", "text", **beat)
    run, whole = tmp_path / "a" / "run", tmp_path / "b" / "run"
    assert forks.run("train", whole_file)[0] == [0]
    codes, said = forks.run("train", file, SIGNAL=f"SIGTERM {EVAL} 1 0")
    assert codes == [75] and "stopped at step 3" in said[0] and not [row for row in log(run) if "eval_loss" in row]
    assert forks.run("train", file, "--resume")[0] == [0]
    assert equal(run, whole)
    assert log(run) == log(whole)


@pytest.mark.parametrize(
    ("place", "call"), [(EVAL, 7), ("hfft.models:save_final", 1), ("hfft.report:write_metrics", 1)]
)
def test_a_run_stopped_after_its_last_step_takes_no_further_one(place, call, forks, files, tmp_path):
    steps = {"max_steps": 5}  # in the middle of an epoch
    file, whole_file = recipe(files, tmp_path / "a", "text", **steps), recipe(files, tmp_path / "b", "text", **steps)
    run, whole = tmp_path / "a" / "run", tmp_path / "b" / "run"
    assert forks.run("train", whole_file)[0] == [0]
    name = "SIGKILL" if "metrics" in place else "SIGTERM"
    codes, said = forks.run("train", file, SIGNAL=f"{name} {place} {call} 0")
    assert codes == [-9 if "metrics" in place else 75] and not (run / "metrics.json").exists()
    assert name == "SIGKILL" or "stopped at step 5" in said[0]
    assert forks.run("train", file, "--resume", SIGNAL=f"SIGKILL {STEP} 1 0")[0] == [0]
    assert equal(run, whole)


def test_resuming_a_finished_run_says_so_and_changes_nothing(forks, files, whole):
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*") if path.is_file()}
    codes, said = forks.run("train", whole.parent / "recipe.yaml", "--resume", "--json")
    assert codes == [0] and "nothing to do: this run finished at step 6" in said[0]
    assert json.loads(said[0].splitlines()[-1])["eval"] == outcome(whole)[1]
    assert before == {path: path.stat().st_mtime_ns for path in whole.rglob("*") if path.is_file()}


def test_what_early_stopping_has_counted_survives(forks, files, tmp_path):
    patience = {"learning_rate": 1e-30, "num_train_epochs": 4, "early_stopping_patience": 2}
    file, run = recipe(files, tmp_path, "text", **patience), tmp_path / "run"
    codes, said = forks.run("train", file, SIGNAL=f"SIGTERM {STEP} 8 0")
    assert codes == [75], said
    assert saved(run)[-1] == 5  # one evaluation without progress at step 4
    assert forks.run("train", file, "--resume", SIGNAL="SIGKILL hfft.models:save_final 1 0")[0] == [-9]
    assert forks.run("train", file, "--resume", SIGNAL=f"SIGKILL {STEP} 1 0")[0] == [0]
    assert json.loads((run / "metrics.json").read_text())["train"]["steps"] == 6


def test_a_signal_before_the_first_step_leaves_nothing(forks, files, tmp_path, whole):
    file = recipe(files, tmp_path, "text")
    codes, said = forks.run("train", file, SIGNAL="SIGTERM hfft.batches:encoded 1 0")
    assert codes == [75] and said[0].endswith("hfft: stopped before the first step\n")
    assert not (tmp_path / "run").exists()
    codes, _ = forks.run(
        "train", file, f"train.output_dir={whole}", "--overwrite", SIGNAL="SIGINT hfft.batches:encoded 1 0"
    )
    assert codes == [75] and (whole / "metrics.json").exists()


def test_a_run_goes_on_with_other_processes_but_not_with_another_global_batch(forks, files, tmp_path):
    plain = {"bf16": False, "learning_rate": 1e-3, "dropout": 0.0}
    for name in ("a", "b"):
        recipe(files, tmp_path / name, "image", **plain)
    file, run = tmp_path / "a" / "recipe.yaml", tmp_path / "a" / "run"
    assert forks.run("train", tmp_path / "b" / "recipe.yaml")[0] == [0]
    assert forks.run("train", file, SIGNAL=f"SIGTERM {STEP} 3 0")[0] == [75]
    codes, said = forks.run("train", file, "--resume", processes=2)
    assert codes == [2, 2] and "".join(said).count("hfft: error") == 1
    assert "a step of this run has 8 rows, here 16 = 4 (per_device_train_batch_size) x 2" in "".join(said)
    codes, said = forks.run("train", file, "--resume", "train.per_device_train_batch_size=2", processes=2)
    assert codes == [0, 0] and "resumed by 2 processes instead of 1: the same rows" in said[0]
    weights, others = outcome(run)[0], outcome(tmp_path / "b" / "run")[0]
    for name in weights:
        assert (weights[name] - others[name]).norm() <= 1e-4 * others[name].norm() + 1e-6


def test_machines_that_share_no_disk_end_as_one_that_has_all(forks, files, tmp_path):
    beat = {"output_dir": "run", "dataloader_num_workers": 0}
    file = recipe(files, tmp_path, "image", processes=2, **beat)
    for name in ("one", "a", "b"):
        (tmp_path / name).mkdir()
    machines = [tmp_path / "a", tmp_path / "b"]
    assert forks.run("train", file, f"train.output_dir={tmp_path / 'one' / 'run'}", processes=2)[0] == [0, 0]
    codes, said = forks.run("train", file, machines=machines, SIGNAL=f"SIGTERM {STEP} 3 1")
    assert codes == [75, 75] and saved(tmp_path / "a" / "run") == [2]
    codes, said = forks.run("train", file, "--resume", machines=machines)
    assert codes == [0, 0] and said[1] == ""
    assert equal(tmp_path / "a" / "run", tmp_path / "one" / "run")
    assert not list((tmp_path / "b").rglob("*.safetensors"))
