"""Golden losses: the first steps of a fixed run, so that a change of arithmetic is a decision and not an accident."""

import datasets
import pytest
import tiny
import torch
from transformers import Seq2SeqTrainingArguments, TrainerCallback

from hfft import batches, lookup
from hfft.recipe import ModelSection, Part
from hfft.trainer import Trainer

# torch 2.15.0, transformers 5.23.0, x86-64 CPU, fp32; 1e-4 leaves room for another BLAS
GOLDEN = {
    "bert": [2.12275, 2.13438, 0.83491, 0.74752, 0.73101],
    "vit": [0.66977, 0.76903, 0.25266, 0.19285, 0.15664],
}


class Losses(TrainerCallback):
    def __init__(self):
        self.losses = []

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "loss" in logs:
            self.losses.append(logs["loss"])


def losses(name: str, folder) -> list[float]:
    kind = tiny.CONFIGS[name][0]
    rows = tiny.sentences(32) if kind == "text" else tiny.pictures(32)
    names = sorted({row["label"] for row in rows})
    columns = {kind: [row[kind] for row in rows], "label": [names.index(row["label"]) for row in rows]}
    data = datasets.Dataset.from_dict(columns).cast_column("label", datasets.ClassLabel(names=names))
    section = ModelSection(name=tiny.build(name, folder))
    task = lookup.call("tasks", Part(f"{kind}_classification", {}))
    torch.manual_seed(0)
    task.setup(section, data)
    model = task.load_model(section)
    args = Seq2SeqTrainingArguments(
        output_dir=str(folder / "out"), per_device_train_batch_size=8, learning_rate=1e-2, max_steps=5, seed=0,
        logging_steps=1, save_strategy="no", report_to="none", disable_tqdm=True, use_cpu=True,
    )  # fmt: skip
    trainer = Trainer(model, args, task=task, loss=task.loss, train=batches.encoded(data, task, split="train", seed=0))
    seen = Losses()
    trainer.add_callback(seen)
    trainer.train()
    return seen.losses


@pytest.mark.parametrize("name", GOLDEN)
def test_the_first_losses_are_those_written_here(name, tmp_path):
    assert losses(name, tmp_path) == pytest.approx(GOLDEN[name], abs=1e-4)
