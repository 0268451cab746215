"""The gradient of a step depends on its rows only: 8 in one batch, 2 x 4 or 1 x 8 accumulated, a partial window too.

Texts also in parts of like length, which is how they are trained by default.
"""

from pathlib import Path

import datasets
import pytest
import tiny
import torch
from transformers import Seq2SeqTrainingArguments, TrainerCallback

from hfft import batches, lookup
from hfft.recipe import ModelSection, Part
from hfft.trainer import Trainer
from hfft.tuning.peft import peft

LAYOUTS = [(8, 1), (4, 2), (1, 8)]  # rows a batch, accumulated batches


class Catch(TrainerCallback):
    """Keeps the gradient of every optimizer step as one vector."""

    def __init__(self):
        self.gradients = []

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        grads = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
        self.gradients.append(torch.cat(grads).clone())


def rows_of(kind: str, num_rows: int) -> datasets.Dataset:
    rows = tiny.sentences(num_rows) if kind == "text" else tiny.pictures(num_rows)
    names = sorted({row["label"] for row in rows})
    columns = {kind: [row[kind] for row in rows], "label": [names.index(row["label"]) for row in rows]}
    return datasets.Dataset.from_dict(columns).cast_column("label", datasets.ClassLabel(names=names))


def gradients(
    name: str, folder, layout: tuple[int, int], tuning: str, rows: datasets.Dataset, in_parts: bool = False
) -> list[torch.Tensor]:
    kind, section = tiny.CONFIGS[name][0], ModelSection(name=str(folder))
    task = lookup.call("tasks", Part(f"{kind}_classification", {}))
    torch.manual_seed(0)
    task.setup(section, rows)
    model = task.load_model(section)
    encoded = batches.encoded(rows, task, split="train", seed=0)
    trainer = trainer_of(task, model, encoded, folder, layout, tuning)
    if in_parts and not task.lazy:
        trainer.part_cost = 0.5  # every length a part of its own
        assert any(len(micro_batch) > 1 for micro_batch in trainer.get_train_dataloader())
    return caught(trainer)


def trainer_of(task, model, encoded, folder, layout: tuple[int, int], tuning: str, **more) -> Trainer:
    """A Trainer of one epoch whose steps are too small to change anything; `more` goes to it (`loss`, `eval`)."""
    if tuning == "lora":
        model = peft(model, peft_type="LORA", r=2, init_lora_weights=False)
    args = Seq2SeqTrainingArguments(
        output_dir=str(Path(folder) / "out"), per_device_train_batch_size=layout[0],
        gradient_accumulation_steps=layout[1], num_train_epochs=1, optim="sgd", learning_rate=1e-9, max_grad_norm=0,
        report_to="none", disable_tqdm=True, save_strategy="no", logging_strategy="no", use_cpu=True,
        logging_nan_inf_filter=False, per_device_eval_batch_size=4,
    )  # fmt: skip
    return Trainer(model, args, task=task, **{"loss": task.loss, "train": encoded, **more})


def caught(trainer: Trainer) -> list[torch.Tensor]:
    """The gradient of each of its steps."""
    catch = Catch()
    trainer.add_callback(catch)
    trainer.train()
    return catch.gradients


@pytest.mark.parametrize("tuning", ["full", "lora"])
@pytest.mark.parametrize("name", tiny.NO_BATCHNORM)
def test_gradient_is_the_same_for_every_layout_of_the_global_batch(name, tuning, tmp_path):
    tiny.build(name, tmp_path)
    check_layouts(name, tmp_path, tuning, rows_of(tiny.CONFIGS[name][0], 14))


def several(rows: datasets.Dataset, kind: str) -> datasets.Dataset:
    """The same texts with any number of classes, or with two numbers."""
    places = rows["label"][:]
    rows = rows.remove_columns("label")
    if kind == "multi_label":
        lists = datasets.List(datasets.ClassLabel(names=["a", "b", "c"]))
        return rows.add_column("label", [[0, 2], [], [1]] * 4 + [[0, 1, 2], [2]]).cast_column("label", lists)
    return rows.add_column("label", [{"x": 3.0 * place + i, "y": -100.0 - i} for i, place in enumerate(places)])


@pytest.mark.parametrize("tuning", ["full", "lora"])
@pytest.mark.parametrize("problem", ["multi_label", "regression"])
@pytest.mark.parametrize("name", [name for name, (kind, _) in tiny.CONFIGS.items() if kind == "text"])
def test_so_it_is_of_several_labels_and_of_numbers(name, problem, tuning, tmp_path):
    tiny.build(name, tmp_path)
    check_layouts(name, tmp_path, tuning, several(rows_of("text", 14), problem))


def check_layouts(name: str, folder, tuning: str, rows: datasets.Dataset) -> None:
    """14 rows: a whole window of 8, and a last one of 6."""
    whole, *others = [gradients(name, folder, layout, tuning, rows) for layout in LAYOUTS]
    others.append(gradients(name, folder, (8, 1), tuning, rows, in_parts=True))
    assert len(whole) == 2
    for other in others:
        for a, b in zip(whole, other, strict=True):
            assert a.norm() > 1e-6
            assert (a - b).norm() <= 1e-5 * a.norm()
