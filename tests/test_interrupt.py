"""Signals and resuming, in real processes: what was stopped and resumed ends with bitwise the same weights."""

import csv
import json
from pathlib import Path

import pytest
import tiny
import torch
import yaml
from safetensors.torch import load_file

from hfft import checkpoint

STEP = "hfft.trainer:Trainer.training_step"  # one micro-batch
EVAL = "hfft.trainer:Trainer._kept"  # one batch of an evaluation
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """Models and data: 18 rows to train, of two lengths, and 11 to evaluate."""
    folder = tmp_path_factory.mktemp("files")
    for name in ("bert", "vit"):
        tiny.build(name, folder / name)
    for split, num_rows, seed in (("train", 18, 0), ("eval", 11, 1)):
        with open(folder / f"{split}.csv", "w") as file:
            writer = csv.DictWriter(file, ["text", "label"])
            writer.writeheader()
            for i, row in enumerate(tiny.sentences(num_rows, seed)):
                words = (row["text"].split() * 3)[: 4 if i % 3 else 8]
                writer.writerow({"text": " ".join(words), "label": row["label"]})
        for i, row in enumerate(tiny.pictures(num_rows, seed)):
            place = folder / "pictures" / split / row["label"]
            place.mkdir(parents=True, exist_ok=True)
            row["image"].save(place / f"{i}.png")
    return folder


def recipe(files: Path, folder: Path, kind: str, *, lora: bool = False, processes: int = 1, **train) -> Path:
    """2 epochs of 3 steps, 5 micro-batches; dropout, augmentation, buckets, bf16, loader workers; eval each 2 steps."""
    model = {"text": "bert", "image": "vit"}[kind]
    texts = {"path": {split: str(files / f"{split}.csv") for split in ("train", "eval")}, "eval": "eval"}
    augment = [{"image": {"crop": [0.5, 1.0], "flip": 0.5}}]
    content = {
        "task": f"{kind}_classification",
        "model": {"name": str(files / model), "config": {"hidden_dropout_prob": 0.2}},
        "data": texts if kind == "text" else {"path": str(files / "pictures"), "eval": "eval", "augment": augment},
        "tuning": [{"peft": {"peft_type": "LORA", "lora_dropout": 0.1}}] if lora else [],
        "train": {
            "output_dir": str(folder / "run"), "num_train_epochs": 2, "per_device_train_batch_size": 4 // processes,
            "gradient_accumulation_steps": 2, "learning_rate": 1e-2, "bf16": True, "dataloader_num_workers": 2,
            "eval_strategy": "steps", "eval_steps": 2, "save_total_limit": 3, **train,
        },
    }  # fmt: skip
    folder.mkdir(exist_ok=True)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(content))
    return folder / "recipe.yaml"


def weights_in(folder: Path) -> dict[str, torch.Tensor]:
    file = folder / "adapter_model.safetensors"
    return load_file(file if file.exists() else folder / "model.safetensors")


def outcome(run: Path) -> tuple[dict[str, torch.Tensor], dict]:
    """The weights of the last step and of the model that was kept, and the evaluation that a finished run left."""
    last = {f"last.{k}": v for k, v in weights_in(checkpoint.path_of(run, saved(run)[-1])).items()}
    return last | weights_in(run), json.loads((run / "metrics.json").read_text())["eval"]


def same(one: Path, other: Path) -> None:
    (weights, metrics), (others, other_metrics) = outcome(one), outcome(other)
    assert weights.keys() == others.keys() and metrics == other_metrics
    assert all(torch.equal(weights[name], others[name]) for name in weights)


def saved(run: Path) -> list[int]:
    assert not list(run.glob(".tmp-*"))
    return checkpoint.steps(run)


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
    same(run, whole)


def log(run: Path) -> list[dict]:
    """What the newest checkpoint knows of the run, without times."""
    state = json.loads((checkpoint.path_of(run, saved(run)[-1]) / "trainer_state.json").read_text())
    return [
        {k: v for k, v in row.items() if "runtime" not in k and "per_second" not in k} for row in state["log_history"]
    ]


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
    same(run, whole)
    assert saved(run)[-1] == 6


def test_a_checkpoint_that_was_written_but_not_renamed_is_taken(forks, files, tmp_path, whole):
    file, run = recipe(files, tmp_path, "text"), tmp_path / "run"
    assert forks.run("train", file, SIGNAL="SIGKILL hfft.checkpoint:_rename 2 0")[0] == [-9]
    assert checkpoint.steps(run) == [2] and (run / ".tmp-checkpoint-4").is_dir()
    codes, said = forks.run("train", file, "--resume")
    assert codes == [0] and "resumed from " + str(run / "checkpoint-4") in said[0]
    same(run, whole)


def test_an_incomplete_checkpoint_is_told_and_the_one_before_taken(forks, files, tmp_path, whole):
    file, run = recipe(files, tmp_path, "text"), tmp_path / "run"
    assert forks.run("train", file, SIGNAL=f"SIGTERM {STEP} 8 0")[0] == [75]
    with open(run / "checkpoint-5" / "optimizer.pt", "r+b") as damaged:
        damaged.truncate(1000)
    codes, said = forks.run("train", file, "--resume")
    assert codes == [0] and "checkpoint-5 cannot be resumed: optimizer.pt has 1,000 of" in said[0]
    same(run, whole)


def test_an_evaluation_that_a_signal_ended_is_made_up_for(forks, files, tmp_path):
    beat = {"eval_strategy": "epoch", "eval_steps": None}
    file, whole_file = recipe(files, tmp_path / "a", "text", **beat), recipe(files, tmp_path / "b", "text", **beat)
    run, whole = tmp_path / "a" / "run", tmp_path / "b" / "run"
    assert forks.run("train", whole_file)[0] == [0]
    codes, said = forks.run("train", file, SIGNAL=f"SIGTERM {EVAL} 1 0")
    assert codes == [75] and "stopped at step 3" in said[0] and not [row for row in log(run) if "eval_loss" in row]
    assert forks.run("train", file, "--resume")[0] == [0]
    same(run, whole)
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
    same(run, whole)


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
    plain = {"bf16": False, "learning_rate": 1e-3}
    for name in ("a", "b"):
        recipe(files, tmp_path / name, "image", **plain)
        text = (
            (tmp_path / name / "recipe.yaml")
            .read_text()
            .replace("hidden_dropout_prob: 0.2", "hidden_dropout_prob: 0.0")
        )
        (tmp_path / name / "recipe.yaml").write_text(text)
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
    same(tmp_path / "a" / "run", tmp_path / "one" / "run")
    assert not list((tmp_path / "b").rglob("*.safetensors"))
