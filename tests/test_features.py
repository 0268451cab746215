"""Features of a frozen trunk computed once: the same run as without, or not used and the reason said."""

import json
import logging
import os
import shutil
import subprocess
import sys

import pytest
import tiny
import torch
from safetensors.torch import load_file

import hfft
from hfft import arguments, features, lookup, pipeline, shelf
from hfft.grammar.rules import LEVERS
from hfft.recipe import Recipe

LORA = {"peft": {"peft_type": "LORA"}}
USED = "computed once"


def recipe_of(folder, name: str, *, tuning=("frozen",), on: bool = True, run: str = "run", **train) -> dict:
    kind = tiny.CONFIGS[name][0]
    return {
        "task": f"{kind}_classification",
        "model": {"name": tiny.build(name, folder / "base")},
        "tuning": list(tuning),
        "train": {
            "output_dir": str(folder / run), "use_cpu": True, "num_train_epochs": 3, "learning_rate": 1e-2,
            "per_device_train_batch_size": 4, "levers": {name: name == "features" and on for name in LEVERS}, **train,
        },
    }  # fmt: skip


def data_for(name: str, num_rows: int = 26) -> list[dict]:
    return (tiny.sentences if tiny.CONFIGS[name][0] == "text" else tiny.pictures)(num_rows)


def trainer_of(recipe: dict, num_rows: int = 26):
    """The Trainer that the pipeline makes of a recipe, before its first step."""
    checked = Recipe.from_dict(recipe)
    task = lookup.call("tasks", checked.task)
    args = arguments.training_arguments(checked, task)
    name = "bert" if recipe["task"].startswith("text") else "vit"
    return pipeline.prepare(checked, task, args, data_for(name, num_rows))[0]


def said(caplog) -> list[str]:
    lines = [record.getMessage() for record in caplog.records if record.getMessage().startswith("features:")]
    caplog.clear()
    return lines


def finished(recipe: dict, name: str, folder) -> tuple[dict[str, torch.Tensor], dict]:
    metrics = hfft.finetune(recipe, data=data_for(name)).metrics["eval"]
    return load_file(folder / recipe["train"]["output_dir"] / "model.safetensors"), metrics


def assert_same_run(folder, name: str, caplog, *, share: float = 1e-5, objectives=(), **train) -> None:
    caplog.set_level(logging.INFO, "hfft")
    runs = []
    for on in (False, True):
        recipe = recipe_of(folder, name, on=on, run=f"run{on}", **train) | {"objectives": list(objectives)}
        if name == "bert":
            recipe["train"]["levers"]["buckets"] = True
        runs.append(finished(recipe, name, folder))
        assert [USED in line for line in said(caplog)] == [True] * on
    (plain, metrics), (stored, same) = runs
    base = load_file(folder / "base" / "model.safetensors")
    base = {key.removeprefix("timm_model."): value for key, value in base.items()}
    assert plain.keys() == stored.keys()
    moved = {key for key in plain if not torch.equal(plain[key], base[key])}
    assert moved and all(torch.equal(plain[key], stored[key]) for key in plain.keys() - moved)
    for key in moved:
        assert (plain[key] - stored[key]).abs().max() <= share * plain[key].abs().max(), key
    assert same.pop("loss") == pytest.approx(metrics.pop("loss"), rel=1e-5)
    assert same == metrics


# ---- the same run ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["bert", "dinov2", "mobilenet_v2"])
def test_the_head_is_what_the_whole_model_would_have_learnt(name, tmp_path, caplog):
    assert_same_run(tmp_path, name, caplog)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vit", "resnet", "convnext", "swin", "timm", "timm_resnet", "modernbert", "electra"])
def test_the_head_of_more_architectures(name, tmp_path, caplog):
    assert_same_run(tmp_path, name, caplog)


def test_objectives_work_on_stored_features(tmp_path, caplog):
    assert_same_run(tmp_path, "vit", caplog, objectives=["class_weights", {"label_smoothing": {"alpha": 0.2}}])


def test_bf16_arithmetic_and_accumulation_are_those_of_the_plain_run(tmp_path, caplog):
    train = {"bf16": True, "gradient_accumulation_steps": 2}
    assert_same_run(tmp_path, "vit", caplog, per_device_train_batch_size=2, **train)


def test_each_row_goes_through_the_trunk_once_in_three_epochs(tmp_path):
    trainer = trainer_of(recipe_of(tmp_path, "vit"))
    rows: list[int] = []
    trainer.model.vit.register_forward_pre_hook(lambda _, given: rows.append(len(given[0])))
    features.once(trainer)
    num_rows = len(trainer.train_dataset) + len(trainer.eval_dataset)
    assert sum(rows) == num_rows + 3 * features.PROBED == 26 + 24
    trainer.train()
    assert sum(rows) == num_rows + 3 * features.PROBED
    assert trainer.state.global_step == 18


def test_evaluation_on_features_is_the_whole_models(tmp_path):
    recipe = recipe_of(tmp_path, "mobilenet_v2", load_best_model_at_end=False)
    _, whole = finished(recipe, "mobilenet_v2", tmp_path)
    state = json.loads((tmp_path / "run" / "checkpoint-18" / "trainer_state.json").read_text())
    during = [entry["eval_loss"] for entry in state["log_history"] if "eval_loss" in entry]
    assert len(during) == 3 and during[-1] == pytest.approx(whole["loss"], rel=1e-5)


@pytest.mark.parametrize("name", ["bert", "mobilenet_v2"])
def test_a_resumed_run_ends_with_bitwise_the_same_weights(name, tmp_path):
    recipe = recipe_of(tmp_path, name, save_strategy="steps", save_steps=2, eval_strategy="no", save_total_limit=9)
    whole, _ = finished(recipe, name, tmp_path)
    for folder in (tmp_path / "run").glob("checkpoint-*"):
        if int(folder.name.split("-")[1]) > 8:  # step 8 of 18 lies inside the second epoch
            shutil.rmtree(folder)
    (tmp_path / "run" / "metrics.json").unlink()  # so that it has not finished
    hfft.finetune(recipe, data=data_for(name), resume=True)
    resumed = load_file(tmp_path / "run" / "model.safetensors")
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


def test_the_best_checkpoint_is_loaded_into_the_whole_model(tmp_path, monkeypatch):
    class Falling(pipeline.Trainer):
        def evaluate(self, *args, **kwargs):
            return super().evaluate(*args, **kwargs) | {"eval_accuracy": -float(self.state.global_step)}

    monkeypatch.setattr(pipeline, "Trainer", Falling)
    saved, _ = finished(recipe_of(tmp_path, "dinov2", save_total_limit=5), "dinov2", tmp_path)
    best, last = [load_file(tmp_path / f"run/checkpoint-{step}/model.safetensors") for step in (6, 18)]
    assert all(torch.equal(best[key], saved[key]) for key in saved)
    assert not torch.equal(last["classifier.weight"], saved["classifier.weight"])


def test_workers_are_for_rows_that_have_to_be_read(tmp_path):
    trainer = trainer_of(recipe_of(tmp_path, "vit", dataloader_num_workers=2))
    assert trainer.get_train_dataloader().num_workers == 2
    features.once(trainer)
    assert trainer.get_train_dataloader().num_workers == 0


def test_the_seconds_of_the_run_hold_those_of_the_features(tmp_path, monkeypatch):
    once = features.once

    def slow(trainer):
        once(trainer)
        assert trainer.seconds_before > 0
        trainer.seconds_before += 1000

    monkeypatch.setattr(features, "once", slow)
    train = hfft.finetune(recipe_of(tmp_path, "vit"), data=data_for("vit")).metrics["train"]
    assert 1000 < train["seconds"] < 1100
    assert train["samples_per_second"] == pytest.approx(3 * 23 / train["seconds"], rel=1e-2)


# ---- not used --------------------------------------------------------------------------------------------------------
def assert_untouched(trainer, caplog) -> list[str]:
    """`once` leaves this trainer, its model and the random state as they were; returns what was said."""
    caplog.set_level(logging.INFO, "hfft")
    caplog.clear()
    before, state = (trainer.train_dataset, trainer.eval_dataset), torch.get_rng_state()
    buffers = {name: buffer.clone() for name, buffer in trainer.model.named_buffers()}
    features.once(trainer)
    assert (trainer.train_dataset, trainer.eval_dataset) == before
    assert torch.equal(torch.get_rng_state(), state)
    assert "forward" not in vars(trainer.model)
    assert not any(module._forward_pre_hooks for module in trainer.model.modules() if not _is_norm(module))
    assert all(torch.equal(buffer, buffers[name]) for name, buffer in trainer.model.named_buffers())
    assert all(parameter.grad is None for parameter in trainer.model.parameters())
    return said(caplog)


def _is_norm(module) -> bool:
    return isinstance(module, torch.nn.modules.batchnorm._BatchNorm)


def set_config(**changes):
    return lambda recipe: recipe["model"].update(config=changes)


def set_train(**changes):
    return lambda recipe: recipe["train"].update(changes)


RANDOM = "it is random while it trains (dropout or drop path; model.config can set them to 0)"


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("bert", set_config(hidden_dropout_prob=0.1), RANDOM),
        ("bert", set_config(attention_probs_dropout_prob=0.1), RANDOM),
        ("convnext", set_config(drop_path_rate=0.1), RANDOM),
        ("beit", set_config(), RANDOM),
        ("vit", lambda recipe: recipe.update(data={"augment": ["image"]}), "augmentation changes the rows"),
        ("vit", set_train(num_train_epochs=1), "its rows are seen less than twice"),
        ("vit", set_train(max_steps=11), "its rows are seen less than twice"),
        ("bert", set_train(neftune_noise_alpha=5.0), "train.neftune_noise_alpha adds noise to its input"),
        ("roberta", set_config(), "what follows it is no plain chain of layers"),
        ("llama", set_config(), "what follows it cannot be run by itself (Expected target size"),
    ],
    ids=lambda value: value if isinstance(value, str) and " " not in value else "",
)
def test_what_makes_another_run_is_not_used_and_the_reason_said(name, change, reason, tmp_path, caplog):
    recipe = recipe_of(tmp_path, name)
    change(recipe)
    (line,) = assert_untouched(trainer_of(recipe), caplog)
    assert line.startswith(f"features: the frozen trunk runs in every epoch: {reason}")


def test_a_classifiers_own_dropout_is_no_hindrance(tmp_path, caplog):
    recipe = recipe_of(tmp_path, "bert")
    recipe["model"]["config"] = {"classifier_dropout": 0.3}
    caplog.set_level(logging.INFO, "hfft")
    features.once(trainer_of(recipe))
    assert [USED in line for line in said(caplog)] == [True]


@pytest.mark.parametrize("tuning", [[], [{"frozen": {"last": 1}}], [LORA]], ids=["full", "last", "peft"])
@pytest.mark.parametrize("name", ["bert", "resnet"])
def test_a_trunk_that_learns_is_no_matter_to_speak_of(name, tuning, tmp_path, caplog):
    assert assert_untouched(trainer_of(recipe_of(tmp_path, name, tuning=tuning)), caplog) == []


def test_batchnorm_that_follows_the_batches_is_found_out(tmp_path, caplog):
    trainer = trainer_of(recipe_of(tmp_path, "resnet", tuning=[]))
    for name, parameter in trainer.model.named_parameters():
        parameter.requires_grad_(name.startswith("classifier"))  # frozen by hand: BatchNorm still counts
    (line,) = assert_untouched(trainer, caplog)
    assert "what follows it is no plain chain of layers, or the loss needs more than logits" in line


def test_a_stream_has_no_rows_to_store(tmp_path, caplog):
    trainer = trainer_of(recipe_of(tmp_path, "vit", max_steps=20))
    trainer.train_dataset = range(26)
    assert assert_untouched(trainer, caplog)[0].endswith("every epoch: the rows are a stream")


def test_a_loss_that_looks_at_the_pictures_is_found_out(tmp_path, caplog):
    def looking(model, inputs, items=None):
        value, outputs = trainer.task.loss(model, inputs, items)
        return value + inputs["pixel_values"].mean(), outputs

    def teaching(model, inputs, items=None):
        value, outputs = trainer.task.loss(model, inputs, items)
        return value + teacher(inputs["pixel_values"]).logits.mean(), outputs

    trainer = trainer_of(recipe_of(tmp_path, "vit"))
    teacher = trainer_of(recipe_of(tmp_path, "vit")).model.eval()
    for loss, reason in ((looking, "or the loss needs more than logits"), (teaching, "cannot be run by itself")):
        trainer.loss = loss
        assert reason in assert_untouched(trainer, caplog)[0]


def test_features_that_do_not_fit_into_memory_are_not_stored(tmp_path, caplog, monkeypatch):
    trainer = trainer_of(recipe_of(tmp_path, "vit"))
    needed = 26 * (32 * 4 + 8)  # hidden size in float32, and an int64 label
    for free, used in ((2 * needed - 1, False), (2 * needed, True)):
        monkeypatch.setattr(shelf.psutil, "virtual_memory", lambda free=free: type("", (), {"available": free}))
        if used:
            features.once(trainer)
            assert USED in said(caplog)[0]
        else:
            assert "its output would take 1 MB of 1 MB of free memory" in assert_untouched(trainer, caplog)[0]


def test_features_that_differ_in_size_are_given_up(tmp_path, caplog, monkeypatch):
    trainer = trainer_of(recipe_of(tmp_path, "vit"))
    computed = features._computed

    def growing(trainer, tail, batch):
        found = computed(trainer, tail, batch)
        if 20 in batch["rows"]:
            found["pixel_values"] = found["pixel_values"].repeat(1, 2)
        return found

    monkeypatch.setattr(features, "_computed", growing)
    first, second = assert_untouched(trainer, caplog)
    assert USED in first and second.endswith("its output differs in size from row to row")


def test_the_switch_leaves_the_run_alone(tmp_path, caplog):
    caplog.set_level(logging.INFO, "hfft")
    hfft.finetune(recipe_of(tmp_path, "vit") | {}, data=data_for("vit"))
    assert "train.levers.features=false turns it off" in said(caplog)[0]
    hfft.finetune(recipe_of(tmp_path, "vit", run="off", on=False), data=data_for("vit"))
    assert said(caplog) == []


# ---- several processes -----------------------------------------------------------------------------------------------
SCRIPT = """
import json, os, sys
sys.path.insert(0, sys.argv[1])
import tiny, hfft
from hfft import features, shelf
from hfft.messages import speak
if os.environ["RANK"] == "1" and sys.argv[3] == "little":
    shelf.psutil.virtual_memory = lambda: type("", (), {"available": 0})
if __name__ == "__main__":
    speak()
    hfft.finetune(json.loads(sys.argv[2]), data=tiny.pictures(26))
"""


@pytest.mark.slow
@pytest.mark.parametrize(("memory", "line"), [("enough", USED), ("little", "another process cannot store it")])
def test_two_processes_share_the_work_and_learn_the_same(memory, line, tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    alone, _ = finished(recipe_of(tmp_path, "vit", run="one"), "vit", tmp_path)
    recipe = recipe_of(tmp_path, "vit", run="two", per_device_train_batch_size=2)
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
         str(tmp_path / "script.py"), os.path.dirname(__file__), json.dumps(recipe), memory],
        capture_output=True, text=True, timeout=300, env=os.environ | {"ACCELERATE_USE_CPU": "true"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stderr.count("features:") == done.stderr.count(line) == 1
    together = load_file(tmp_path / "two" / "model.safetensors")
    for key, value in alone.items():
        assert (value - together[key]).abs().max() <= 1e-5 * value.abs().max(), key
