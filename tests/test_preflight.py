"""`hfft check`: all mistakes at once, what a run will need, what was not looked at; and it leaves nothing behind."""

import json
from pathlib import Path

import pytest
import tiny
import yaml
from verdict import told

import hfft
from hfft import pipeline, room
from hfft.messages import HubError, InputError, MachineError

ROOT = Path(__file__).resolve().parent.parent
ROWS = {"train": tiny.sentences(40), "validation": tiny.sentences(8, seed=1)}


def recipe_of(folder: Path, **parts) -> dict:
    model = folder / "base"
    name = tiny.build("bert", model) if not model.is_dir() else str(model)
    train = {"output_dir": str(folder / "run"), "use_cpu": True, "num_train_epochs": 3, **parts.pop("train", {})}
    return {"task": "text_classification", "model": {"name": name}, "train": train, **parts}


def written(folder: Path, **parts) -> Path:
    """A recipe of a file with rows in `folder`."""
    for name, rows in ROWS.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    content = recipe_of(folder, **{"data": {"path": str(folder), "eval": "validation"}, **parts})
    (folder / "recipe.yaml").write_text(yaml.safe_dump(content))
    return folder / "recipe.yaml"


def answer(lines: list[str]) -> dict:
    """What --json prints, which the server of forks has among the other lines."""
    [line] = [line for line in lines if line.startswith("{")]
    return json.loads(line)


WRONG = {
    "train": {"metric_for_best_model": "acuracy"},
    "data": {"path": "gone.csv"},
    "export": [{"hub": {"repo": "x"}}],
    "task": {"text_classification": {"max_length": 999}},
}


def test_mistakes_of_all_parts_are_told_at_once_and_what_was_not_looked_at(forks, tmp_path):
    (tmp_path / "taken").write_text("")
    file = written(tmp_path, **{**WRONG, "train": {**WRONG["train"], "output_dir": str(tmp_path / "taken" / "run")}})
    lines = told(forks, "check", file, "--json", code=2)
    errors = [line.removeprefix("hfft: error: ") for line in lines if line.startswith("hfft: error: ")]
    parts = [
        "'x' has no owner",
        "cannot be written (Not a directory)",
        "'acuracy' is none of",
        "gone.csv",
        "max_length 999",
    ]
    assert len(errors) == 5 and all(part in line for part, line in zip(parts, errors, strict=True)), errors
    found = answer(lines)
    assert [(each["code"], each["message"]) for each in found["problems"]] == list(
        zip((2, 3, 2, 2, 2), errors, strict=True)
    )
    assert found["not_checked"] == "model and data together, a forward and backward pass, memory, disk"
    assert any(line.endswith(f"not looked at: {found['not_checked']}") for line in lines)


def test_a_mistake_of_the_recipe_is_json_too(forks, tmp_path):
    lines = told(forks, "check", written(tmp_path, train={"learning_rat": 1}), "--json", code=2)
    [problem] = answer(lines)["problems"]
    assert problem["code"] == 2 and "unknown key 'learning_rat'. Did you mean 'learning_rate'?" in problem["message"]


def test_of_very_many_mistakes_twenty_are_told_and_the_others_counted(tmp_path):
    rows = [{"text": i, "label": "a"} for i in range(30)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*ROWS["train"], *rows]))
    recipe = recipe_of(tmp_path, data={"path": str(tmp_path / "rows.jsonl")}, task=WRONG["task"])
    with pytest.raises(InputError) as caught:
        hfft.check(recipe)
    assert len(caught.value.lines) == 21 and caught.value.lines[-1] == "… and 11 more"
    assert len(caught.value.answer["problems"]) == 21


def test_the_kind_of_the_error_is_that_of_the_first_mistake(tmp_path):
    recipe = recipe_of(tmp_path, train={"output_dir": "/dev/null/run", "metric_for_best_model": "x"})
    with pytest.raises(MachineError) as caught:
        hfft.check(recipe, data=ROWS)
    assert [problem["code"] for problem in caught.value.answer["problems"]] == [3, 2]
    recipe = recipe_of(tmp_path, data={"path": "someone/something"})
    with pytest.raises(HubError):
        hfft.check(recipe)


def test_the_figures_are_those_of_the_run(tmp_path):
    found = hfft.check(recipe_of(tmp_path, train={"per_device_train_batch_size": 8}), data=ROWS)
    result = hfft.finetune(
        recipe_of(tmp_path, train={"per_device_train_batch_size": 8, "save_total_limit": 1}), data=ROWS
    )
    weights = sum(weight.nbytes for weight in result.model.state_dict().values())
    trained = 4 * sum(p.numel() for p in result.model.parameters())
    assert found["problems"] == [] and found["trainable_parameters"] == trained // 4
    assert found["memory"]["parts"] | {"activations": 0} == {
        "weights": weights, "gradients": trained, "optimizer": 2 * trained, "activations": 0,
    }  # fmt: skip
    assert found["memory"]["needed"] < found["memory"]["available"]
    assert found["disk"]["needed"] == 3 * (weights + 2 * trained) + weights
    held = sum(path.stat().st_size for path in (tmp_path / "run" / "checkpoint-15").iterdir())
    assert 0.8 * held < found["disk"]["checkpoint"] < held
    assert found["data"]["trained"] == 40 and 0.1 < found["loss"] < 5


def test_an_adapter_needs_less(tmp_path):
    parts = {"tuning": [{"peft": {"peft_type": "LORA"}}], "export": ["merge"]}
    whole, adapted = hfft.check(recipe_of(tmp_path), data=ROWS), hfft.check(recipe_of(tmp_path, **parts), data=ROWS)
    assert adapted["disk"]["checkpoint"] < whole["disk"]["checkpoint"] / 2
    assert adapted["memory"]["parts"]["optimizer"] < whole["memory"]["parts"]["optimizer"] / 2
    assert adapted["disk"]["parts"]["exports"] > 0


@pytest.mark.parametrize(
    ("train", "checkpoints"),
    [
        ({}, 3),
        ({"save_total_limit": 1}, 3),  # the best beside the last
        ({"save_total_limit": 1, "eval_strategy": "no", "save_strategy": "epoch"}, 2),
        ({"num_train_epochs": 1}, 1),
        ({"save_strategy": "no", "eval_strategy": "no"}, 0),
        ({"save_total_limit": 4, "num_train_epochs": 9}, 5),
        ({"save_strategy": "steps", "eval_strategy": "steps", "save_steps": 2, "eval_steps": 2, "max_steps": 4}, 2),
    ],
)
def test_as_many_checkpoints_are_reckoned_as_lie_there_at_once(train, checkpoints, tmp_path):
    found = hfft.check(recipe_of(tmp_path, train=train), data=ROWS)["disk"]
    assert found["parts"]["checkpoints"] == checkpoints * found["checkpoint"]


def test_nothing_is_left_behind_and_a_finished_run_is_not_touched(tmp_path):
    hfft.check(recipe_of(tmp_path, train={"output_dir": str(tmp_path / "a" / "b" / "run")}), data=ROWS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base"]
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "model.safetensors").write_text("dear to me")
    hfft.check(recipe_of(tmp_path), data=ROWS)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["model.safetensors"]


def test_the_longest_rows_are_among_those_that_are_tried(tmp_path, monkeypatch):
    seen = []

    class Seen(pipeline.Trainer):
        def compute_loss(self, model, inputs, *args, **kwargs):
            seen.append(inputs["input_ids"].shape[1])
            return super().compute_loss(model, inputs, *args, **kwargs)

    monkeypatch.setattr(pipeline, "Trainer", Seen)
    rows = [*tiny.sentences(60), {"text": "good " * 200, "label": "pos"}]
    hfft.check(recipe_of(tmp_path), data={"train": rows, "validation": ROWS["validation"]})
    assert len(seen) == 2 and max(seen) == 202


def test_an_objective_that_fails_on_a_batch_is_one_line(tmp_path):
    part = tmp_path / "broken.py"
    part.write_text(
        '"""Broken."""\n\n\ndef broken(loss):\n    """loss -> loss."""\n\n    def inner(model, inputs, items=None):\n'
        "        return inputs['pixels'], None\n\n    return inner\n"
    )
    recipe = hfft.Recipe.from_dict(recipe_of(tmp_path, objectives=[str(part)]), trust_code=True)
    with pytest.raises(InputError, match=r"a training step fails: 'pixels'; --debug shows where"):
        hfft.check(recipe, data=ROWS)


@pytest.mark.parametrize(("count", "full", "decoded"), [(30, False, 20), (30, True, 30), (12, False, 12)])
def test_of_a_large_set_a_sample_of_pictures_is_decoded_unless_all_are_asked_for(
    count, full, decoded, tmp_path, monkeypatch
):
    from hfft import preflight
    from hfft.reading import pictures

    seen, inner = [], pictures.decoded
    monkeypatch.setattr(preflight, "CHECKED", 20)
    monkeypatch.setattr(pictures, "decoded", lambda data: seen.append(1) or inner(data))
    recipe = {
        "task": "image_classification",
        "model": {"name": tiny.build("vit", tmp_path / "vit")},
        "data": {"eval_size": 2},
        "train": {"output_dir": str(tmp_path / "run"), "use_cpu": True, "max_steps": 1},
    }
    hfft.check(recipe, data=tiny.pictures(count), full=full)
    assert abs(len(seen) - decoded) <= decoded // 3


@pytest.mark.parametrize("batch", [4, 3, 1])
def test_r31_memory_that_runs_out_in_a_step_is_told_with_the_same_batch_in_smaller_pieces(batch, forks, tmp_path):
    beat = {"eval_strategy": "steps", "eval_steps": 2, "max_steps": 6, "per_device_train_batch_size": batch}
    file = written(tmp_path, train=beat)
    lines = told(forks, ROOT / "tests" / "limited.py", "oom=4", "train", file, code=3)
    [line] = [line for line in lines if line.startswith("hfft: error: ")]
    assert "out of memory after step 3 (tried to allocate 20.00 MiB, " in line
    wanted = {
        4: "write train.per_device_train_batch_size=2 train.gradient_accumulation_steps=2 and --resume",
        3: "write train.per_device_train_batch_size=1 train.gradient_accumulation_steps=3 and --resume",
        1: "with one row a batch: write train.gradient_checkpointing=true, or take a smaller model",
    }
    assert wanted[batch] in line
    if batch == 4:
        words = ["train.per_device_train_batch_size=2", "train.gradient_accumulation_steps=2", "--resume"]
        assert any("resumed from" in line for line in told(forks, "train", file, *words, code=0))


def test_too_little_memory_is_refused_with_its_figures():
    found = {"needed": 3 * 10**9, "available": 10**9, "parts": {"weights": 10**9, "optimizer": 2 * 10**9}}
    with pytest.raises(MachineError, match=r"needs 3.00 GB .*\(weights 1.00 GB .*optimizer 2.00 GB .* 1.00 GB .*there"):
        room.refuse(found, room.MEMORY)
    room.refuse(found | {"available": None}, room.MEMORY)
    room.refuse(found | {"available": 3 * 10**9}, room.MEMORY)


def test_what_a_pass_takes_is_seen():
    import torch

    _, taken = room.taken_by(lambda: torch.ones(50_000_000).sum(), torch.device("cpu"))
    assert taken == 0 or 1.5e8 < taken < 4e8
