"""Interruption and resuming, row R01 to R32 of the catalogue of faults, on a run that was stopped after its fifth step.

R31 (memory) stands with the models, R29 with the recipes: `enable_jit_checkpoint` is refused.
"""

import json
import shutil
from pathlib import Path

import damage
import pytest
import survival
from kills import Kills
from resumes import CASES as KINDS
from resumes import Resumes
from signals import CASES as SIGNALS
from signals import Signals
from survival import STEP, complaint, equal, recipe

from hfft import checkpoint, states

pytestmark = pytest.mark.slow
PLAIN = {"dataloader_num_workers": 0, "eval_steps": 1}


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    return survival.files(tmp_path_factory.mktemp("files"))


@pytest.fixture(scope="module")
def whole(forks, files, tmp_path_factory) -> Path:
    """The run that was not interrupted, of texts and all weights."""
    folder = tmp_path_factory.mktemp("whole")
    codes, said = forks.run("train", recipe(files, folder, "text", **PLAIN))
    assert codes == [0], said
    return folder


def after_five(forks, files: Path, folder: Path, lora: bool) -> Path:
    """The folder of such a run that was stopped after its fifth step of six."""
    file = recipe(files, folder, "text", lora=lora, **PLAIN)
    assert forks.run("train", file, SIGNAL=f"SIGTERM {STEP} 8 0")[0] == [75]
    assert checkpoint.steps(folder / "run")[-2:] == [4, 5]
    return folder


@pytest.fixture(scope="module")
def full(forks, files, tmp_path_factory) -> Path:
    return after_five(forks, files, tmp_path_factory.mktemp("full"), lora=False)


@pytest.fixture(scope="module")
def adapter(forks, files, tmp_path_factory) -> Path:
    return after_five(forks, files, tmp_path_factory.mktemp("adapter"), lora=True)


@pytest.fixture
def stopped(full, tmp_path) -> Path:
    """The stopped run of all weights, to be damaged and resumed."""
    return copied(full, tmp_path)


def copied(folder: Path, to: Path) -> Path:
    run = Path(shutil.copytree(folder / "run", to / "run"))
    (to / "recipe.yaml").write_text((folder / "recipe.yaml").read_text().replace(str(folder), str(to)))
    return run


def resumed(forks, run: Path, *words: str, processes: int = 1) -> tuple[int, str]:
    codes, said = forks.run("train", run.parent / "recipe.yaml", "--resume", *words, processes=processes)
    return codes[0], said[0]


def test_r01_twenty_kills_cost_no_step_of_a_whole_checkpoint(forks, tmp_path):
    kills = Kills(forks, tmp_path)
    found = [kills.one() for _ in range(20)]
    assert len(found) == 20 and any(each.startswith("step") for each in found)


BROKEN = {
    "R02 killed after the weights": ("trainer_state.json", damage.KINDS["deleted"]),
    "R04 no optimizer": ("optimizer.safetensors", damage.KINDS["deleted"]),
    "R05 no schedule": ("scheduler.safetensors", damage.KINDS["deleted"]),
    "R06 no random state": ("random-0.safetensors", damage.KINDS["deleted"]),
    "R07 no weights": ("model.safetensors", damage.KINDS["deleted"]),
    "R08 weights of 0 bytes": ("model.safetensors", damage.KINDS["0 bytes"]),
    "R09 half an optimizer": ("optimizer.safetensors", damage.KINDS["half"]),
    "R10 an empty state": ("trainer_state.json", damage.KINDS["0 bytes"]),
    "R11 most of a random state": ("random-0.safetensors", damage.KINDS["99.9 %"]),
    "R12 a bit in the weights": ("model.safetensors", damage.KINDS["bit at the end"]),
    "R13 a bit in the optimizer": ("optimizer.safetensors", damage.KINDS["bit at the end"]),
    "R14 a lost page of weights": ("model.safetensors", damage.KINDS["zeroed block"]),
    "R15 weights of another step": ("model.safetensors", damage.KINDS["of another step"]),
    "R16 a weight is missing": ("model.safetensors", damage.dropped),
    "R17 a weight is not finite": ("model.safetensors", damage.nan),
}


@pytest.mark.parametrize("row", BROKEN)
def test_a_broken_checkpoint_is_named_and_the_one_before_taken(row, stopped):
    name, broken = BROKEN[row]
    broken(stopped / "checkpoint-5" / name, stopped / "checkpoint-4" / name)
    assert checkpoint.newest(stopped) == stopped / "checkpoint-4"
    assert name in checkpoint.trouble(stopped / "checkpoint-5")


@pytest.mark.parametrize("row", ["R04 no optimizer", "R12 a bit in the weights"])
def test_what_goes_on_from_the_checkpoint_before_ends_bitwise_equal(row, forks, stopped, whole):
    name, broken = BROKEN[row]
    broken(stopped / "checkpoint-5" / name, stopped / "checkpoint-4" / name)
    code, said = resumed(forks, stopped)
    [warning] = [line for line in said.splitlines() if line.startswith("hfft: warning: ")]
    assert code == 0 and f"{stopped / 'checkpoint-5'} cannot be resumed: " in warning and name in warning
    assert f"resumed from {stopped / 'checkpoint-4'}\n" in said and equal(stopped, whole / "run")


def test_r03_an_empty_folder_of_a_checkpoints_name_is_passed_over(forks, stopped, whole):
    (stopped / "checkpoint-99").mkdir()
    code, said = resumed(forks, stopped)
    assert code == 0 and "checkpoint-99 cannot be resumed: it has no MANIFEST.json" in said
    (stopped / "checkpoint-99").rmdir()
    assert equal(stopped, whole / "run")


@pytest.mark.parametrize("row", ["R16 a weight is missing", "R17 a weight is not finite"])
def test_weights_that_a_false_manifest_vouches_for_are_refused(row, forks, stopped):
    name, broken = BROKEN[row]
    broken(stopped / "checkpoint-5" / name, stopped / "checkpoint-4" / name)
    damage.reseal(stopped / "checkpoint-5")
    code, said = resumed(forks, stopped)
    assert code == 4
    complaint(said, "checkpoint-5", "--overwrite")


CHANGED = {
    "R18 batch size": (["train.per_device_train_batch_size=8"], ["a step of this run has 8 rows, here 16 = 8"]),
    "R19 accumulation": (["train.gradient_accumulation_steps=1"], ["a step of this run has 8 rows, here 4 = 4"]),
    "R20 learning rate": (["train.learning_rate=1e-5"], ["train.learning_rate: 0.01 in checkpoint-5, 1e-05 now"]),
    "R21 seed": (["train.seed=7"], ["train.seed: 42 in checkpoint-5, 7 now"]),
    "R22 data": (["data.path.train=FILES/fewer.csv"], ["data.fingerprint: "]),
    "R22 another split": (["data.eval=null"], ["data.eval: "]),
    "R23 fewer steps than were done": (["train.max_steps=3"], ["train.max_steps: 3, but", "checkpoint-5 is further"]),
    "R23 fewer epochs": (["train.num_train_epochs=1"], ["train.num_train_epochs: 2 in checkpoint-5, 1 now"]),
    "R24 another model": (["model.name=FILES/other"], ["model.weights: "]),
    "R24 another dropout": (["model.config.hidden_dropout_prob=0.5"], ["model.config: "]),
    "R25 LoRA now": (["tuning=[{peft: {peft_type: LORA}}]"], ["tuning: [] in checkpoint-5, "]),
    "another objective": (["objectives=[{label_smoothing: {alpha: 0.1}}]"], ["objectives: [] in checkpoint-5, "]),
    "another optimizer": (["train.optim=sgd"], ["train.optim: "]),
    "batches whole": (["train.levers={buckets: false}"], ["train.levers: not set in checkpoint-5, "]),
    "rows sorted by length": (["train.train_sampling_strategy=group_by_length"], ["train.train_sampling_strategy: "]),
}


@pytest.fixture(scope="module")
def others(files) -> Path:
    """Other data and another model than the run began with."""
    import tiny

    lines = (files / "train.csv").read_text().splitlines(keepends=True)
    (files / "fewer.csv").write_text("".join(lines[:18]))
    tiny.build("roberta", files / "other")
    return files


@pytest.mark.parametrize("row", CHANGED)
def test_a_change_that_would_train_something_else_is_refused(row, forks, stopped, others):
    words, expected = CHANGED[row]
    code, said = resumed(forks, stopped, *[word.replace("FILES", str(others)) for word in words])
    lines = [line for line in said.splitlines() if line.startswith("hfft: error: ")]
    assert code == 2 and "Traceback" not in said and max(map(len, lines)) <= 300
    assert all(any(part in line for line in lines) for part in expected), said
    assert not row.startswith(("R20", "R21", "R25")) or "--allow-change KEY" in lines[-1]
    assert checkpoint.steps(stopped)[-1] == 5


def test_r20_an_allowed_learning_rate_is_used_from_the_schedules_position_on(forks, stopped, whole):
    words = ["train.learning_rate=1e-3", "--allow-change", "train.learning_rate"]
    code, said = resumed(forks, stopped, *words)
    assert code == 0 and "train.learning_rate: 0.01 in checkpoint-5, 0.001 from here on, as allowed" in said
    assert not equal(stopped, whole / "run")
    schedule = states.read(stopped / "checkpoint-6" / "scheduler.safetensors")
    assert schedule["base_lrs"] == [1e-3, 1e-3] and schedule["last_epoch"] == 6
    sizes = [moved(run) for run in (stopped, whole / "run")]
    assert sizes[0] == pytest.approx(sizes[1] / 10, rel=0.01)  # Adam's step is as long as its learning rate


def moved(run: Path) -> float:
    """How far the last step has moved the weights."""
    before, after = (survival.weights_in(run / f"checkpoint-{step}") for step in (5, 6))
    return sum(float((after[name] - before[name]).norm() ** 2) for name in before) ** 0.5


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["train.seed=7", "--allow-change", "train.seed", "--allow-change", "model.weights"],
            "train.seed: 42 in checkpoint-5, 7 from here on",
        ),
        (["train.optim=sgd", "--allow-change", "train"], "the optimizer is another one than in the checkpoint"),
        (["train.num_train_epochs=3", "--allow-change", "train.num_train_epochs"], "3 from here on, as allowed"),
        (["train.lr_scheduler_type=cosine", "--allow-change", "train.lr_scheduler_type"], "as allowed"),
        (["data.path.train=FILES/fewer.csv", "--allow-change", "data.fingerprint"], "as allowed"),
    ],
)
def test_a_change_is_made_where_it_is_allowed(words, said, forks, stopped, others):
    code, text = resumed(forks, stopped, *[word.replace("FILES", str(others)) for word in words])
    assert code == 0 and said in text, text


def test_r23_allowing_fewer_epochs_than_were_done_trains_nothing(forks, stopped):
    code, said = resumed(forks, stopped, "train.num_train_epochs=1", "--allow-change", "train.num_train_epochs")
    assert code == 2
    complaint(said, "3 steps", "step 5")


def test_r24_another_architecture_cannot_be_allowed(forks, stopped, others):
    words = [f"model.name={others / 'other'}", "--allow-change", "model", "--allow-change", "data.fingerprint"]
    code, said = resumed(forks, stopped, *words)
    assert code == 4
    complaint(said, "checkpoint-5", "do not fit this model")


@pytest.mark.parametrize("lora", [False, True])
def test_r25_an_adapter_and_all_weights_cannot_follow_each_other(lora, forks, full, adapter, tmp_path):
    run = copied(adapter if lora else full, tmp_path)
    now = "tuning=[]" if lora else "tuning=[{peft: {peft_type: LORA}}]"
    code, said = resumed(forks, run, now)
    assert code == 2 and "tuning: " in said and "Traceback" not in said
    code, said = resumed(forks, run, now, *[f"--allow-change={key}" for key in ("tuning", "train", "model")])
    assert code == 4
    complaint(said, "checkpoint-5")


@pytest.mark.parametrize("broken", [damage.dropped, damage.KINDS["bit at the end"]])
def test_r26_a_damaged_adapter_is_not_resumed(broken, adapter, tmp_path):
    run = copied(adapter, tmp_path)
    broken(run / "checkpoint-5" / "adapter_model.safetensors", run)
    assert checkpoint.newest(run) == run / "checkpoint-4"


@pytest.mark.parametrize(("kind", "lora", "step"), [(*KINDS[0], 13), (*KINDS[1], 8), (*KINDS[2], 3), (*KINDS[3], 22)])
def test_r27_stopped_in_the_middle_of_an_epoch_it_ends_bitwise_equal(kind, lora, step, forks, tmp_path):
    assert Resumes(forks, tmp_path, kind, lora).stopped_at(step)


def test_r28_signals_at_every_place_end_with_75_and_lose_nothing(forks, tmp_path):
    signals = Signals(forks, tmp_path)
    for number in (0, 5, 10, 15, 16, 21, 27, 30, 33, 36):  # each place once, each signal twice or more
        signals.one(*SIGNALS[number])


def test_r30_a_loader_process_that_was_killed_is_one_line(forks, files, tmp_path):
    file = recipe(files, tmp_path, "image")
    codes, said = forks.run("train", file, SIGNAL=f"SIGKILL {STEP} 2 0 loader")
    assert codes == [3] and not forks.orphans()
    complaint(said[0], "loader process with pid", "is gone", "killed for want of memory")


def test_r30_a_loader_process_that_is_stopped_is_named_in_time(forks, files, tmp_path):
    file = recipe(files, tmp_path, "image", num_train_epochs=20)
    words = {"SIGNAL": f"SIGSTOP {STEP} 2 0 loader", "SET": "hfft.workers:PATIENCE 1"}
    codes, said = forks.run("train", file, **words, limit=60)
    if codes == [-9]:  # seen once in four: the signal may come when that process has given its last batch
        codes, said = forks.run("train", file, "--overwrite", **words, limit=60)
    assert codes == [3] and not forks.orphans()
    complaint(said[0], "loader process ", " of 2 (pid", "is stopped and gives no batch")


def test_r32_a_run_that_has_finished_takes_no_further_step(forks, whole):
    before = {path: path.read_bytes() for path in (whole / "run").rglob("*") if path.is_file()}
    code, said = resumed(forks, whole / "run")
    assert code == 0 and "nothing to do: this run finished at step 6" in said
    assert {path: path.read_bytes() for path in (whole / "run").rglob("*") if path.is_file()} == before


def test_metrics_tell_from_where_a_run_went_on_and_whose_weights_it_keeps(forks, stopped, whole):
    assert json.loads((whole / "run" / "metrics.json").read_text())["integrity"]["resumed_from"] == []
    assert resumed(forks, stopped)[0] == 0
    known = json.loads((stopped / "metrics.json").read_text())["integrity"]
    best = json.loads((stopped / "checkpoint-6" / "MANIFEST.json").read_text())["best"]
    assert known == {
        "rows": {"rows_read": {"train": 18, "eval": 11}, "trained": 18, "dropped": 0, "truncated": 0},
        "resumed_from": ["checkpoint-5"], "non_finite_steps": 0, "weights_of": best, "processes": 1,
    }  # fmt: skip
