"""Numbers, row N01 to N11 of the catalogue of faults: nothing that is not finite reaches the weights.

N01 (accumulation, processes): tests/test_invariance.py, tests/test_layouts.py, tests/test_heads.py.
"""

import json
from pathlib import Path

import pytest
import survival
import torch
from survival import complaint, recipe
from verdict import told

from hfft import checkpoint

PLAIN = {"dataloader_num_workers": 0, "eval_steps": 1}


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    return survival.files(tmp_path_factory.mktemp("files"))


def finite(run: Path) -> bool:
    """Whether all weights of all checkpoints, and of the run, are finite."""
    folders = [checkpoint.path_of(run, step) for step in checkpoint.steps(run)]
    folders += [run] if (run / "metrics.json").exists() else []
    return all(torch.isfinite(weight).all() for folder in folders for weight in survival.weights_in(folder).values())


@pytest.mark.parametrize("lora", [False, True])
def test_n02_a_loss_that_is_not_finite_ends_the_run_within_its_step(lora, forks, files, tmp_path):
    file, run = recipe(files, tmp_path, "text", lora=lora, **PLAIN), tmp_path / "run"
    codes, said = forks.run("train", file, HFFT_FAULT="step:6:nan")
    assert codes == [3]
    complaint(said[0], "step 4: the loss or its gradient is not finite", "the weights are as before this step")
    assert checkpoint.steps(run)[-1] == 3 and finite(run) and not (run / "metrics.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("lr", ["1e6", "1e39"])
def test_n03_a_learning_rate_out_of_all_reason_leaves_no_such_weights(lr, forks, files, tmp_path):
    file, run = recipe(files, tmp_path, "text", **PLAIN, max_grad_norm=0), tmp_path / "run"
    codes, said = forks.run("train", file, f"train.learning_rate={lr}")
    assert codes in ([0], [3]) and finite(run)
    if codes == [3]:
        complaint(said[0], "write a smaller train.learning_rate")
    assert codes == [3] or lr == "1e6"


def test_n04_the_best_checkpoint_is_kept_where_a_later_step_is_not_finite(forks, files, tmp_path):
    file, run = recipe(files, tmp_path, "text", **{**PLAIN, "save_total_limit": 1}), tmp_path / "run"
    codes, _ = forks.run("train", file, "train.load_best_model_at_end=true", HFFT_FAULT="step:9:nan")
    assert codes == [3] and finite(run)
    state = json.loads((checkpoint.path_of(run, checkpoint.steps(run)[-1]) / "trainer_state.json").read_text())
    assert state["best_global_step"] in checkpoint.steps(run)


def data(folder: Path, labels: list[str]) -> str:
    rows = [f'{{"text": "good film {i}", "label": {label}}}\n' for i, label in enumerate(labels)]
    (folder / "rows.jsonl").write_text("".join(rows))
    return f"data={{path: {folder / 'rows.jsonl'}}}"


WRONG_DATA = {
    "N05 all labels -100": (["-100"] * 40, ["rows.jsonl line 1", "'label'", "-100"]),
    "N06 a target that is no number": (["0", "1"] * 20 + ["NaN"], ["rows.jsonl line 41", "'label'", "is empty"]),
    "N07 an infinite target": (["0", "1"] * 20 + ["Infinity"], ["rows.jsonl line 41", "'label'", "inf"]),
    "numbers to predict": (["0.5", "1.25"] * 20, ["'label'", "regression"]),
}


@pytest.mark.parametrize("row", WRONG_DATA)
def test_targets_that_train_nothing_are_refused(row, forks, files, tmp_path):
    labels, parts = WRONG_DATA[row]
    lines = told(forks, "train", recipe(files, tmp_path, "text", **PLAIN), data(tmp_path, labels), code=2)
    assert any(all(part in line for part in parts) for line in lines), lines
    assert not (tmp_path / "run").exists()


WRONG_RECIPES = {
    "N08 all frozen": (["tuning=[{frozen: {freeze: ['.*']}}]"], "nothing is left to train"),
    "N09 no epochs": (["train.num_train_epochs=0"], "train.num_train_epochs: expected a number > 0"),
    "N09 no steps": (["train.max_steps=0"], "train.max_steps: expected -1 or a whole number"),
    "N09 no whole batch": (
        ["train.dataloader_drop_last=true", "train.per_device_train_batch_size=32"],
        "train.dataloader_drop_last: a step has 64 rows",
    ),
}


@pytest.mark.parametrize("row", WRONG_RECIPES)
def test_a_recipe_that_trains_nothing_is_refused(row, forks, files, tmp_path):
    words, expected = WRONG_RECIPES[row]
    lines = told(forks, "train", recipe(files, tmp_path, "text", **PLAIN), *words, code=2)
    assert expected in lines[-1] and not (tmp_path / "run").exists()


def test_n10_the_arithmetic_of_a_run_is_told_and_noted(forks, files, tmp_path):
    (line,) = [
        line
        for line in told(forks, "train", recipe(files, tmp_path, "text", **PLAIN), "train.fp16=true", code=2)
        if line.startswith("hfft: error")
    ]
    assert "fp16" in line and "bf16" in line
    assert forks.run("train", recipe(files, tmp_path, "text", **PLAIN))[0] == [0]
    assert json.loads((tmp_path / "run" / "run.lock.json").read_text())["train"]["bf16"] is True


def test_n11_how_often_a_run_evaluates_changes_nothing_of_what_it_learns(forks, files, tmp_path):
    weights = []
    for name, strategy in (("often", "steps"), ("never", "no")):
        plain = {**PLAIN, "eval_strategy": strategy, "save_strategy": "no"}
        codes, said = forks.run("train", recipe(files, tmp_path / name, "text", **plain))
        assert codes == [0], said
        weights.append(survival.weights_in(tmp_path / name / "run"))
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
