"""The pipeline's promises that need a whole run: the best checkpoint, early stopping, options that pass through."""

import json

import pytest
import tiny
import torch
from safetensors.torch import load_file

import hfft
from hfft.messages import InputError
from hfft.recipe import Recipe


def recipe_of(folder, name: str = "bert", tuning=(), task=None, **train) -> dict:
    kind = tiny.CONFIGS[name][0]
    return {
        "task": task or f"{kind}_classification",
        "model": {"name": tiny.build(name, folder / "base")},
        "tuning": list(tuning),
        "train": {"output_dir": str(folder / "run"), "use_cpu": True, "per_device_train_batch_size": 8, **train},
    }


def weights_of(folder) -> dict[str, torch.Tensor]:
    adapter = folder / "adapter_model.safetensors"
    return load_file(adapter if adapter.is_file() else folder / "model.safetensors")


@pytest.mark.parametrize("name", ["bert", "vit", "modernbert", "convnext", "timm", "timm_resnet"])
@pytest.mark.parametrize("tuning", [[], [{"peft": {"peft_type": "LORA", "r": 4}}]], ids=["full", "lora"])
def test_the_best_checkpoint_is_what_is_saved(name, tuning, tmp_path, monkeypatch):
    from hfft import pipeline

    class Falling(pipeline.Trainer):
        """Says of every evaluation that it is worse than the one before, so that the first checkpoint is the best."""

        def evaluate(self, *args, **kwargs):
            return super().evaluate(*args, **kwargs) | {"eval_accuracy": -float(self.state.global_step)}

    monkeypatch.setattr(pipeline, "Trainer", Falling)
    recipe = recipe_of(tmp_path, name, tuning=tuning, num_train_epochs=3, learning_rate=0.01, save_total_limit=5)
    make = tiny.sentences if tiny.CONFIGS[name][0] == "text" else tiny.pictures
    hfft.finetune(recipe, data={"train": make(16), "validation": make(8, seed=5)})
    best, last, saved = [weights_of(tmp_path / "run" / part) for part in ("checkpoint-2", "checkpoint-6", ".")]
    assert best.keys() == saved.keys()
    assert all(torch.equal(best[key], saved[key]) for key in best)
    assert any(not torch.equal(last[key], saved[key]) for key in last)


def test_early_stopping_ends_the_run(tmp_path):
    recipe = recipe_of(tmp_path, num_train_epochs=50, learning_rate=1e-9, early_stopping_patience=2)
    result = hfft.finetune(recipe, data=tiny.sentences(24))
    assert result.metrics["train"]["steps"] <= 9  # 3 epochs of 3 steps: the first and two without a gain


@pytest.mark.parametrize("tuning", [[], [{"peft": {"peft_type": "LORA"}}], ["frozen"]], ids=["full", "lora", "head"])
def test_activation_checkpointing_changes_no_weight(tuning, tmp_path):
    weights = []
    for name, on in (("with", True), ("without", False)):
        recipe = recipe_of(
            tmp_path / name, "vit", tuning, max_steps=3, learning_rate=1e-2, gradient_checkpointing=on,
            load_best_model_at_end=False,
        )  # fmt: skip
        result = hfft.finetune(recipe, data=tiny.pictures(24))
        weights.append(torch.cat([p.detach().flatten() for p in result.model.parameters()]))
    assert torch.allclose(*weights, atol=1e-6)


def test_schedules_clipping_and_optimizers_are_those_of_training_arguments(tmp_path):
    recipe = recipe_of(
        tmp_path, max_steps=2, lr_scheduler_type="cosine", max_grad_norm=0.5, optim="adafactor", warmup_steps=0.5
    )
    hfft.finetune(recipe, data=tiny.sentences(24))
    lock = json.loads((tmp_path / "run" / "run.lock.json").read_text())
    assert lock["train"]["lr_scheduler_type"] == "cosine" and lock["train"]["optim"] == "adafactor"


def test_a_value_that_training_arguments_refuses_is_one_line(tmp_path):
    with pytest.raises(InputError) as caught:
        hfft.finetune(recipe_of(tmp_path, metric_for_best_model="acuracy", max_steps=1), data=tiny.sentences(24))
    assert len(caught.value.lines) == 1 and "Did you mean 'accuracy'?" in str(caught.value)


METRIC = """
import datasets
import evaluate

class Right(evaluate.Metric):
    def _info(self):
        features = datasets.Features({"predictions": datasets.Value("int64"), "references": datasets.Value("int64")})
        return evaluate.MetricInfo(description="", citation="", inputs_description="", features=features)

    def _compute(self, predictions, references):
        return {"right": float(sum(p == r for p, r in zip(predictions, references)))}
"""


def test_metrics_of_evaluate_are_computed_where_code_is_trusted(tmp_path):
    (tmp_path / "right").mkdir()
    (tmp_path / "right" / "right.py").write_text(METRIC)
    data = recipe_of(tmp_path, max_steps=2) | {"metrics": [f"evaluate:{tmp_path / 'right'}"]}
    with pytest.raises(InputError, match="trust-code"):
        Recipe.from_dict(data)
    result = hfft.finetune(Recipe.from_dict(data, trust_code=True), data=tiny.sentences(40))
    found = result.metrics["eval"]
    assert found["right"] == pytest.approx(found["accuracy"] * found["rows"])


def test_a_pair_of_texts_is_read_in_training_and_prediction(tmp_path):
    rows = [{"premise": r["text"], "hypothesis": "good film", "label": r["label"]} for r in tiny.sentences(24)]
    recipe = recipe_of(tmp_path, max_steps=2) | {
        "data": {"columns": {"text": "premise", "text_pair": "hypothesis", "label": "label"}}
    }
    result = hfft.finetune(recipe, data=rows)
    found = hfft.load(tmp_path / "run").predict([{"premise": "bad", "hypothesis": "good film"}])
    assert found[0]["label"] in ("neg", "pos") and result.task.columns == ("text", "text_pair?", "label")


def test_predict_takes_what_people_have_at_hand(tmp_path):
    import datasets
    import numpy as np

    recipe = recipe_of(tmp_path, "vit", max_steps=2)
    result = hfft.finetune(recipe, data=tiny.pictures(24))
    picture = tiny.pictures(1, seed=3)[0]["image"]
    picture.save(tmp_path / "one.png")
    expected = result.predict([picture])[0]["scores"]
    for rows in (
        [np.asarray(picture)], [str(tmp_path / "one.png")], str(tmp_path / "one.png"), [{"image": picture}], picture,
        datasets.Dataset.from_dict({"image": [str(tmp_path / "one.png")]}).cast_column("image", datasets.Image()),
    ):  # fmt: skip
        assert result.predict(rows)[0]["scores"] == pytest.approx(expected, abs=1e-6)


def test_result_of_a_run_with_dropped_rows_lists_them(tmp_path):
    rows = [*tiny.sentences(24), {"text": " ", "label": "pos"}]
    recipe = recipe_of(tmp_path, max_steps=1) | {"data": {"on_bad_row": "skip"}}
    result = hfft.finetune(recipe, data=rows)
    assert result.metrics["data"]["dropped"] == 1
    dropped = [json.loads(line) for line in (tmp_path / "run" / "dropped.jsonl").read_text().splitlines()]
    assert dropped[0]["row"] == 24 and dropped[0]["column"] == "text"
